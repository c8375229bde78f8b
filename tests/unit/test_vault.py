"""Vault files: secrets and certificates beside the inventory."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib

from ansible_collections.fba.stack.plugins.plugin_utils import vault
from ansible_collections.fba.stack.plugins.plugin_utils.vault import VaultFile

VARIABLES = {"fba_redis_password": "hunter2hunter2", "nested": {"text": "line one\nline two\n", "template": "{{ not_one }}"}}


def test_what_is_written_is_read_again_by_a_later_run(tmp_path: Path, loader: DataLoader) -> None:
    path = tmp_path / "group_vars" / "all" / "secrets.yml"
    VaultFile(str(path), loader, "For the tests").write(VARIABLES)
    other = DataLoader()
    other.set_vault_secrets(loader._vault.secrets)
    assert VaultFile(str(path), other, "For the tests").read() == VARIABLES


def test_the_file_is_encrypted_and_its_owners_alone(tmp_path: Path, loader: DataLoader) -> None:
    path = tmp_path / "secrets.yml"
    VaultFile(str(path), loader, "For the tests").write(VARIABLES)
    assert path.read_text().startswith("$ANSIBLE_VAULT;1.1;AES256\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # Whoever opens it is told what it is
    assert VaultLib(loader._vault.secrets).decrypt(path.read_bytes()).startswith(b"---\n# For the tests\n")


def test_no_file_has_no_variables(tmp_path: Path, loader: DataLoader) -> None:
    assert VaultFile(str(tmp_path / "secrets.yml"), loader, "").read() == {}


def test_without_a_password_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(AnsibleError, match=r"no vault password is configured.*ANSIBLE_VAULT_PASSWORD_FILE") as error:
        VaultFile(str(tmp_path / "secrets.yml"), DataLoader(), "").write(VARIABLES)
    assert list(tmp_path.iterdir()) == []
    assert "hunter2" not in str(error.value)


def test_a_file_of_another_password_is_not_taken_for_empty(tmp_path: Path, loader: DataLoader) -> None:
    """Else new passwords would be made, which the databases do not know."""
    path = tmp_path / "secrets.yml"
    VaultFile(str(path), loader, "").write(VARIABLES)
    with pytest.raises(AnsibleError):
        VaultFile(str(path), DataLoader(), "").read()


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path: Path, loader: DataLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    file = VaultFile(str(tmp_path / "secrets.yml"), loader, "")
    file.write(VARIABLES)

    def full(*_arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(vault.os, "fdopen", full)
    with pytest.raises(OSError, match="no space left"):
        file.write({"fba_redis_password": "other"})
    monkeypatch.undo()
    assert file.read() == VARIABLES
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.yml"]


def test_a_reader_never_sees_a_part(tmp_path: Path, loader: DataLoader) -> None:
    """The new file takes the old one's name; the old one is never written to."""
    path = tmp_path / "secrets.yml"
    VaultFile(str(path), loader, "").write(VARIABLES)
    with path.open("rb") as handle:
        before = path.read_bytes()
        VaultFile(str(path), loader, "").write({"other": 1})
        assert handle.read() == before
    assert path.read_bytes() != before
