"""What is worked out once for each task, and never for longer."""

import multiprocessing
from typing import Any

from ansible_collections.fba.stack.plugins.plugin_utils.once import once_for_each_task


def ask(queue: Any) -> None:
    """Ask for two things, twice each, and tell what was said and what it has taken."""
    calls: list[str] = []

    def find(name: str) -> str:
        calls.append(name)
        return f"{name} {len(calls)}"

    answers = [once_for_each_task(name, lambda name=name: find(name)) for name in ("a", "b", "a", "b")]
    queue.put((answers, calls))


def test_a_task_asks_once_and_the_run_each_time() -> None:
    here = multiprocessing.get_context("fork").SimpleQueue()
    ask(here)
    assert here.get() == (["a 1", "b 2", "a 3", "b 4"], ["a", "b", "a", "b"])
    for _task in range(2):
        task = multiprocessing.get_context("fork").Process(target=ask, args=(here,))
        task.start()
        assert here.get() == (["a 1", "b 2", "a 1", "b 2"], ["a", "b"])
        task.join()
