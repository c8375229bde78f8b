"""The load that molecule's tests put on a stack, against a stand-in that can be told what to do wrong: each fault must be seen."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from test_container_scripts import until

from conftest import ROOT

_spec = importlib.util.spec_from_file_location("traffic", ROOT / "molecule" / "traffic.py")
assert _spec and _spec.loader
traffic: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(traffic)

PAGE = b'<!doctype html><link rel="stylesheet" href="/static/style.css?v=1"></html>\n'
RATES = {"keep_alive": 30, "fresh": 10, "slow": 0, "uploads": 5, "streams": 5, "tasks": 30}
ENDS_AFTER = 0.3


def now() -> str:
    return datetime.now(UTC).isoformat()


class StandIn(ThreadingHTTPServer):
    """As much of a stack as the load asks for, in memory."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: set[str] = set()
        self.tasks: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self.asked = itertools.count()

    def submit(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        if key not in self.keys:
            self.keys[key] = str(uuid4())
            self.tasks[self.keys[key]] = {
                "id": self.keys[key], "kind": body["kind"], "arguments": body["arguments"], "created_at": now(), "began": time.monotonic(),
            }  # fmt: skip
            if body["kind"] == "report":
                self.store("report.xlsx", b"report", self.keys[key])
                if "twice" in self.faults:
                    self.store("report.xlsx", b"report", self.keys[key])
                    again = {**self.tasks[self.keys[key]], "id": str(uuid4())}
                    self.tasks[again["id"]] = again
        return self.see(self.keys[key])

    def see(self, task: str) -> dict[str, Any]:
        seen = {name: value for name, value in self.tasks[task].items() if name != "began"}
        over = time.monotonic() - self.tasks[task]["began"] > ENDS_AFTER
        state = ("failed" if "fails" in self.faults and seen["kind"] == "inference" else "succeeded") if over else "running"
        return {**seen, "state": state, "attempt": 2 if "twice" in self.faults else 1, "error": None}

    def store(self, name: str, content: bytes, task: str | None = None) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        file = {"id": str(uuid4()), "name": name, "sha256": digest, "size": len(content), "task_id": task, "created_at": now()}
        self.files[file["id"]] = file, content
        return file


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: StandIn

    def setup(self) -> None:
        super().setup()
        self.number = 0

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: Any, content_type: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, faults = urlsplit(self.path).path, self.server.faults
        self.number += 1
        keeps = self.headers.get("Connection") != "close"
        # After the request has been read, as a server that goes at this moment does
        if ("closes used" in faults and self.number == 4) or ("closes new" in faults and not keeps and next(self.server.asked) % 5 == 0):
            self.close_connection = True
            return
        if path == "/api/v1/auth/login" and json.loads(body) != {"username": "admin", "password": "secret"}:
            self.answer(401, {})
        elif path.startswith("/api/v1/auth/") and path != "/api/v1/auth/me":
            ends = path.endswith("logout")
            self.answer(204 if ends else 200, b"" if ends else {"access_token": "a", "refresh_token": "r", "expires_in": 900})
        elif self.headers["Authorization"] != "Bearer a":
            self.answer(401, {})
        elif path in ("/", "/files"):
            self.answer(200, PAGE, "text/html")
        elif path == "/static/style.css":
            self.answer(200, b"" if "empty style" in faults else b"a {}", "text/css")
        elif path.startswith("/api/v1/files"):
            self.do_file(path, body)
        elif path.startswith("/api/v1/tasks"):
            self.do_task(path, body)
        else:
            self.answer(503 if path == "/health/live" and "unready" in faults else 200, {})

    do_GET = do_POST = do_DELETE = handle_request

    def do_file(self, path: str, body: bytes) -> None:
        file = path.removeprefix("/api/v1/files").strip("/").removesuffix("/content")
        if self.command == "POST":
            head, content = body.split(b"\r\n\r\n", 1)
            name = re.findall(rb'filename="([^"]+)"', head)[0].decode()
            self.answer(201, self.server.store(name, content[: content.rindex(b"\r\n--")]))
        elif not file:
            self.answer(200, {"items": [each for each, _content in reversed(self.server.files.values())], "next": None})
        elif self.command == "DELETE":
            del self.server.files[file]
            self.answer(204, b"")
        else:
            content = self.server.files[file][1]
            self.answer(200, content[:-1] + b"x" if "other bytes" in self.server.faults else content, "application/zip")

    def do_task(self, path: str, body: bytes) -> None:
        task, _slash, what = path.removeprefix("/api/v1/tasks").strip("/").partition("/")
        if self.command == "POST":
            self.answer(202, self.server.submit(json.loads(body), self.headers["Idempotency-Key"]))
        elif not task:
            rows = [self.server.see(each) for each in reversed(list(self.server.tasks))]
            if "loses tasks" in self.server.faults:
                rows = [row for row in rows if row["arguments"] != {"duration": 12}]
            self.answer(200, {"items": rows, "next": None})
        elif what == "events":
            self.do_events(task)
        elif what == "result":
            self.answer(200, {"result": {"rows": 400 if "twice" in self.server.faults else 200}})
        else:
            self.answer(200, [])

    def do_events(self, task: str) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            seen = self.server.see(task)
            event = f"event: task\ndata: {json.dumps(seen)}\nretry: 50\n\n".encode()
            if "breaks events" in self.server.faults:
                event = event[:40]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            if {"breaks events", "cuts streams"} & self.server.faults:
                return
            if seen["state"] != "running":
                self.wfile.write(b"0\r\n\r\n")
                return
            time.sleep(0.1)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def load(server: StandIn) -> Any:
    """load(**options): the load, on the stand-in."""
    defaults = {"rates": RATES, "timeout": 20, "settle": 3, "files": 3}
    return lambda **options: traffic.Traffic(f"http://127.0.0.1:{server.server_port}", "admin", "secret", **defaults | options)


def test_where_all_is_well_nothing_has_failed_and_nothing_is_left(server: StandIn, load: Any) -> None:
    with load(rates=RATES | {"slow": 3}, refresh=0.5) as made:
        made.wait_for(40, timeout=20)
        made.wait_for(10, kind="tasks", timeout=20)
        made.wait_for(2, kind="streams", timeout=20)
        made.wait_for(2, kind="slow", timeout=20)
    report = json.loads(json.dumps(made.report))
    assert (report["failed"], report["reopened"], report["complete"]) == (0, 0, True), made.table()
    assert all(report["kinds"][kind]["requests"] for kind in traffic.KINDS)
    tasks = report["tasks"]
    assert tasks["accepted"] == tasks["succeeded"] == len(made.accepted) == len(server.tasks) > 10
    assert [tasks[name] for name in ("failed", "lost", "begun_again", "accepted_twice")] == [[], [], [], {}]
    assert tasks["effects"]["counted"] > 0 and tasks["effects"]["not_once"] == {}
    assert report["streams"]["started"] == report["streams"]["ended"] > 0 == report["streams"]["reconnects"]
    # What it has left is its first two files, of which it deletes all that bear its name, and the reports
    assert server.files == {}
    assert [record for record in made.records if record["path"] == "/api/v1/auth/refresh"]
    assert made.reopened() == made.failures() == []


def test_what_http_lets_a_client_repeat_is_repeated_once_and_counted(server: StandIn, load: Any) -> None:
    with load() as made:
        server.faults = {"closes used", "cuts streams"}
        made.wait_for(150, timeout=30)
        made.wait_for(5, kind="streams", timeout=20)
        server.faults = set()
    report = made.report
    assert report["failed"] == 0, made.table()
    assert report["reopened"] == len(made.reopened()) > 3
    assert {record["kind"] for record in made.reopened()} <= {"keep_alive", "tasks", "lookup"}
    assert report["streams"]["cut"] == len(made.cuts) > 0
    assert report["streams"]["reconnects"] > 0 == report["streams"]["unfinished"]
    # A submission that was repeated is one task
    assert report["tasks"]["accepted"] == report["tasks"]["succeeded"] == len(server.tasks)


def test_every_fault_is_seen(server: StandIn, load: Any) -> None:
    wanted = {
        "ClosedError: closed before the answer",
        "which are not those that were sent",
        "no style sheet",
        "not 200: {}",
        "RemoteProtocolError: peer closed connection",
    }
    with load() as made:
        before = time.time()
        server.faults = {"closes new", "other bytes", "empty style", "unready", "breaks events"}
        until(lambda: all(any(text in record["error"] for record in made.failures()) for text in wanted))
        server.faults = set()
        after = time.time()
    assert made.report["failed"] == len(made.failures()) >= len(wanted)
    assert len(made.report["failures"]) <= 20
    assert made.failures(until=before) == []
    # What was under way at the end of the faults may fail a moment later
    assert made.failures(since=after + 2) == []
    assert made.report["reopened"] == 0


def test_tasks_that_are_lost_or_done_twice_are_named(server: StandIn, load: Any) -> None:
    with load() as made:
        made.wait_for(60, kind="tasks", timeout=20)
        server.faults = {"loses tasks", "twice", "fails"}
        made.wait_for(60, kind="tasks", timeout=20)
    tasks = made.report["tasks"]
    assert len(tasks["lost"]) == made.report["streams"]["started"] > 0
    assert {each["state"] for each in tasks["lost"]} == {"unknown"}
    assert tasks["begun_again"] and {each["attempt"] for each in tasks["begun_again"]} == {2}
    assert tasks["failed"] and {each["kind"] for each in tasks["failed"]} == {"inference"}
    assert tasks["accepted_twice"] and 2 in tasks["effects"]["not_once"].values()
    assert tasks["begun_again_with_one_effect"] < tasks["succeeded"]


def test_a_load_that_cannot_begin_or_ends_by_itself_is_not_a_quiet_one(server: StandIn, load: Any) -> None:
    server.faults = {"empty style", "closes new"}
    with pytest.raises(traffic.TrafficError, match="the load cannot begin"), load():
        pass
    server.faults = set()
    with pytest.raises(traffic.TrafficError, match="has not come to its end"), load() as made:
        made._process.kill()
    assert made.report["complete"] is False
    with pytest.raises(ValueError, match="only http"):
        traffic.Traffic("https://127.0.0.1", "admin", "secret")
