"""A steady load on a stack's door, from a process of its own, and an account of everything that went wrong.

    with Traffic(stack.url, "admin", password) as traffic:
        traffic.wait_for(50)
        run = stack.play("site.yml")
    assert traffic.report["failed"] == 0, traffic.table()

Clients of several kinds ask at the same time, each kind at its own rate:

- `keep_alive`: some connections that stay open, as browsers' do: pages, the style sheet that a page names, reads of the API, health;
- `fresh`: the same, with a new connection for each request;
- `slow`: uploads and submissions whose body takes seconds to arrive, and downloads that are read as slowly;
- `uploads`: files of 1 to 3 MB, read back and compared a little later and once more at the end;
- `streams`: who watches a task as a browser's EventSource does;
- `tasks`: submissions, each with an Idempotency-Key of this run.

A request has failed if it was not answered as it should be, whatever the reason: refused, broken off, too late, another status, another
content. There is one exception, which HTTP itself makes (RFC 9110 9.2.2, RFC 9112 9.3.1): on a connection that has been used before, the
server may have said goodbye while the request was on its way. If it closes such a connection before the first byte of the answer, and to
repeat the request does no harm because it is safe or has a key, it is sent once more, on a new connection. These are counted as
`reopened`. What has no key and is not safe goes over new connections only. A connection that was closed while nobody asked is opened
anew, as `renewed`: no request met it. An event stream may end at any time between two events, and who watches asks again, which counts as
`reconnects`, and as `cut` too if the connection broke instead of ending. To end within an event is to fail.

Of the process itself: it gets its settings and the password as the first line of its standard input, works until that ends, and tells
each record on its standard output as it happens, one JSON object a line.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import math
import os
import random
import re
import resource
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from urllib.parse import urlsplit

import h11

KINDS = ("keep_alive", "fresh", "slow", "uploads", "streams", "tasks")

# Requests per second, of streams and uploads those that begin; the default sum, with what follows from them, is about 40
RATES = {"keep_alive": 20.0, "fresh": 9.0, "slow": 1.2, "uploads": 0.3, "streams": 0.3, "tasks": 5.0}

# Of twenty tasks: what waits, what computes (queue cpu), what splits itself into parts, and what leaves a file that can be counted
MIX = ("sleep",) * 14 + ("inference",) * 4 + ("pipeline", "report")

FINAL = ("succeeded", "failed", "cancelled")
CSV = b"city,price\n" + b"".join(b"town%d,%d.5\n" % (row % 7, row) for row in range(200))
# Not readiness: it says of the data services whether they answer within seconds, which on a busy machine is no matter of the release
READS = ("/", "style", "/api/v1/tasks?limit=20", "/api/v1/auth/me", "/files", "style", "/api/v1/tasks/kinds") * 3 + ("/health/live",)
STYLE = re.compile(r'href="(/static/style\.css[^"]*)"')


class TrafficError(Exception):
    """The load itself could not begin, or not go on: nothing is known of the stack."""


# The process that makes the load


class ClosedError(OSError):
    """The connection was closed before the first byte of an answer."""


class WrongError(Exception):
    """An answer that is not the one it should be."""


class Answer:
    """A status, headers by their names in lower case, and a body."""

    def __init__(self, response):
        self.status = response.status_code
        self.headers = {name.decode(): value.decode() for name, value in response.headers}
        self.body = bytearray()

    def json(self):
        """Return the decoded body."""
        return json.loads(self.body)


class Connection:
    """One connection, and HTTP/1.1 on it; it repeats nothing by itself."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.http = h11.Connection(h11.CLIENT)
        self.answered = False
        """Whether a byte of the present answer has come."""

    @classmethod
    async def open(cls, door, window=None):
        """Connect; with a window of so many bytes, the other side can be no further ahead of who reads."""
        if window is None:
            return cls(*await asyncio.open_connection(*door))
        loop = asyncio.get_running_loop()
        for family, kind, protocol, _name, address in await loop.getaddrinfo(*door, type=socket.SOCK_STREAM):
            end = socket.socket(family, kind, protocol)
            end.setblocking(False)
            # Before it connects: later, the window has been agreed upon
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            try:
                await loop.sock_connect(end, address)
            except BaseException:
                end.close()
                raise
            return cls(*await asyncio.open_connection(sock=end, limit=window))
        raise OSError(f"{door[0]} has no address")

    def is_open(self):
        """Return whether another request may be sent: both sides have ended the last one, and nothing says that it is closed."""
        idle = self.http.our_state is h11.DONE and self.http.their_state is h11.DONE
        return idle and not self.reader.at_eof() and self.reader.exception() is None and not self.writer.is_closing()

    def close(self):
        """Close at once."""
        self.writer.transport.abort()

    def _send(self, event):
        self.writer.write(self.http.send(event))

    async def event(self, most=65536):
        """Return what comes next.

        Raises:
            ClosedError: nothing of the answer has come, nor will.
            OSError, h11.RemoteProtocolError: the answer broke off.
        """
        while (event := self.http.next_event()) is h11.NEED_DATA:
            try:
                data = await self.reader.read(most)
            except OSError as error:
                if self.answered:
                    raise
                raise ClosedError(f"closed before the answer: {error}") from error
            if not data and not self.answered:
                raise ClosedError("closed before the answer")
            self.answered = True
            self.http.receive_data(data)
        return event

    async def head(self, request, body=b"", pieces=1, pause=0.0):
        """Send a request, its body in so many pieces with a pause after each, and return the answer as far as its headers."""
        if self.http.our_state is not h11.IDLE:
            self.http.start_next_cycle()
        self.answered = False
        try:
            self._send(request)
            if not pause:
                if body:
                    self._send(h11.Data(body))
                self._send(h11.EndOfMessage())
                await self.writer.drain()
                return await self._head()
        except ConnectionError as error:
            # Of sending; that the other side's goodbye has not been read yet makes no difference
            raise error if self.answered else ClosedError(f"closed before the answer: {error}") from error
        # A refusal may come before the body has been sent: then it is the answer
        coming = asyncio.create_task(self._head())
        try:
            size = math.ceil(len(body) / pieces)
            for start in range(0, len(body), size):
                self._send(h11.Data(body[start : start + size]))
                await asyncio.wait({coming}, timeout=pause)
                if coming.done():
                    break
            else:
                self._send(h11.EndOfMessage())
            return await coming
        finally:
            coming.cancel()

    async def _head(self):
        while isinstance(event := await self.event(), h11.InformationalResponse):
            pass
        return Answer(event)

    async def rest(self, answer, most=65536, pause=0.0):
        """Read the answer's body, so many bytes at once with a pause after each."""
        while not isinstance(event := await self.event(most), h11.EndOfMessage):
            answer.body += event.data
            if pause:
                await asyncio.sleep(pause)
        return answer


class Line:
    """Where a client's requests go: one connection that is kept, or a new one for each."""

    def __init__(self, door, keep=False, window=None):
        self.door, self.keep, self.window = door, keep, window
        self.connection = None
        self.renewed = 0

    async def take(self):
        """Return a connection, and whether it has been used before."""
        if self.connection is not None:
            if self.connection.is_open():
                return self.connection, True
            self.renewed += self.keep
            self.drop()
        self.connection = await Connection.open(self.door, self.window)
        return self.connection, False

    def drop(self):
        """Close it."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Driver:
    """Everybody who asks."""

    def __init__(self, settings):
        self.settings = settings
        url = urlsplit(settings["url"])
        self.door, self.host = (url.hostname, url.port or 80), url.netloc
        self.run = settings["run"]
        self.timeout = settings["timeout"]
        self.stopping = asyncio.Event()
        self.busy = set()
        self.skipped = Counter()
        self.renewed = 0
        self.numbers = itertools.count()
        self.accepted = {}
        self.streams = Counter(started=0, ended=0, unfinished=0, reconnects=0, cut=0)
        self.kept = []
        self.tokens = {}
        self.started = datetime.now(UTC)

    # What all requests have in common

    @staticmethod
    def tell(what, **values):
        """Tell the other process."""
        sys.stdout.write(json.dumps({"what": what, **values}) + "\n")
        sys.stdout.flush()

    def request(self, method, path, line, body=b"", headers=()):
        """Build a request's head."""
        fields = [("Host", self.host), ("User-Agent", "fba-traffic"), *headers]
        if "access_token" in self.tokens:
            fields.append(("Authorization", f"Bearer {self.tokens['access_token']}"))
        if not line.keep:
            fields.append(("Connection", "close"))
        if body or method == "POST":
            fields.append(("Content-Length", str(len(body))))
        return h11.Request(method=method, target=path, headers=fields)

    async def _try(self, record, line, request, repeatable, slow, body):
        """Ask, and once more where HTTP allows it."""
        while True:
            connection, used = await line.take()
            record["connection"] = "used" if used else "new"
            try:
                answer = await connection.head(request, body, slow.get("pieces", 1), slow.get("send_pause", 0))
                return await connection.rest(answer, slow.get("most", 65536), slow.get("read_pause", 0))
            except ClosedError:
                line.drop()
                if not (used and repeatable):
                    raise
                record["reopened"] = time.time()

    async def ask(self, kind, method, path, line=None, *, json_body=None, body=b"", headers=(), want=200, check=None, **slow):
        """Ask and put on record what came of it; return the answer if it is as wanted, else None.

        `check(answer)` returns what is wrong with it. `slow` are the pieces of the body and the pauses between them, and the bytes that
        are read at once and the pauses between those.
        """
        line = line or Line(self.door)
        headers = [*headers]
        if json_body is not None:
            body = json.dumps(json_body).encode()
            headers.append(("Content-Type", "application/json"))
        repeatable = method == "GET" or any(name == "Idempotency-Key" for name, _value in headers)
        if line.keep and not repeatable:
            raise ValueError(f"{method} {path} must not go over a connection that was used before")
        record = {"kind": kind, "method": method, "path": path, "status": 0, "when": time.time(), "reopened": None, "error": ""}
        start = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout + slow.pop("seconds", 0)):
                answer = await self._try(record, line, self.request(method, path, line, body, headers), repeatable, slow, body)
            record["status"] = answer.status
            if answer.status != want:
                raise WrongError(f"not {want}: {_excerpt(answer)}")
            if wrong := check and check(answer):
                raise WrongError(wrong)
        except asyncio.CancelledError:
            line.drop()
            raise
        except TimeoutError:
            record["error"] = f"no whole answer within {time.monotonic() - start:.0f} s"
        except Exception as error:
            record["error"] = str(error) if isinstance(error, WrongError) else f"{type(error).__name__}: {error}"
        if record["error"] or not line.keep:
            line.drop()
        self._file(record, start)
        return None if record["error"] else answer

    def _file(self, record, start):
        record["seconds"] = round(time.monotonic() - start, 4)
        record["until"] = time.time()
        self.tell("record", **record)

    async def pause(self, seconds):
        """Wait, at most until the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                await self.stopping.wait()

    def begin(self, coroutine):
        """Do something beside everything else."""
        task = asyncio.create_task(coroutine)
        self.busy.add(task)
        task.add_done_callback(self._done)

    def _done(self, task):
        self.busy.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # What fails belongs to a record; this is a fault of the driver's own, and must not look like a quiet stack
            self.fault = self.fault or error
            self.stopping.set()

    fault = None

    async def steadily(self, kind, rate, act, most):
        """Call `act()` so often, however long each takes; not while so many of them are under way, which is counted."""
        clock = time.monotonic
        due = clock() + random.random() / rate
        under_way = set()
        while True:
            await self.pause(due - clock())
            if self.stopping.is_set():
                return
            due += 1 / rate
            under_way &= self.busy
            if len(under_way) >= most:
                self.skipped[kind] += 1
                continue
            before = set(self.busy)
            self.begin(act())
            under_way |= self.busy - before

    # The session

    async def log_in(self):
        """Begin a session."""
        credentials = {"username": self.settings["user"], "password": self.settings["password"]}
        self.tokens = {}
        answer = await self.ask("session", "POST", "/api/v1/auth/login", json_body=credentials)
        self.tokens = answer.json() if answer else {}

    async def stay_logged_in(self):
        """Exchange the tokens for new ones well before they expire."""
        while True:
            await self.pause(self.settings["refresh"] or self.tokens.get("expires_in", 0) * 2 / 3)
            if self.stopping.is_set():
                return
            answer = await self.ask("session", "POST", "/api/v1/auth/refresh", json_body={"refresh_token": self.tokens["refresh_token"]})
            if answer:
                self.tokens = answer.json()
                continue
            # A refresh token is good for one exchange, and nobody knows whether there was one
            while not self.stopping.is_set():
                before = self.tokens
                await self.log_in()
                if self.tokens:
                    break
                self.tokens = before
                await self.pause(5)

    # Who reads

    async def read(self, kind, line, place, style):
        """Read one of the addresses; return the style sheet that the pages name now."""
        if place == "style":
            await self.ask(kind, "GET", style, line, check=_is_style)
        elif place in ("/", "/files"):
            answer = await self.ask(kind, "GET", place, line, headers=[("Accept", "text/html")], check=_is_page)
            if answer:
                return STYLE.search(answer.body.decode())[1]
        else:
            await self.ask(kind, "GET", place, line)
        return style

    async def keep_alive(self, number, rate):
        """Read one after the other over one connection, at this rate if the answers come in time."""
        line = Line(self.door, keep=True)
        style = self.style
        places = itertools.islice(itertools.cycle(READS), 3 * number % len(READS), None)
        due = time.monotonic() + random.random() / rate
        while True:
            await self.pause(due - time.monotonic())
            if self.stopping.is_set():
                break
            style = await self.read("keep_alive", line, next(places), style)
            due += 1 / rate
            while due < time.monotonic() and not self.stopping.is_set():
                self.skipped["keep_alive"] += 1
                due += 1 / rate
        line.drop()
        self.renewed += line.renewed

    async def read_fresh(self):
        """Read something over a new connection."""
        self.style = await self.read("fresh", None, random.choice(READS), self.style)

    # Who is slow

    async def slow_upload(self):
        """Send 200 kB in about 6 s."""
        await self.keep(await self.upload("slow", 200_000, seconds=6, pieces=30, send_pause=0.2))

    async def slow_task(self):
        """Submit a task with a body that comes in some pieces in about 3 s."""
        await self.submit("slow", "sleep", 1, seconds=3, pieces=6, send_pause=0.5)

    async def slow_download(self):
        """Read 1 MB in about 6 s."""
        line = Line(self.door, window=32768)
        path = f"/api/v1/files/{self.large['id']}/content"
        check = _has_sum(self.large["sha256"])
        await self.ask("slow", "GET", path, line, check=check, seconds=12, most=32768, read_pause=6 / (1_000_000 / 32768))

    # Who uploads

    async def upload(self, kind, size, name=None, content=None, content_type="application/zip", **slow):
        """Upload a file and return what is known of it; None if that failed."""
        content = content or os.urandom(size)
        boundary = secrets.token_hex(16)
        name = f"traffic-{self.run}-{name or f'{next(self.numbers)}.zip'}"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: {content_type}\r\n\r\n'
        body = b"".join((head.encode(), content, f"\r\n--{boundary}--\r\n".encode()))
        headers = [("Content-Type", f"multipart/form-data; boundary={boundary}")]
        digest = hashlib.sha256(content).hexdigest()

        def check(answer):
            file = answer.json()
            return "" if (file["sha256"], file["size"]) == (digest, len(content)) else f"another file than the one sent: {file}"

        answer = await self.ask(kind, "POST", "/api/v1/files", body=body, headers=headers, want=201, check=check, **slow)
        return answer and answer.json()

    async def read_back(self, kind, file, digest):
        """Read a file and compare it."""
        await self.ask(kind, "GET", f"/api/v1/files/{file}/content", check=_has_sum(digest))

    async def upload_and_compare(self):
        """Upload a file, and read it back some seconds later."""
        file = await self.upload("uploads", random.randint(1_000_000, 3_000_000))
        if file is not None:
            await self.pause(3)
            await self.read_back("uploads", file["id"], file["sha256"])
        await self.keep(file)

    async def keep(self, file):
        """Keep a file for the end, unless there are too many: then the oldest goes."""
        if file is not None:
            self.kept.append((file["id"], file["sha256"]))
        while len(self.kept) > self.settings["files"]:
            await self.give_up(*self.kept.pop(0))

    async def give_up(self, file, digest):
        """Read a file once more and delete it."""
        await self.read_back("uploads", file, digest)
        await self.ask("uploads", "DELETE", f"/api/v1/files/{file}", want=204)

    # Who has tasks done

    def arguments(self, kind, key, duration):
        """Return what a task of this kind is asked."""
        return {
            "sleep": {"duration": duration},
            "inference": {"images": [[16.0 * (pixel % 8 in (3, 4)) for pixel in range(64)]]},
            "pipeline": {"file_id": self.table["id"], "group_by": "city", "value": "price"},
            # By its title it is known again: two tasks of one title are a submission that was accepted twice
            "report": {"title": key, "days": 1, "format": "xlsx"},
        }[kind]

    async def submit(self, kind, task_kind, duration=1, line=None, **slow):
        """Submit a task and return it; None if that failed."""
        key = f"{self.run}-{next(self.numbers)}"
        body = {"kind": task_kind, "arguments": self.arguments(task_kind, key, duration)}
        named = [("Idempotency-Key", key)]
        answer = await self.ask(kind, "POST", "/api/v1/tasks", line, json_body=body, headers=named, want=202, **slow)
        if answer is None:
            return None
        task = answer.json()
        self.accepted[task["id"]] = {"key": key, "kind": task_kind}
        self.tell("accepted", task=task["id"], key=key, kind=task_kind)
        return task

    async def submit_steadily(self, rate):
        """Submit tasks over connections that stay open, two of them, and by turns over a new one."""
        lines = [Line(self.door, keep=True) for _line in range(2)]
        free = asyncio.Queue()
        for line in lines:
            free.put_nowait(line)
        kinds = itertools.cycle(random.sample(MIX, len(MIX)))
        turns = itertools.cycle((True, True, False))

        async def one():
            line = free.get_nowait() if next(turns) and not free.empty() else None
            try:
                await self.submit("tasks", next(kinds), line=line)
            finally:
                if line:
                    free.put_nowait(line)

        await self.steadily("tasks", rate, one, 40)
        while len(lines) > free.qsize():
            await asyncio.sleep(0.1)
        for line in lines:
            line.drop()
            self.renewed += line.renewed

    # Who watches

    async def stream(self):
        """Watch a task of 12 s to its end."""
        task = await self.submit("streams", "sleep", 12)
        if task is None:
            return
        self.streams["started"] += 1
        end = time.monotonic() + 12 + self.settings["settle"]
        wait = 3.0  # what EventSource waits before it was told
        while time.monotonic() < end:
            ended, wait = await self._watch(task["id"], wait)
            if ended:
                self.streams["ended"] += 1
                return
            self.streams["reconnects"] += 1
            await asyncio.sleep(wait)
        self.streams["unfinished"] += 1

    async def _watch(self, task, wait):
        """Read one stream to its end; return whether the task has ended, and how long to wait before the next one."""
        path = f"/api/v1/tasks/{task}/events"
        record = {"kind": "streams", "method": "GET", "path": path, "status": 0, "when": time.time(), "reopened": None, "error": ""}
        line = Line(self.door)
        text, ended, start, first = b"", False, time.monotonic(), None
        try:
            # A stream lasts 8 s at most
            async with asyncio.timeout(8 + self.timeout):
                connection, _used = await line.take()
                answer = await connection.head(self.request("GET", path, line, headers=[("Accept", "text/event-stream")]))
                record["status"] = answer.status
                if answer.status != 200 or not answer.headers["content-type"].startswith("text/event-stream"):
                    await connection.rest(answer)
                    raise WrongError(f"no stream: {_excerpt(answer)}")
                try:
                    while not isinstance(event := await connection.event(), h11.EndOfMessage):
                        first = first or time.monotonic()
                        text += event.data.replace(b"\r\n", b"\n")
                        *events, text = text.split(b"\n\n")
                        for each in events:
                            fields = [line.partition(":")[::2] for line in each.decode().split("\n")]
                            values = {name: value.removeprefix(" ") for name, value in fields if name}
                            wait = int(values.get("retry", wait * 1000)) / 1000
                            if "data" in values and values.get("event") == "task":
                                ended = json.loads(values["data"])["state"] in FINAL
                except (OSError, h11.RemoteProtocolError) as error:
                    if text or first is None:
                        raise
                    # Between two events: a browser reconnects and has missed nothing
                    self.streams["cut"] += 1
                    self.tell("cut", path=path, when=time.time(), error=str(error))
                if text:
                    raise WrongError(f"it ended within an event: {text[:200]!r}")
                if first is None:
                    raise WrongError("a stream without an event")
        except asyncio.CancelledError:
            raise
        except TimeoutError:
            record["error"] = f"it had not ended after {time.monotonic() - start:.0f} s"
        except Exception as error:
            record["error"] = str(error) if isinstance(error, WrongError) else f"{type(error).__name__}: {error}"
        finally:
            line.drop()
        self._file(record, start)
        if not record["error"]:
            return ended, wait
        return False, wait

    # What came of it

    async def pages(self, path):
        """Return everything of a list that is newer than this run; what cannot be read is on record, and the list ends there."""
        found, cursor = [], ""
        line = Line(self.door, keep=True)
        while True:
            answer = await self.ask("lookup", "GET", f"{path}{cursor}", line)
            if answer is None:
                line.drop()
                return found, False
            page = answer.json()
            found += page["items"]
            # The hosts' clocks may differ a little from this one
            too_old = found and (self.started - datetime.fromisoformat(found[-1]["created_at"])).total_seconds() > 60
            if page["next"] is None or too_old:
                line.drop()
                return found, True
            cursor = f"&cursor={page['next']}"

    async def settle(self):
        """Wait until every accepted task has ended, and return what became of them."""
        seen, titles = {}, {}
        end = time.monotonic() + self.settings["settle"]
        while True:
            rows, _complete = await self.pages("/api/v1/tasks?limit=200")
            for row in rows:
                if row["id"] in self.accepted:
                    seen[row["id"]] = row
                if row["kind"] == "report" and row["arguments"]["title"].startswith(f"{self.run}-"):
                    titles.setdefault(row["arguments"]["title"], set()).add(row["id"])
            left = [task for task in self.accepted if task not in seen or seen[task]["state"] not in FINAL]
            if not left or time.monotonic() > end:
                break
            await asyncio.sleep(1)
        ended = {task: row for task, row in seen.items() if row["state"] in FINAL}
        states = Counter(row["state"] for row in ended.values())
        return {
            "accepted": len(self.accepted),
            "by_kind": dict(Counter(each["kind"] for each in self.accepted.values())),
            "succeeded": states["succeeded"],
            "failed": [_outline(row) for row in ended.values() if row["state"] != "succeeded"],
            "lost": [{"id": task, **self.accepted[task], "state": seen.get(task, {}).get("state", "unknown")} for task in left],
            "begun_again": [_outline(row) for row in ended.values() if row["attempt"] > 1],
            "accepted_twice": {title: sorted(ids) for title, ids in titles.items() if len(ids) > 1},
        }, ended

    async def effects(self, ended):
        """Return which tasks have not had their effect exactly once, where that shows outside the task's own row.

        A report leaves one file. A pipeline counts each row once, or twice if it was divided twice. What they and the uploads have left
        is deleted.
        """
        rows, complete = await self.pages("/api/v1/files?limit=200")
        made = Counter(row["task_id"] for row in rows if row["task_id"] in self.accepted)
        done = {kind: [task for task, row in ended.items() if (row["kind"], row["state"]) == (kind, "succeeded")] for kind in MIX}
        found = {task: made[task] for task in done["report"] if complete}
        found |= {task: number for task, number in made.items() if number > 1}
        line = Line(self.door, keep=True)
        for task in done["pipeline"]:
            answer = await self.ask("lookup", "GET", f"/api/v1/tasks/{task}/result", line)
            if answer:
                found[task] = answer.json()["result"]["rows"] / (CSV.count(b"\n") - 1)
        line.drop()
        kept = dict(self.kept)
        self.kept = []
        for file, digest in kept.items():
            await self.give_up(file, digest)
        for row in rows:
            mine = row["name"].startswith(f"traffic-{self.run}-") or row["task_id"] in self.accepted
            if mine and row["id"] not in kept:
                await self.ask("lookup", "DELETE", f"/api/v1/files/{row['id']}", want=204)
        return {"counted": len(found), "not_once": {task: number for task, number in found.items() if number != 1}}

    async def ready(self):
        """Log in and put there what the others need."""
        await self.log_in()
        page = self.tokens and await self.ask("session", "GET", "/", check=_is_page)
        self.large = page and await self.upload("session", 1_000_000, name="large.zip")
        self.table = self.large and await self.upload("session", 0, name="table.csv", content=CSV, content_type="text/csv")
        if not self.table:
            raise TrafficError("the load cannot begin: the stack does not do what it should before anything has happened")
        self.style = STYLE.search(page.body.decode())[1]
        # A server that nobody has asked yet begins with no connection of its own
        for place in dict.fromkeys(READS):
            await self.read("session", None, place, self.style)

    async def work(self):
        """Make the load until standard input ends, and tell what came of it."""
        await self.ready()
        self.tell("ready")
        rates = self.settings["rates"]
        slow = itertools.cycle((self.slow_upload, self.slow_task, self.slow_download))
        self.begin(self.stay_logged_in())
        for number in range(self.settings["connections"] if rates["keep_alive"] else 0):
            self.begin(self.keep_alive(number, rates["keep_alive"] / self.settings["connections"]))
        if rates["tasks"]:
            self.begin(self.submit_steadily(rates["tasks"]))
        acts = {"fresh": self.read_fresh, "slow": lambda: next(slow)(), "uploads": self.upload_and_compare, "streams": self.stream}
        for kind, act in acts.items():
            if rates[kind]:
                self.begin(self.steadily(kind, rates[kind], act, 60))
        began, cpu = time.monotonic(), time.process_time()
        await self.stopping.wait()
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        while self.busy:
            await asyncio.wait(self.busy)
        if self.fault:
            raise self.fault
        tasks, ended = await self.settle()
        tasks["effects"] = effects = await self.effects(ended)
        # Nobody but the attempt that holds the claim ends a task; where an effect can be counted besides, it has been
        tasks["begun_again_with_one_effect"] = sum(
            row["state"] == "succeeded" and row["id"] not in effects["not_once"] for row in tasks["begun_again"]
        )
        await self.ask("session", "POST", "/api/v1/auth/logout", want=204)
        self.tell(
            "end",
            seconds=round(seconds, 1),
            tasks=tasks,
            streams=dict(self.streams),
            skipped=dict(self.skipped),
            renewed=self.renewed,
            driver={
                "cpu_percent": round(100 * cpu / seconds, 1),
                "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            },
        )


def _excerpt(answer):
    text = answer.body.decode(errors="replace")
    title = re.search("<title>(.*?)</title>", text)
    return title[1] if title else " ".join(text.split())[:200]


def _is_style(answer):
    right = answer.headers["content-type"].startswith("text/css") and answer.body
    return "" if right else f"no style sheet: {answer.headers['content-type']}, {len(answer.body)} bytes"


def _is_page(answer):
    return "" if b"</html>" in answer.body[-20:] and STYLE.search(answer.body.decode()) else "no whole page of the application"


def _has_sum(digest):
    def check(answer):
        return "" if hashlib.sha256(answer.body).hexdigest() == digest else f"{len(answer.body)} bytes, which are not those that were sent"

    return check


def _outline(row):
    return {name: row[name] for name in ("id", "kind", "state", "attempt", "error")}


async def _main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    driver = Driver(json.loads(await reader.readline()))

    async def until_the_end():
        await reader.read()
        driver.stopping.set()

    watcher = asyncio.create_task(until_the_end())
    try:
        await driver.work()
    except TrafficError as error:
        sys.exit(str(error))
    finally:
        watcher.cancel()


# Who has it made


def _quantile(values, share):
    return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)] if values else 0.0


def _summary(records):
    seconds = sorted(record["seconds"] for record in records)
    return {
        "requests": len(records),
        "failed": sum(bool(record["error"]) for record in records),
        "reopened": sum(record["reopened"] is not None for record in records),
        "p50": round(_quantile(seconds, 0.5), 3),
        "p99": round(_quantile(seconds, 0.99), 3),
        "max": round(seconds[-1], 3) if seconds else 0.0,
    }


class Traffic:
    """A load on a stack's door for as long as the block lasts; afterwards `report` says what came of it."""

    def __init__(self, url, user, password, *, rates=None, scale=1.0, connections=8, timeout=30, settle=120, files=40, refresh=0):
        """Describe a load.

        Args:
            url: the door, http://host:port.
            user: an account that may submit tasks without a limit, and upload.
            password: the account's.
            rates: requests per second of some kinds of clients, in place of `RATES`; 0 is none of them.
            scale: what all rates are multiplied with.
            connections: how many `keep_alive` has.
            timeout: seconds that any answer may take, besides what a slow client takes itself.
            settle: seconds that accepted tasks have to end after the block.
            files: how many uploads are kept for the end; what is older is compared and deleted earlier.
            refresh: seconds between two exchanges of the access token; by default two thirds of its lifetime.
        """
        if urlsplit(url).scheme != "http":
            raise ValueError(f"{url}: only http:// is spoken here")
        if unknown := set(rates or ()) - set(KINDS):
            raise ValueError(f"there are no clients of the kind {', '.join(sorted(unknown))}")
        self.run = f"run{secrets.token_hex(4)}"
        self.settings = {
            "url": url,
            "user": user,
            "password": password,
            "run": self.run,
            "rates": {kind: rate * scale for kind, rate in (RATES | (rates or {})).items()},
            "connections": connections,
            "timeout": timeout,
            "settle": settle,
            "files": files,
            "refresh": refresh,
        }
        self.records = []
        """Every request that has been answered, or has failed."""
        self.accepted = {}
        """Every task that was accepted: its identity to its key and kind."""
        self.cuts = []
        """Streams that were cut off between two events."""
        self.report = None
        self._end = None
        self._ready = False
        self._closed = False
        self._news = threading.Condition()

    def __enter__(self):
        # A file, as nobody reads it before the end
        self._errors = tempfile.TemporaryFile(mode="w+")
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._process.stdin.write(json.dumps(self.settings) + "\n")
        self._process.stdin.flush()
        try:
            self._wait(lambda: self._ready, 90, "the load has begun")
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(self, kind, _error, _traceback):
        self._process.stdin.close()
        # Streams may take what a task takes to settle, and so may the tasks after them
        limit = 3 * self.settings["timeout"] + 2 * self.settings["settle"] + 60
        try:
            self._process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self.report = self._account()
        print(self.table())
        if kind is None and self._end is None:
            raise TrafficError(f"the load has not come to its end: {self._said()}")

    def _read(self):
        for line in self._process.stdout:
            news = json.loads(line)
            with self._news:
                match news.pop("what"):
                    case "record":
                        self.records.append(news)
                    case "accepted":
                        self.accepted[news.pop("task")] = news
                    case "cut":
                        self.cuts.append(news)
                    case "ready":
                        self._ready = True
                    case "end":
                        self._end = news
                self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def _said(self):
        self._errors.seek(0)
        failed = "".join(f"\n{self._line(record)}" for record in self.failures()[:5])
        return f"{self._errors.read()[-3000:]}{failed}"

    def _wait(self, condition, timeout, what):
        with self._news:
            self._news.wait_for(lambda: condition() or self._closed, timeout)
            if condition():
                return
        raise TrafficError(f"{what}: not so after {timeout} s. {self._said()}")

    def answered(self, kind=None):
        """Return how many requests, or those of one kind of client, were answered as they should be until now."""
        return sum(not record["error"] for record in list(self.records) if kind in (None, record["kind"]))

    def wait_for(self, number, kind=None, timeout=60):
        """Wait until so many more requests were answered as they should be. Raises TrafficError after the timeout, in seconds."""
        wanted = self.answered(kind) + number
        self._wait(lambda: self.answered(kind) >= wanted, timeout, f"{number} more requests are answered")

    def failures(self, since=0.0, until=math.inf):
        """Return the records of the requests of which it became known between two moments (`time.time()`) that they have failed."""
        return [record for record in list(self.records) if record["error"] and since <= record["until"] <= until]

    def reopened(self, since=0.0, until=math.inf):
        """Return the records of the requests that were sent once more between two moments."""
        return [record for record in list(self.records) if record["reopened"] and since <= record["reopened"] <= until]

    def _account(self):
        kinds = {kind: _summary([each for each in self.records if each["kind"] == kind]) for kind in (*KINDS, "session", "lookup")}
        end = self._end or {}
        streams = end.get("streams", {})
        return {
            "run": self.run,
            "complete": self._end is not None,
            "seconds": end.get("seconds"),
            "requests": len(self.records),
            "failed": len(self.failures()),
            "reopened": len(self.reopened()),
            "renewed": end.get("renewed"),
            "kinds": kinds,
            "tasks": end.get("tasks", {}),
            "streams": streams,
            "skipped": end.get("skipped", {}),
            "driver": end.get("driver", {}),
            "failures": self.failures()[:20],
        }

    @staticmethod
    def _line(record):
        moment = f"{datetime.fromtimestamp(record['when'], UTC):%H:%M:%S.%f}"[:-3]
        asked = f"{record['kind']} {record['method']} {record['path']}"
        return f"  {moment} {asked}: {record['status'] or 'no status'} after {record['seconds']:.2f} s: {record['error']}"

    def table(self):
        """Return the report for people."""
        report = self.report
        rows = [("", "requests", "failed", "reopened", "p50", "p99", "max")]
        for kind, each in report["kinds"].items():
            seconds = (f"{each[name]:.3f}" for name in ("p50", "p99", "max"))
            rows.append((kind, *(str(each[name]) for name in ("requests", "failed", "reopened")), *seconds))
        lines = [f"{row[0]:<11}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows]
        lines.append(
            f"{report['requests']} requests in {report['seconds']} s, {report['failed']} failed, {report['reopened']} reopened, "
            f"{report['renewed']} connections renewed; skipped for want of answers: {report['skipped'] or 'none'}"
        )
        if tasks := report["tasks"]:
            effects = tasks["effects"]
            lines.append(
                f"tasks: {tasks['accepted']} accepted, {tasks['succeeded']} succeeded, {len(tasks['failed'])} failed, "
                f"{len(tasks['lost'])} lost, {len(tasks['begun_again'])} begun more than once "
                f"({tasks['begun_again_with_one_effect']} with one effect), {len(tasks['accepted_twice'])} accepted twice"
            )
            lines.append(f"effects: {effects['counted']} counted, {len(effects['not_once'])} of them not once {effects['not_once'] or ''}")
            lines += [f"  {name}: {each}" for name in ("failed", "lost", "begun_again") for each in tasks[name][:5]]
        if streams := report["streams"]:
            lines.append("streams: " + ", ".join(f"{number} {name}" for name, number in streams.items()))
        if driver := report["driver"]:
            lines.append(f"the load itself took {driver['cpu_percent']} % of a core and {driver['memory_mb']} MB")
        lines += [self._line(record) for record in report["failures"]]
        return "\n".join(lines)


if __name__ == "__main__":
    asyncio.run(_main())
