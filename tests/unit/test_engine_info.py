"""Which containers and images the engine has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from ansible_collections.fba.stack.plugins.module_utils.engine import EngineAway
from ansible_collections.fba.stack.plugins.modules import engine_info

CONTAINER = {"Id": "one", "Labels": {"fba.stack": "fba"}}
IMAGES = {"fba/app:1": {"Id": "two"}, "docker.io/library/redis@sha256:00": {"Id": "three"}}


@pytest.fixture
def ask(run_module: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the module beside an engine with a container and two images."""

    def look_up(path: str) -> Any:
        url = urlsplit(path)
        if url.path == "/containers/json":
            query = parse_qs(url.query)
            assert query["all"] == ["1"]
            # Without a label, the engine lists all
            return [CONTAINER] if set(json.loads(query["filters"][0])["label"]) <= {"fba.stack=fba"} else []
        return IMAGES.get(unquote(url.path).removeprefix("/images/").removesuffix("/json"))

    monkeypatch.setattr(engine_info, "look_up", look_up)
    return lambda **args: dict(run_module(engine_info.main, args).answer)


def test_what_is_asked_for_is_told(ask: Callable[..., dict[str, Any]]) -> None:
    answer = ask(labels=["fba.stack=fba"], images=["fba/app:1", "fba/app:2", "docker.io/library/redis@sha256:00"])
    assert (answer["containers"], answer["images"], answer["changed"]) == ([CONTAINER], list(IMAGES.values()), False)
    assert ask(labels=["fba.stack=another"])["containers"] == []


def test_without_labels_other_stacks_are_not_told_of(ask: Callable[..., dict[str, Any]]) -> None:
    answer = ask()
    assert (answer["containers"], answer["images"]) == ([], [])


def test_an_engine_that_is_away_is_not_one_without_containers(ask: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(_path: str) -> Any:
        raise EngineAway("No such file or directory")

    monkeypatch.setattr(engine_info, "look_up", look_up)
    answer = ask(labels=["fba.stack=fba"])
    assert answer["failed"]
    assert answer["msg"] == "The Docker engine does not say what it has: No such file or directory"
