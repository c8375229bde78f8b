"""Keeping what was measured: one JSON file in `results/` for each part of the bench, with the machine that it was measured on."""

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def machine() -> dict[str, str | int]:
    """Return what the reader of a number has to know of the machine."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"processor": model, "cores": os.cpu_count() or 0, "memory_gib": round(memory / 2**30), "kernel": platform.release()}


def save(name: str, results: dict[str, Any]) -> None:
    """Write the results of a part of the bench; every number has its unit in its name or in the docstring of what measured it."""
    FOLDER.mkdir(exist_ok=True)
    content = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": machine(), **results}
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load(name: str) -> dict[str, Any]:
    """Return the results of a part of the bench, as they were saved last.

    Raises:
        FileNotFoundError: they never were.
    """
    file = FOLDER / f"{name}.json"
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there to compare with: `make bench` writes it")
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
