"""The verbs: each that is named somewhere is there, once."""

import re
from collections import Counter
from pathlib import Path

import pytest

from conftest import ROOT

TARGETS = Counter(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def named(page: Path) -> set[str]:
    """The verbs that a page has in its code: between backticks, indented, or in front of a comment."""
    return set(re.findall(r"(?:`|^ {4}|^(?=.* #))make ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.MULTILINE))


def test_no_target_is_there_twice() -> None:
    assert [name for name, count in TARGETS.items() if count > 1] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_that_a_page_names_is_there(page: Path) -> None:
    assert named(page) - TARGETS.keys() == set()


def test_the_pages_name_the_verbs_of_operators() -> None:
    verbs = {
        "deploy",
        "release",
        "rollback",
        "plan",
        "unlock",
        "dead-letters",
        "backup",
        "restore",
        "upgrade",
        "remove-host",
        "test",
        "bench",
    }
    assert verbs <= set().union(*map(named, PAGES))
