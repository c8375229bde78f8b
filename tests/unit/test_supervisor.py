"""supervisord's configuration, read back by supervisord's rules."""

from __future__ import annotations

import configparser
import importlib.util
import shlex
import sys
from typing import Any

import pytest
import yaml

from ansible_collections.fba.stack.plugins.filter.container import supervisor_config

from conftest import ROOT


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


SINGLETON: dict[str, Any] = {
    "name": "beat",
    "command": ["celery", "-A", "app", "beat", "--pidfile=", "100%"],
    "singleton": True,
    "stop_wait": 20,
}
PRELUDE = ["python3", "/opt/beat/run.py", "app", "300"]


def elected(words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What singleton.py takes its own words for: its lock's name and file, the program, and the seconds that this has to end."""
    path = ROOT / "roles/container/files/singleton.py"
    assert words[:2] == ["/opt/supervisor/bin/python", f"/opt/fba/{path.name}"]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    taken: dict[str, Any] = {}
    monkeypatch.setattr(module, "interpreter", lambda program: [program])
    monkeypatch.setattr(module, "PostgresLock", lambda name, service_file: (name, service_file))

    class Noted:
        """Runs nothing."""

        def __init__(self, name: str, lock: tuple[str, str], _python: list[str], program: list[str], stop_wait: float) -> None:
            assert name == lock[0]
            taken.update(name=name, service_file=lock[1], program=program, stop_wait=stop_wait)

        def run(self) -> int:
            return 0

    monkeypatch.setattr(module, "Singleton", Noted)
    monkeypatch.setattr(sys, "argv", words[1:])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    return taken


def test_a_singleton_is_elected_first(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = elected(command_of(SINGLETON), monkeypatch)
    assert (taken["name"], taken["program"]) == ("beat", SINGLETON["command"])
    # It has to hand over after its program, and before supervisord kills both
    assert 0 < taken["stop_wait"] < SINGLETON["stop_wait"]
    # The file is one that the role which has singletons brings
    common = yaml.safe_load((ROOT / "roles/common/defaults/main.yml").read_text(encoding="utf-8"))
    assert taken["service_file"] in [entry["path"] for entry in common["__fba_lock_files"]]


@pytest.mark.parametrize("stop_wait", [1, 5, 6, "20"])
def test_even_a_short_time_to_end_leaves_some(stop_wait: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert elected(command_of({**SINGLETON, "stop_wait": stop_wait}), monkeypatch)["stop_wait"] >= 1


def test_what_stands_before_the_election_becomes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for its turn to wait holds no lock meanwhile: so all that can wait does so before."""
    words = command_of({**SINGLETON, "prelude": PRELUDE, "wait_for": ["fba_postgres:5432"], "watch": ["/app/one"]})
    launch, watch, last = (words.index(f"/opt/fba/{name}") for name in ("launch.py", "watch.py", "singleton.py"))
    prelude = words.index("/opt/beat/run.py")
    assert launch < watch < prelude < last
    assert words[prelude - 1 : last - 1] == PRELUDE
    assert elected(words[last - 1 :], monkeypatch)["program"] == SINGLETON["command"]


def test_a_prelude_alone_becomes_the_program() -> None:
    assert command_of({"name": "thing", "command": ["celery", "100%"], "prelude": PRELUDE, "stop_wait": 5}) == [*PRELUDE, "celery", "100%"]
    assert command_of({"name": "thing", "command": ["celery"], "prelude": [], "singleton": False, "stop_wait": 5}) == ["celery"]


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


def test_all_programs_are_asked_to_end_at_the_same_time() -> None:
    """Supervisor stops one group after the other, and each program that is in none is a group of its own."""
    programs = [{"name": name, "command": ["x"], "stop_wait": 5} for name in ("worker-io", "worker-io-2", "worker-cpu")]
    parser = read_back(supervisor_config(programs))
    groups = [parser[section]["programs"] for section in parser.sections() if section.startswith("group:")]
    assert groups == ["worker-io,worker-io-2,worker-cpu"]


def test_a_program_that_is_given_up_on_ends_the_container() -> None:
    """The listener gets that event, and the output of the programs, which needs their log events switched on."""
    parser = read_back(supervisor_config([{"name": "one", "command": ["x"], "stop_wait": 5}]))
    listener = parser["eventlistener:supervise"]
    assert set(listener["events"].split(",")) == {
        "PROCESS_LOG",
        "PROCESS_STATE_EXITED",
        "PROCESS_STATE_FATAL",
        "SUPERVISOR_STATE_CHANGE_STOPPING",
    }
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
