#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Watch in nginx's log how new servers do with real requests, and fail if they do badly."""

from __future__ import annotations

DOCUMENTATION = r"""
module: upstream_trial
short_description: Watch in nginx's log how new servers do
version_added: 1.0.0
author: The fba.stack authors
description:
  - Follows the log of nginx's container until the trial is over, and counts what the servers on trial have answered. A status of 5xx is an
    error, and so are 502 and 504, which nginx writes for a server that could not be reached or did not answer in time.
  - A request that nginx has given to another server after that counts all the same, for the one that failed.
  - A client that went away before the answer counts neither as a request nor as an error.
  - Fails, before its time if need be, as soon as there are O(errors) errors and their share is more than O(error_rate).
  - Where there were errors by then, with a share of more than O(error_rate), but too few of them to fail, it goes on for O(doubt_seconds).
  - Reads lines of the log format C(upstreams) of the role C(nginx). Others are passed over.
  - Without a request, the trial is passed.
options:
  container:
    description: nginx's container on the host.
    type: str
    required: true
  upstreams:
    description: The servers on trial, C(address:port) as nginx writes them.
    type: list
    elements: str
    required: true
  since:
    description: When the trial began, in seconds since 1970 by the clock of the host. By default it begins now.
    type: float
  seconds:
    description: How long the trial lasts from O(since).
    type: float
    required: true
  doubt_seconds:
    description: How much longer it lasts at most where that was too short to tell.
    type: float
    default: 0
  errors:
    description: Errors that there have to be at least for the trial to fail. From 1.
    type: int
    required: true
  error_rate:
    description: Share of the answers, from 0 to 1, that may be errors.
    type: float
    required: true
attributes:
  check_mode:
    support: full
    details: Nothing is watched, and the trial is passed.
"""

EXAMPLES = r"""
- name: Watch the new server
  fba.stack.upstream_trial:
    container: fba_nginx
    upstreams: ["172.30.10.12:8001"]
    since: 1790000000.5
    seconds: 20
    doubt_seconds: 60
    errors: 3
    error_rate: 0.05
"""

RETURN = r"""
requests:
  description: Requests that the servers on trial have answered, or failed to.
  type: int
  returned: always
error_count:
  description: Those of them that were errors.
  type: int
  returned: always
rate:
  description: Share of the errors, from 0 to 1. 0 where there were no requests.
  type: float
  returned: always
passed:
  description: Whether the servers may stay.
  type: bool
  returned: always
samples:
  description: The first five lines with an error, without query strings, which may hold secrets.
  type: list
  elements: str
  returned: always
"""

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

SAMPLES = 5
# Between two values of a list that nginx writes: the next server was asked; the request was redirected inside
BETWEEN = re.compile(r", | : ")
# nginx escapes quotes in what a client sends, so the end of the line is nginx's own
LINE = re.compile(r' "(?P<request>[^"]*)" \d{3} .* upstream="(?P<upstreams>[^"]*)" status="(?P<statuses>[^"]*)" seconds="[^"]*"$')
QUERY = re.compile(r"\?[^\s\"]*")
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\S+Z ")
# Seconds that the command gets to end when it is asked to, and to read what is there
GRACE = 5
READING = 60
# What tells a module to end
ENDING = (signal.SIGTERM, signal.SIGHUP)
# Seconds between two attempts to follow a log of which docker has lost track
PAUSE = 0.5


class Trial:
    """What the servers on trial have answered so far."""

    def __init__(self, upstreams, errors, error_rate):
        self.upstreams = upstreams
        self.errors = errors
        self.error_rate = error_rate
        self.requests = 0
        self.error_count = 0
        self.failed_upstreams = []
        self.failed_requests = []
        self.samples = []

    @property
    def rate(self):
        """The share of errors."""
        return self.error_count / self.requests if self.requests else 0.0

    @property
    def passed(self):
        """Whether it is not failed so far."""
        return self.error_count < self.errors or self.rate <= self.error_rate

    @property
    def doubtful(self):
        """Whether it is passed only because there were few errors so far."""
        return self.passed and self.rate > self.error_rate

    def count(self, line):
        """Count a line of nginx's access log, if it is one about these servers."""
        match = LINE.search(line)
        if not match:
            return
        request = QUERY.sub("", match["request"]).rpartition(" HTTP/")[0] or "a malformed request"
        failed = False
        # The hosts' Python may be older than the parameter strict
        for upstream, status in zip(BETWEEN.split(match["upstreams"]), BETWEEN.split(match["statuses"])):  # noqa: B905
            if upstream not in self.upstreams or not status.isdigit():
                continue
            self.requests += 1
            if status.startswith("5"):
                failed = True
                self.error_count += 1
                if upstream not in self.failed_upstreams:
                    self.failed_upstreams.append(upstream)
                if f"{request} {status}" not in self.failed_requests:
                    self.failed_requests.append(f"{request} {status}")
        if failed and len(self.samples) < SAMPLES:
            self.samples.append(QUERY.sub("", line))

    def result(self):
        """Return what the module returns."""
        return {
            "requests": self.requests,
            "error_count": self.error_count,
            "rate": round(self.rate, 4),
            "passed": self.passed,
            "samples": self.samples,
        }

    def verdict(self):
        """Return the sentence for a trial that is not passed."""
        shown = ", ".join(self.failed_requests[:SAMPLES]) + (", and others" if len(self.failed_requests) > SAMPLES else "")
        return (
            f"{', '.join(self.failed_upstreams)} answered {self.error_count} of {self.requests} requests with an error"
            f" (limit {self.error_rate * 100:g} %): {shown}"
        )


class LogError(Exception):
    """The log cannot be read."""


@contextlib.contextmanager
def signals_kept():
    """Let a signal that tells the module to end come at the end of the block.

    A child that is being started is nobody's yet: an exception there would leave it behind.
    """
    came = []
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def close(process):
    """End a command, and wait for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    process.stdout.close()


class Log:
    """The log of a container, each line once."""

    def __init__(self, container, since):
        self.container = container
        self.since = f"{since:.9f}"
        self.newest = ""
        # What docker itself says, and not the container, has no time in front
        self.complaint = ""

    def _line(self, raw, after):
        """Return a line without its time, or None where it is docker's own or not newer than `after`, up to which it was read before."""
        text = raw.decode("utf-8", "replace")
        stamp = STAMP.match(text)
        if not stamp:
            self.complaint = text.strip() or self.complaint
            return None
        self.newest = max(self.newest, stamp.group())
        return text[stamp.end() :] if stamp.group() > after else None

    def read(self, *options, deadline):
        """Yield the lines since the last one that was read, until the log ends, or the deadline has come.

        `deadline` is in seconds since 1970. Raises LogError where docker fails.
        """
        after = self.newest
        command = ["docker", "logs", "--timestamps", f"--since={after.strip() or self.since}", *options, self.container]
        # What the container writes to its standard error is in the same pipe, so that it is never full
        process = None
        try:
            with signals_kept():
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                rest = b""
                while True:
                    left = deadline - time.time()
                    if left <= 0:
                        return
                    # The kernel does not take any wait, however long
                    if not selector.select(min(left, READING)):
                        continue
                    chunk = os.read(process.stdout.fileno(), 65536)
                    if not chunk:
                        break
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        text = self._line(line, after)
                        if text is not None:
                            yield text
            if process.wait() != 0:
                raise LogError(self.complaint or f"docker ended with {process.returncode}")
        finally:
            if process is not None:
                close(process)


def is_running(container):
    """Return whether a container runs."""
    inspect = ["docker", "inspect", "--format", "{{ .State.Running }}", container]
    return subprocess.run(inspect, capture_output=True, check=False).stdout.strip() == b"true"


def count(trial, lines, going_on):
    """Count lines until there are no more, or as long as the trial is going on."""
    # Closed at once: a generator that is left half-way keeps its child
    with contextlib.closing(lines):
        for line in lines:
            trial.count(line)
            if not going_on():
                return


def watch(trial, log, deadline, going_on):
    """Count what the log has until the deadline, in seconds since 1970, or as long as the trial is going on. Raises LogError."""
    while going_on() and time.time() < deadline:
        count(trial, log.read("--follow", deadline=deadline), going_on)
        if going_on() and time.time() < deadline:
            # The log was rotated in an unlucky moment, or the container has ended
            if not is_running(log.container):
                raise LogError("the container has ended")
            time.sleep(PAUSE)
    if going_on():
        # What was there by then and is not read yet, however late this began
        limit = time.time() + READING
        count(trial, log.read(f"--until={deadline:.9f}", deadline=limit), going_on)
        if going_on() and time.time() >= limit:
            raise LogError(f"docker has not read it within {READING} s")


def end(number, frame):
    """Leave by an exception, so that the child is ended too."""
    raise SystemExit(128 + number)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "upstreams": {"type": "list", "elements": "str", "required": True},
            "since": {"type": "float"},
            "seconds": {"type": "float", "required": True},
            "doubt_seconds": {"type": "float", "default": 0},
            "errors": {"type": "int", "required": True},
            "error_rate": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    since = time.time() if given["since"] is None else given["since"]
    if given["errors"] < 1:
        module.fail_json(msg=f"errors is {given['errors']}: allowed are 1 or more")
    if not 0 <= given["error_rate"] <= 1:
        module.fail_json(msg=f"error_rate is {given['error_rate']:g}: allowed are 0 to 1")
    trial = Trial(given["upstreams"], given["errors"], given["error_rate"])
    if not module.check_mode:
        for number in ENDING:
            signal.signal(number, end)
        try:
            log, deadline = Log(given["container"], since), since + given["seconds"]
            watch(trial, log, deadline, lambda: trial.passed)
            if given["doubt_seconds"]:
                watch(trial, log, deadline + given["doubt_seconds"], lambda: trial.doubtful)
        except (LogError, OSError) as error:
            module.fail_json(msg=f"The log of {given['container']} cannot be followed: {error}", **{**trial.result(), "passed": False})
    if not trial.passed:
        module.fail_json(msg=trial.verdict(), **trial.result())
    module.exit_json(changed=False, **trial.result())


if __name__ == "__main__":
    main()
