"""What a host has that a stack may collide with: against an engine that is a stand-in, and against none."""

from __future__ import annotations

import http.server
import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from ansible_collections.fba.stack.plugins.module_utils import engine as engine_utils
from ansible_collections.fba.stack.plugins.modules import host_state

from conftest import ModuleRun

Run = Callable[..., dict[str, Any]]

# Of Linux: local address, remote address, state (0A listens, 01 is connected), …
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
   3: 0100007F:D432 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0 100 0 0 10 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000000000000:1F40 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   1: 00000000000000000000000001000000:1F41 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   2: 0000000000000000FFFF00000500000A:1F42 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   3: 0000000000000000FFFF000000000000:1F43 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   4: 000080FE00000000FF02FC000100FEFF:1F44 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
"""


def test_listeners_are_read_from_the_kernels_tables() -> None:
    assert host_state.parse_listening(TCP) == {("127.0.0.1", 8080), ("0.0.0.0", 22)}
    # Any, loopback, and two that are mapped; one that only IPv6 reaches is nobody's rival
    assert host_state.parse_listening(TCP6) == {("0.0.0.0", 8000), ("127.0.0.1", 8001), ("10.0.0.5", 8002), ("0.0.0.0", 8003)}
    assert host_state.parse_listening(TCP.splitlines()[0]) == set()


@pytest.mark.parametrize(
    ("family", "address", "seen"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "127.0.0.2", "127.0.0.2"),
        (socket.AF_INET, "0.0.0.0", "0.0.0.0"),
        (socket.AF_INET6, "::", "0.0.0.0"),
        (socket.AF_INET6, "::1", "127.0.0.1"),
    ],
)
def test_a_real_listener_is_seen_and_a_closed_one_is_not(family: socket.AddressFamily, address: str, seen: str) -> None:
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        assert (seen, port) in host_state.listening_ports()
    assert (seen, port) not in host_state.listening_ports()


def container(service: str, state: str) -> dict[str, Any]:
    """A container of the stack as the engine lists it, but for its ports."""
    labels = {"fba.stack": "fba", "fba.service": service, "fba.spec": f"hash-of-{service}"}
    return {"Id": f"id-of-{service}", "Names": [f"/fba_{service}"], "Image": f"fba/{service}:1", "Labels": labels, "State": state}


class Engine(http.server.BaseHTTPRequestHandler):
    """Answers as the engine does."""

    volumes: ClassVar[dict[str, str]] = {}
    told: ClassVar[list[tuple[Any, ...]]] = []

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        answer: Any = None
        if url.path == "/broken":
            self.send_response(500)
            self.end_headers()
            self.wfile.write(b"dockerd is ill")
            return
        if url.path == "/info":
            answer = {"ServerVersion": "26.1.5", "DockerRootDir": "/"}
        elif url.path == "/containers/json":
            filters = json.loads(parse_qs(url.query)["filters"][0])
            # Another stack's containers are not asked for, so not answered
            if filters == {"label": ["fba.stack=fba"]}:
                answer = [
                    {
                        **container("nginx", "running"),
                        "Ports": [
                            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8000, "Type": "tcp"},
                            {"IP": "::", "PrivatePort": 80, "PublicPort": 8000, "Type": "tcp"},
                            {"PrivatePort": 443, "Type": "tcp"},
                        ],
                    },
                    {
                        **container("postgres", "running"),
                        "Ports": [{"IP": "10.0.0.5", "PrivatePort": 5432, "PublicPort": 5432, "Type": "tcp"}],
                    },
                    {**container("migrate", "exited"), "Ports": []},
                ]
            else:
                answer = []
        elif url.path == "/containers/id-of-nginx/json":
            answer = {"Config": {"Healthcheck": {"Test": ["CMD", "curl", "http://127.0.0.1"]}}}
        elif url.path == "/containers/id-of-migrate/json":
            answer = {"Config": {}}
        elif url.path in ("/images/fba/nginx%3A1/json", "/images/fba/nginx:1/json"):
            answer = {"Id": "sha256:1", "Size": 123, "RepoTags": ["fba/nginx:1"], "RepoDigests": None}
        elif url.path == "/networks/fba_network":
            answer = {"Name": "fba_network", "Id": "0123456789abcdef" * 4, "Options": {}}
        elif url.path == "/networks/named":
            answer = {"Name": "named", "Id": "f" * 64, "Options": {"com.docker.network.bridge.name": "fba0"}}
        elif url.path == "/networks/none":
            answer = {"Name": "none", "Id": "e" * 64, "Options": None}
        elif url.path.startswith("/volumes/"):
            name = unquote(url.path.rpartition("/")[2])
            if name in self.volumes:
                answer = {"Name": name, "Mountpoint": self.volumes[name]}
        body = json.dumps(answer if answer is not None else {"message": "no such thing"}).encode()
        self.send_response(200 if answer is not None else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.told.append((self.path, self.headers.get("Content-Type"), body))
        self.send_response({"/containers/one/kill": 204, "/containers/one/update": 200}.get(self.path, 404))
        self.end_headers()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_arguments: Any) -> None:
        """Print nothing."""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An engine with volumes, which the test fills."""
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr(engine_utils, "SOCKET", path)
    volumes: ClassVar[dict[str, str]] = {}
    monkeypatch.setattr(Engine, "volumes", volumes)
    with socketserver.ThreadingUnixStreamServer(path, Engine) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield volumes
        server.shutdown()
        thread.join()


@pytest.fixture
def run(run_module: Callable[..., ModuleRun]) -> Callable[..., dict[str, Any]]:
    """Run the module."""
    return lambda **args: run_module(host_state.main, args).answer


def test_the_engine_is_asked(engine: dict[str, str]) -> None:
    info = host_state.ask_engine("/info")
    assert info["ServerVersion"] == "26.1.5"
    assert host_state.ask_engine("/volumes/nothing") is None
    assert engine_utils.look_up("/volumes/nothing") is None
    assert host_state.ask_engine("/broken") is None
    with pytest.raises(engine_utils.EngineAway, match="it answers 500: dockerd is ill"):
        engine_utils.look_up("/broken")


def test_the_engine_is_told(engine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Engine, "told", told)
    engine_utils.tell("POST", "/containers/one/kill")
    engine_utils.tell("POST", "/containers/one/update", {"a": 1})
    assert told == [("/containers/one/kill", None, b""), ("/containers/one/update", "application/json", b'{"a": 1}')]
    with pytest.raises(engine_utils.EngineAway, match="it knows nothing of /containers/two/kill"):
        engine_utils.tell("POST", "/containers/two/kill")


def test_no_engine_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(engine_utils, "SOCKET", str(tmp_path / "nothing.sock"))
    assert host_state.ask_engine("/info") is None
    with pytest.raises(engine_utils.EngineAway, match="No such file"):
        engine_utils.look_up("/info")
    state = run(volumes=["fba_postgres"])
    assert state["ansible_facts"] == {"fba_engine": "", "fba_images": {}, "processor_nproc": len(os.sched_getaffinity(0))}
    assert (state["engine"], state["bridge"], state["volumes"], state["postgres_versions"], state["changed"]) == ("", "", [], {}, False)
    assert state["memory"] > 2**26
    assert state["disk_free"] > 0


def test_something_that_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr(engine_utils, "SOCKET", path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def answer() -> None:
            connection, _address = server.accept()
            connection.recv(1000)
            connection.sendall(b"what?\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert host_state.ask_engine("/info") is None
        thread.join()


def test_the_stacks_own_ports_are_told_apart(engine: dict[str, str], monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    everything = {("0.0.0.0", 22), ("0.0.0.0", 8000), ("10.0.0.5", 5432), ("127.0.0.1", 5432)}
    monkeypatch.setattr(host_state, "listening_ports", lambda: everything)
    # What listens on another address with the same port is not the stack's
    assert run(stack="fba")["listening"] == [["0.0.0.0", 22], ["127.0.0.1", 5432]]
    assert run(stack="other")["listening"] == [["0.0.0.0", 22], ["0.0.0.0", 8000], ["10.0.0.5", 5432], ["127.0.0.1", 5432]]


def test_the_stacks_containers_are_what_replacements_are_told_by(engine: dict[str, str], run: Run) -> None:
    found = run(stack="fba")["containers"]
    assert found["fba_nginx"] == {
        "service": "nginx",
        "image": "fba/nginx:1",
        "spec": "hash-of-nginx",
        "state": "running",
        "test": ["curl", "http://127.0.0.1"],
    }
    # One that has no check, and one that was removed meanwhile
    assert found["fba_migrate"]["test"] == found["fba_postgres"]["test"] == []
    assert found["fba_migrate"]["state"] == "exited"
    facts = run(stack="fba")["ansible_facts"]
    assert facts["fba_containers"] == facts["fba_containers_before"] == found
    # The others' were removed meanwhile
    assert run(stack="fba")["image_sizes"] == {"fba/nginx:1": 123}
    assert run(stack="other")["containers"] == {}


@pytest.mark.parametrize(
    ("network", "bridge"),
    [("fba_network", "br-0123456789ab"), ("named", "fba0"), ("none", "br-eeeeeeeeeeee"), ("other", ""), ("", "")],
)
def test_the_bridge_of_a_network(engine: dict[str, str], run: Run, network: str, bridge: str) -> None:
    assert run(network=network)["bridge"] == bridge


def test_the_clock(run: Run) -> None:
    before = time.time()
    clock = run()["clock"]
    assert before <= clock <= time.time()


def test_volumes_and_who_wrote_them(engine: dict[str, str], tmp_path: Path, run: Run) -> None:
    for name in ("data", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("16\n")
    engine |= {"fba_postgres": str(tmp_path / "data"), "fba_redis": str(tmp_path / "empty")}
    state = run(volumes=["fba_postgres", "fba_redis", "fba_nothing"])
    assert state["engine"] == "26.1.5"
    assert state["volumes"] == ["fba_postgres", "fba_redis"]
    assert state["postgres_versions"] == {"fba_postgres": "16"}


def test_files_that_are_there(tmp_path: Path, run: Run) -> None:
    (tmp_path / "there").touch()
    paths = [str(tmp_path / name) for name in ("there", "nowhere")]
    assert run(paths=paths)["ansible_facts"]["fba_paths"] == paths[:1]
    assert "fba_paths" not in run()["ansible_facts"]


def test_images_that_are_there(engine: dict[str, str], run: Run) -> None:
    known = {"fba/nginx:1": {"RepoTags": ["fba/nginx:1"], "RepoDigests": []}}
    assert run(images=["fba/nginx:1", "fba/postgres:1"])["ansible_facts"]["fba_images"] == known
    # Who does not ask learns nothing of them, not even of an earlier answer
    assert run()["ansible_facts"]["fba_images"] == {}


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert host_state.free_bytes(str(tmp_path / "a" / "b")) == pytest.approx(host_state.free_bytes(str(tmp_path)), rel=0.1)
