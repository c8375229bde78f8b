"""The roles' tasks: what none of them may do, and nobody would see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from conftest import ROOT

EXEC = "community.docker.docker_container_exec"


def tasks_of(found: Any) -> Iterator[dict[str, Any]]:
    """Every task of a file, those in blocks too."""
    for task in found or []:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_of(task.get(part))


def all_tasks() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every task of all roles, with its file and name."""
    for path in sorted(ROOT.glob("roles/*/tasks/*.yml")):
        for task in tasks_of(yaml.safe_load(path.read_text(encoding="utf-8"))):
            yield f"{path.relative_to(ROOT)}: {task.get('name')}", task


def test_no_answer_is_read_that_can_be_lost() -> None:
    """The module loses what a command says at once, and tells of success. Who asks again until there is an answer is not deceived."""
    users = [(name, task) for name, task in all_tasks() if EXEC in task]
    assert users
    assert [name for name, task in users if "register" in task and "until" not in task] == []
