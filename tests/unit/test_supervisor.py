"""supervisord's configuration, read back by supervisord's rules."""

from __future__ import annotations

import configparser
import shlex
from typing import Any

import pytest

from ansible_collections.fba.stack.plugins.filter.container import supervisor_config


def read_back(text: str) -> configparser.RawConfigParser:
    """Parse as supervisor 4 does: a semicolon or hash after white space begins a comment, anywhere."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(text)
    return parser


def command_of(program: dict[str, Any]) -> list[str]:
    """The words that supervisord would run: its %(name)s expansion, then its shlex."""
    parser = read_back(supervisor_config([program]))
    return shlex.split(parser[f"program:{program['name']}"]["command"] % {"here": "/etc", "program_name": "x"})


@pytest.mark.parametrize(
    "words",
    [
        ["celery", "-A", "fba_app.celery", "worker"],
        ["echo", "two words", "", "tab\there"],
        ["echo", "100%", "%(here)s", "%%", "%n@%h"],
        ["echo", 'double "quotes"', "it's", "both ' and \""],
        ["echo", "back\\slash", "$HOME", "`id`", "*", "~"],
        ["echo", "a;b", "a#b", ";b", "#b"],
        ["echo", "a ; b", "a # b", " ;", "it's #1"],
        ["sh", "-c", "test -n \"$A\" && echo '#' ; exit 1"],
    ],
)
def test_words_arrive_as_they_were(words: list[str]) -> None:
    assert command_of({"name": "thing", "command": words, "stop_wait": 5}) == words


def test_numbers_become_words() -> None:
    assert command_of({"name": "thing", "command": ["sleep", 5], "stop_wait": 5}) == ["sleep", "5"]


def test_a_program_waits_for_what_it_needs_through_the_launcher() -> None:
    program = {
        "name": "thing",
        "command": ["celery", "--", "100%"],
        "wait_for": ["fba_rabbitmq:5671", "fba_redis:6379"],
        "wait_timeout": 42,
        "stop_wait": 5,
    }
    assert command_of(program) == [
        *["python3", "/opt/fba/launch.py", "--wait=fba_rabbitmq:5671", "--wait=fba_redis:6379", "--timeout=42", "--"],
        *["celery", "--", "100%"],
    ]


def test_a_program_is_watched_once_what_it_needs_is_there() -> None:
    program = {"name": "thing", "command": ["celery", "100%"], "wait_for": ["fba_redis:6379"], "watch": ["/app/one", "/app/two"]}
    assert command_of({**program, "stop_wait": 620}) == [
        *["python3", "/opt/fba/launch.py", "--wait=fba_redis:6379", "--timeout=300", "--"],
        *["/opt/supervisor/bin/python", "/opt/fba/watch.py", "--watch=/app/one", "--watch=/app/two", "--stop-wait=620", "--"],
        *["celery", "100%"],
    ]
    assert command_of({**program, "wait_for": [], "watch": [], "stop_wait": 620}) == ["celery", "100%"]


def test_programs_restart_are_stopped_as_a_group_and_rotate_their_logs() -> None:
    programs = [{"name": "one", "command": ["x"], "stop_wait": 620}, {"name": "two", "command": ["y"], "stop_wait": 20}]
    parser = read_back(supervisor_config(programs))
    one = parser["program:one"]
    assert one["stopwaitsecs"] == "620"
    assert parser["program:two"]["stopwaitsecs"] == "20"
    assert one["startretries"] == "5"
    assert one.getboolean("autorestart") is True
    # The parent drains its children by itself; what outlives it is killed with it
    assert one.getboolean("stopasgroup") is False
    assert one.getboolean("killasgroup") is True
    assert (one["stdout_logfile"], one["stdout_logfile_maxbytes"], one["stdout_logfile_backups"]) == ("/var/log/fba/one.log", "5MB", "5")
    assert one.getboolean("redirect_stderr") is True


def test_a_program_that_is_given_up_on_ends_the_container() -> None:
    """The listener gets that event, and the output of the programs, which needs their log events switched on."""
    parser = read_back(supervisor_config([{"name": "one", "command": ["x"], "stop_wait": 5}]))
    listener = parser["eventlistener:supervise"]
    assert {"PROCESS_STATE_FATAL", "PROCESS_LOG"} <= set(listener["events"].split(","))
    assert "/opt/fba/supervise.py" in listener["command"]
    assert parser["program:one"].getboolean("stdout_events_enabled") is True
    # Supervisor's protocol runs over the listener's standard output
    assert listener["stderr_logfile"] == "/dev/stderr"


def test_supervisord_writes_only_where_the_container_may() -> None:
    main = read_back(supervisor_config([]))["supervisord"]
    assert main["pidfile"].startswith("/tmp/")
    assert main["logfile"].startswith("/var/log/fba/")
    assert (main["logfile_maxbytes"], main["logfile_backups"]) == ("5MB", "5")
    assert main.getboolean("nodaemon") is True
