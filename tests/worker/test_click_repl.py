"""What a worker has in the place of a console."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

INCLUDE = Path(__file__).parents[2] / "roles/worker/files/include"


def in_a_process(program: str) -> Any:
    """What a program prints as JSON, that runs as a worker does."""
    environment = {**os.environ, "PYTHONPATH": str(INCLUDE)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_celery_comes_without_the_console() -> None:
    """If that changes, the module is of no use any more, or Celery asks it for more."""
    program = "import json, sys, celery.bin.celery; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    packages = in_a_process(program)
    assert "celery" in packages
    assert "click_repl" in packages
    assert "prompt_toolkit" not in packages


@pytest.mark.parametrize("way", ["from click_repl import repl", "import click_repl; repl = click_repl.repl"])
def test_an_application_finds_the_real_one(way: str) -> None:
    program = f"import json, celery.bin.celery\n{way}\nprint(json.dumps([repl.__module__, repl.__name__]))"
    assert in_a_process(program) == ["click_repl._repl", "repl"]


def test_what_neither_has_is_an_error() -> None:
    program = "import json, click_repl\nprint(json.dumps([hasattr(click_repl, 'no_such_thing'), hasattr(click_repl, 'repl')]))"
    assert in_a_process(program) == [False, True]
