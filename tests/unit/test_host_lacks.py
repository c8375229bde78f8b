"""What a host lacks of what a stack stands on: against stand-ins for dpkg, systemd and the engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.module_utils import engine as engine_utils
from ansible_collections.fba.stack.plugins.modules import container_files, host_lacks

from conftest import ModuleRun

Run = Callable[..., dict[str, Any]]

NETWORK = {"name": "fba_network", "subnet": "172.30.10.0/24", "gateway": "172.30.10.1", "iprange": "172.30.10.128/25"}
LABELS = {"fba.stack": "fba"}
# As the engine shows it
SHOWN = {
    "Name": "fba_network",
    "Driver": "bridge",
    "IPAM": {"Driver": "default", "Config": [{"Subnet": "172.30.10.0/24", "IPRange": "172.30.10.128/25", "Gateway": "172.30.10.1"}]},
    "Labels": {**LABELS, "other": "one"},
}
# Package or service and state, in files beside it
DPKG = """\
#!{python} -IS
import sys
known = dict(line.split() for line in open({state!r}))
names = sys.argv[3:]
assert sys.argv[1:3] == ["--show", "--showformat=${{Package}} ${{db:Status-Status}}\\n"], sys.argv
for name in names:
    if name in known:
        print(name, known[name])
sys.exit(0 if all(name in known for name in names) else 1)
"""
SYSTEMCTL = """\
#!{python} -IS
import sys
known = dict(line.split() for line in open({state!r}))
quiet, word, service = sys.argv[1:]
assert quiet == "--quiet"
# What is active is so now, what is enabled is so at boot
sys.exit(0 if word.removeprefix("is-") in known.get(service, "").split(",") else 3)
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the state of a host that has everything."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("dpkg-query", DPKG), ("systemctl", SYSTEMCTL)):
        (programs / name).write_text(text.format(python=sys.executable, state=str(tmp_path / name)))
        (programs / name).chmod(0o755)
    (tmp_path / "dpkg-query").write_text("docker.io installed\npython3-requests installed\n")
    (tmp_path / "systemctl").write_text("docker active,enabled\nfba-firewall active,enabled\n")
    (tmp_path / "daemon.json").write_text('{"live-restore": true, "log-level": "warn"}')
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setattr(host_lacks, "ask_engine", {"/networks/fba_network": SHOWN}.get)
    return tmp_path


@pytest.fixture
def run(run_module: Callable[..., ModuleRun], host: Path) -> Run:
    """Run the module, with the host's own file for the engine's configuration."""
    return lambda **args: run_module(host_lacks.main, {"engine_config": str(host / "daemon.json"), **args}).answer


def test_nothing_is_asked_for(run: Run) -> None:
    answer = run()
    del answer["invocation"]
    nothing = {"packages": [], "engine_options": None, "services": [], "files": [], "links": [], "firewall": False, "folder": False}
    assert answer == {"changed": False, "lacking": False, "network": False, **nothing}


@pytest.mark.parametrize(
    ("asked", "lacking"),
    [
        ({"packages": ["docker.io"], "services": ["docker"], "engine_options": {"live-restore": True}, "network": NETWORK}, False),
        ({"packages": ["mmdebstrap"]}, True),
        ({"services": ["cron"]}, True),
        ({"engine_options": {"live-restore": False}}, True),
        ({"files": [{"path": "/nonexistent/file", "content": "", "mode": "0644"}]}, True),
        ({"links": {"/nonexistent/link": "anything"}}, True),
        ({"network": {**NETWORK, "name": "another"}}, True),
    ],
)
def test_whether_anything_is_lacking(run: Run, asked: dict[str, Any], lacking: bool) -> None:
    assert run(**asked)["lacking"] is lacking


def test_links_that_are_not_there_or_point_elsewhere(run: Run, tmp_path: Path) -> None:
    links = {name: str(tmp_path / name) for name in ("right", "dangling", "other", "file", "missing")}
    (tmp_path / "right").symlink_to("target")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "other").symlink_to("elsewhere")
    for name in ("target", "file"):
        (tmp_path / name).touch()
    wanted = {links["right"]: "target", links["dangling"]: "nowhere", **{links[name]: "target" for name in ("other", "file", "missing")}}
    assert run(links=wanted)["links"] == [links[name] for name in ("other", "file", "missing")]


def add_file(root: Path) -> None:
    (root / "worker" / "another").touch()


def add_folder(root: Path) -> None:
    (root / "worker" / "another").mkdir()


def change_content(root: Path) -> None:
    (root / "worker" / "private_key.pem").write_text("of somebody else\n")


def change_mode(root: Path) -> None:
    (root / "worker" / "private_key.pem").chmod(0o444)


def change_owner(root: Path) -> None:
    os.chown(root / "worker" / "ca.pem", 4244, 4244)


def change_folder(root: Path) -> None:
    (root / "worker").chmod(0o700)


def change_root(root: Path) -> None:
    os.chown(root, 4242, 4242)


def remove_file(root: Path) -> None:
    (root / "worker" / "ca.pem").unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="gives files to other users, as root on a host does")
@pytest.mark.parametrize(
    "change", [add_file, add_folder, change_content, change_mode, change_owner, change_folder, change_root, remove_file]
)
def test_a_folder_is_looked_at_as_it_is_kept(
    run: Run, run_module: Callable[..., ModuleRun], tmp_path: Path, change: Callable[..., None]
) -> None:
    root = tmp_path / "tls"
    wanted = {
        "root": str(root),
        "owner": 4242,
        "files": [
            {"path": f"{root}/worker/ca.pem", "mode": "0444", "owner": 4243, "content": "authority\n"},
            {"path": f"{root}/worker/private_key.pem", "mode": "0400", "secret_content": "hunter2 is in this file\n"},
        ],
    }

    def lacks() -> bool:
        done = run_module(host_lacks.main, {"folder": wanted})
        assert "hunter2" not in done.text
        assert done.answer["lacking"] is done.answer["folder"]
        return bool(done.answer["folder"])

    assert lacks()
    for difference in (None, change):
        if difference:
            difference(root)
            assert lacks()
        run_module(container_files.main, wanted)
        assert not lacks()


@pytest.mark.parametrize("known", ["docker.io installed\n", "docker.io installed\npython3-requests config-files\n"])
def test_packages_that_are_not_installed(run: Run, host: Path, known: str) -> None:
    wanted = ["docker.io", "python3-requests"]
    assert run(packages=wanted)["packages"] == []
    (host / "dpkg-query").write_text(known)
    assert run(packages=wanted)["packages"] == ["python3-requests"]


def test_options_of_the_engine_are_merged(run: Run) -> None:
    assert run(engine_options={"live-restore": True})["engine_options"] is None
    assert run(engine_options={"live-restore": True, "mtu": 1400})["engine_options"] == {
        "live-restore": True,
        "log-level": "warn",
        "mtu": 1400,
    }
    assert run(engine_options={"log-level": "info"})["engine_options"] == {"live-restore": True, "log-level": "info"}


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_an_engine_without_configuration(run: Run, host: Path, content: str | None) -> None:
    (host / "daemon.json").unlink()
    if content is not None:
        (host / "daemon.json").write_text(content)
    assert run(engine_options={"live-restore": True})["engine_options"] == {"live-restore": True}


@pytest.mark.parametrize(("content", "named"), [('{"live-restore": tru}', "is no JSON"), ("[1]", "has [1]")])
def test_a_configuration_that_no_engine_starts_with(run: Run, host: Path, content: str, named: str) -> None:
    (host / "daemon.json").write_text(content)
    answer = run(engine_options={"live-restore": True})
    assert answer["failed"]
    assert str(host / "daemon.json") in answer["msg"]
    assert named in answer["msg"]
    # Where the engine is somebody else's, its file is of no concern
    assert run()["engine_options"] is None


@pytest.mark.parametrize("state", ["", "docker active\n", "docker enabled\n"])
def test_services_that_do_not_run_or_do_not_start_at_boot(run: Run, host: Path, state: str) -> None:
    wanted = ["docker", "fba-firewall"]
    assert run(services=wanted)["services"] == []
    (host / "systemctl").write_text(f"{state}fba-firewall active,enabled\n")
    assert run(services=wanted)["services"] == ["docker"]


def test_services_where_systemd_is_not_there(run: Run, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (host / "bin" / "systemctl").unlink()
    monkeypatch.setenv("PATH", str(host / "bin"))
    monkeypatch.setattr("ansible.module_utils.common.process.is_executable", lambda path: str(host) in path)
    assert run(services=["docker"])["services"] == ["docker"]


def test_files_that_are_not_there_or_not_so(run: Run, host: Path) -> None:
    path = host / "load.sh"
    wanted = {"path": str(path), "content": "#!/bin/sh\n", "mode": "0755"}
    assert run(files=[wanted])["files"] == [str(path)]
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    assert run(files=[wanted])["files"] == []
    path.chmod(0o644)
    assert run(files=[wanted])["files"] == [str(path)]
    path.chmod(0o755)
    path.write_text("#!/bin/bash\n")
    assert run(files=[wanted])["files"] == [str(path)]


@pytest.mark.parametrize(
    "change",
    [
        {"Driver": "macvlan"},
        {"Labels": {"fba.stack": "another"}},
        {"Labels": None},
        {"IPAM": {"Config": []}},
        {"IPAM": {"Config": None}},
        {"IPAM": {"Config": [{"Subnet": "172.30.10.0/24", "Gateway": "172.30.10.1"}]}},
        {"IPAM": {"Config": [{"Subnet": "172.30.11.0/24", "IPRange": "172.30.10.128/25", "Gateway": "172.30.10.1"}]}},
        {"IPAM": {"Config": [{"Subnet": "172.30.10.0/24", "IPRange": "172.30.10.128/25", "Gateway": "172.30.10.254"}]}},
    ],
)
def test_another_network(run: Run, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    wanted = {**NETWORK, "labels": LABELS}
    assert run(network=wanted)["network"] is False
    monkeypatch.setattr(host_lacks, "ask_engine", {"/networks/fba_network": {**SHOWN, **change}}.get)
    assert run(network=wanted)["network"] is True


def test_a_network_that_is_not_there_and_an_engine_that_does_not_answer(run: Run, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(network={**NETWORK, "name": "fba_two_network"})["network"] is True
    monkeypatch.setattr(host_lacks, "ask_engine", engine_utils.ask_engine)
    monkeypatch.setattr(engine_utils, "SOCKET", str(host / "nothing.sock"))
    assert run(network=NETWORK)["network"] is True
