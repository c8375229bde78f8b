"""What the tests share: the collection under its real name, and a way to run its actions and modules."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.constants import DEFAULT_VAULT_IDENTITY
from ansible.module_utils.testing import patch_module_args
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultSecret
from ansible.plugins.loader import init_plugin_loader

ROOT = Path(__file__).resolve().parents[2]

# The collection is importable only below a folder ansible_collections/fba/stack: a link makes one, wherever the checkout lies
_COLLECTIONS = tempfile.TemporaryDirectory(prefix="fba-collections-")
_LINK = Path(_COLLECTIONS.name) / "ansible_collections" / "fba" / "stack"
_LINK.parent.mkdir(parents=True)
_LINK.symlink_to(ROOT)
init_plugin_loader([_COLLECTIONS.name])


@pytest.fixture(scope="session")
def ansible_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment for ansible's commands: this checkout's collection, and nothing of the user's or the checkout's settings."""
    home = tmp_path_factory.mktemp("home")
    password = home / "vault-password"
    password.write_text("only for the tests", encoding="ascii")
    (home / "ansible.cfg").touch()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "HOME": str(home),
        "ANSIBLE_CONFIG": str(home / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": _COLLECTIONS.name,
        "ANSIBLE_LOCAL_TEMP": str(home / "local"),
        "ANSIBLE_REMOTE_TEMP": str(home / "remote"),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(password),
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.fixture
def loader() -> DataLoader:
    """A loader with a vault password."""
    made = DataLoader()
    made.set_vault_secrets([(DEFAULT_VAULT_IDENTITY, VaultSecret(b"only for the tests"))])
    return made


@pytest.fixture
def run_action(loader: DataLoader) -> Callable[..., dict[str, Any]]:
    """A function that runs an action plugin's class as ansible would, but for task and connection, which are stand-ins."""

    def run(
        action: type, args: dict[str, Any], task_vars: dict[str, Any] | None = None, check_mode: bool = False, **parts: Any
    ) -> dict[str, Any]:
        task = MagicMock(args=args, check_mode=check_mode, async_val=0)
        instance = action(
            task=task,
            connection=parts.get("connection", MagicMock()),
            play_context=MagicMock(),
            loader=parts.get("loader", loader),
            templar=MagicMock(),
            shared_loader_obj=MagicMock(),
        )
        return dict(instance.run(task_vars={"inventory_hostname": "one", **(task_vars or {})}))

    return run


class ModuleRun:
    """What a module has answered: its JSON, and every byte that it has printed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.answer: dict[str, Any] = json.loads(text)


@pytest.fixture
def run_module(tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]) -> Callable[..., ModuleRun]:
    """A function that runs a module with the parameters that ansible would send it."""

    def run(main: Callable[[], None], args: dict[str, Any], check_mode: bool = False, diff: bool = False) -> ModuleRun:
        internal = {
            "_ansible_check_mode": check_mode,
            "_ansible_diff": diff,
            "_ansible_remote_tmp": str(tmp_path_factory.mktemp("remote")),
        }
        capfd.readouterr()
        with patch_module_args({**args, **internal}), pytest.raises(SystemExit):
            main()
        return ModuleRun("".join(capfd.readouterr()))

    return run


# TLS between two parties of the stack, in memory: OpenSSL on both sides, each as strict as it can be


Pem = dict[str, str]


def tls_context(folder: Path, protocol: int, pem: Pem | None, trusts: str) -> ssl.SSLContext:
    """What one side speaks TLS with: its certificate, if it has one, and whom it trusts."""
    made = ssl.SSLContext(protocol)
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=trusts)
    if pem:
        # It reads files only
        (folder / "chain.pem").write_text(pem["private_key"] + pem["certificate"], encoding="ascii")
        made.load_cert_chain(folder / "chain.pem")
    return made


def shake_hands(folder: Path, server: tuple[Pem, str], client: tuple[Pem | None, str], name: str = "localhost") -> None:
    """Let a client, which asks for a name, and a server see each other's certificates. Raises ssl.SSLError where one refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = tls_context(folder, ssl.PROTOCOL_TLS_SERVER, *server).wrap_bio(to_server, to_client, server_side=True)
    asking = tls_context(folder, ssl.PROTOCOL_TLS_CLIENT, *client).wrap_bio(to_client, to_server, server_hostname=name)
    # What the client sends last is judged after the client has finished
    for side in (asking, serving, asking, serving):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    for side in (asking, serving):
        side.do_handshake()
