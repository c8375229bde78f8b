"""Spare a worker the console of `celery amqp`.

Celery's command line imports all its commands, whichever is asked for. That one has a console with completion and colours: 150 modules,
which are a tenth of the memory of an idle process, and of the time that it needs to start. Python finds this one in the place of the real
module (`PYTHONPATH`). An application that has a console of its own finds everything else here.
"""

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any


def register_repl(*_arguments: Any, **_options: Any) -> None:
    """Give a command no console."""


def __getattr__(name: str) -> Any:
    """Return what the real module has under this name, which takes the place of this one.

    Raises:
        AttributeError: it has no such thing, or there is no such module.
    """
    here = Path(__file__).parent
    found = PathFinder.find_spec(__name__, [path for path in sys.path if Path(path) != here])
    if name.startswith("__") or not (found and found.loader):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    real = sys.modules[__name__] = importlib.util.module_from_spec(found)
    found.loader.exec_module(real)
    return getattr(real, name)
