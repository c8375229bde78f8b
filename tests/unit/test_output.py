"""What people read: tables, and the logs of containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.fba.stack.plugins.action import logs, report
from ansible_collections.fba.stack.plugins.action.logs import split_lines
from ansible_collections.fba.stack.plugins.action.report import table

Run = Callable[..., dict[str, Any]]
ONE, TWO, THREE = (f"2026-01-01T00:00:00.00000000{number}Z" for number in (1, 2, 3))


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(["SERVICE", "UP"], [["redis", "2 hours"], ["a longer one", 5]]) == [  # type: ignore[list-item]
        "SERVICE       UP",
        "redis         2 hours",
        "a longer one  5",
    ]


def test_a_table_without_rows_has_its_headings() -> None:
    assert table(["A", "B"], []) == ["A  B"]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that an action prints."""
    lines: list[str] = []
    display = MagicMock()
    display.display.side_effect = lambda text, **_options: lines.append(text)
    for module in (logs, report):
        monkeypatch.setattr(module, "Display", lambda: display)
    return lines


def test_text_and_table_are_printed_as_they_are(run_action: Run, printed: list[str]) -> None:
    run_action(report.ActionModule, {"text": "Hello.\n"})
    run_action(report.ActionModule, {"columns": ["SERVICE"], "rows": [["redis"]]})
    assert printed == ["\nHello.", "\nSERVICE", "redis"]


def test_lines_come_once() -> None:
    first, newest = split_lines(f"{ONE} a\n{TWO} b with words\n", "")
    assert (first, newest) == (["a", "b with words"], TWO)
    # docker's --since includes the moment itself
    assert split_lines(f"{TWO} b with words\n{THREE} c\n", newest) == (["c"], THREE)
    assert split_lines(f"{TWO} b with words\n", newest) == ([], TWO)
    assert split_lines("", newest) == ([], TWO)


def test_lines_of_one_moment_and_empty_ones_are_kept() -> None:
    assert split_lines(f"{ONE} a\n{ONE} \n{ONE} b\n", "") == (["a", "", "b"], ONE)


@pytest.mark.parametrize("character", ["\r", "\x0b", "\x0c", "\x85", "\u2028"])
def test_what_looks_like_a_line_end_inside_a_line_is_no_timestamp(character: str) -> None:
    """The timestamp goes into the next --since, which must be one."""
    assert split_lines(f"{ONE} 10%{character}zz 20%\n", "") == ([f"10%{character}zz 20%"], ONE)


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[tuple[int, str]]], list[str]]:
    """A function that sets what the host's shell answers, and returns the commands that it is given."""

    def answer(answers: list[tuple[int, str]]) -> list[str]:
        commands: list[str] = []
        remaining = iter(answers)

        def execute(_self: object, command: str) -> dict[str, Any]:
            commands.append(command)
            code, text = next(remaining)
            return {"rc": code, "stdout": text, "stderr": ""}

        monkeypatch.setattr(logs.ActionModule, "_low_level_execute_command", execute)
        return commands

    return answer


def test_logs_are_printed_after_host_and_container(run_action: Run, printed: list[str], docker: Any) -> None:
    commands = docker([(0, f"{ONE} ready\n"), (0, f"{TWO} listening\n")])
    run_action(logs.ActionModule, {"containers": ["fba_redis", "fba_nginx"], "lines": 7})
    assert printed == ["one fba_redis | ready", "one fba_nginx | listening"]
    assert "docker logs --timestamps --tail=7 fba_redis" in commands[0]


def test_a_container_that_is_gone_is_told(run_action: Run, printed: list[str], docker: Any) -> None:
    docker([(1, "No such container: fba_redis\n")])
    with pytest.raises(AnsibleActionFail, match="docker logs fba_redis: No such container"):
        run_action(logs.ActionModule, {"containers": ["fba_redis"]})
    assert printed == []


def test_following_goes_on_where_it_was(run_action: Run, printed: list[str], docker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PAUSE", 0)
    commands = docker([(0, f"{ONE} a\n"), (0, f"{ONE} a\n{TWO} b\n"), (1, "gone")])
    with pytest.raises(AnsibleActionFail, match="gone"):
        run_action(logs.ActionModule, {"containers": ["fba_redis"], "follow": True})
    assert printed == ["one fba_redis | a", "one fba_redis | b"]
    assert f"--since={ONE}" in commands[1]
    assert f"--since={TWO}" in commands[2]
