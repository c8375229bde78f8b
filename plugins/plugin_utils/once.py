# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is the same throughout a task is worked out once for it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Hashable
from typing import TypeVar

Found = TypeVar("Found")

_found: dict[Hashable, object] = {}


def once_for_each_task(key: Hashable, find: Callable[[], Found]) -> Found:
    """Return what `find` returns, and in the process of a task only find it once for each key.

    Ansible begins a process for each task and host, and works a variable out anew wherever it is mentioned: the ten mentions of the
    application's image in one task took a fifth of a second. The process that all others are forks of lives as long as the run, in which
    variables change, so nothing is kept there.
    """
    if multiprocessing.parent_process() is None:
        return find()
    if key not in _found:
        _found[key] = find()
    return _found[key]  # type: ignore[return-value]
