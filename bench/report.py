"""From what was measured to what people read: tables in docs/performance.md, between marks, and a picture beside it.

    report.py            # from all of bench/results

Needs matplotlib (`requirements.lock`), and nothing else of the bench.
"""

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml
from matplotlib.figure import Figure

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
OURS, OTHERS = "#1f6feb", "#8b949e"
# The same numbers make the same file
mpl.rcParams.update({"svg.hashsalt": "fba.stack", "svg.fonttype": "none", "font.family": "sans-serif"})

Rounds = list[dict[str, float]]


def titles(part: str) -> dict[str, str]:
    """Return the titles of a part's contenders by name, ours first."""
    files = sorted((HERE / part / "contenders").glob("*.yml"), key=lambda file: (file.stem != "ours", file.stem))
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8"))["title"] for file in files}


def median_and_range(rounds: Rounds, key: str, digits: int = 0, factor: float = 1.0) -> str:
    """Return the median of the rounds, and from where to where they go."""
    values = sorted(factor * each[key] for each in rounds)
    return f"{statistics.median(values):,.{digits}f} ({values[0]:,.{digits}f} to {values[-1]:,.{digits}f})"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bars(file: Path, title: str, unit: str, rounds: dict[str, Rounds], key: str = "rate") -> None:
    """Draw the medians of contenders (title to rounds, ours first) as bars, with a line from the least to the most."""
    names = list(rounds)[::-1]
    values = [[each[key] for each in rounds[name]] for name in names]
    middle = [statistics.median(each) for each in values]
    spread = [[m - min(v) for m, v in zip(middle, values, strict=True)], [max(v) - m for m, v in zip(middle, values, strict=True)]]
    colours = [OTHERS] * (len(names) - 1) + [OURS]
    figure = Figure(figsize=(8, 0.6 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, middle, xerr=spread, color=colours, capsize=3)
    axes.bar_label(axes.containers[-1], labels=[f"{each:,.0f}" for each in middle], padding=4)
    axes.set_title(title, loc="left")
    axes.set_xlabel(unit)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None}, facecolor="white")


def worker(results: dict[str, Any]) -> str:
    """Return the section on workers, and draw its pictures."""
    names, workloads = titles("worker"), results["workloads"]
    for workload, what in (("noop", "Tasks that do nothing"), ("wait", "Tasks that wait for a second")):
        chosen = {names[name]: rounds for name, rounds in workloads[workload].items()}
        bars(PAGE.parent / f"performance-{workload}.svg", what, "tasks a second", chosen)
    head = ["tasks a second", *("that " + what for what in ("do nothing", "wait for a second", "compute for 50 ms", "wait, beside such"))]
    rows = [
        [f"**{title}**" if name == "ours" else title, *(median_and_range(workloads[each][name], "rate") for each in workloads)]
        for name, title in names.items()
    ]
    costs = [
        [
            f"**{title}**" if name == "ours" else title,
            median_and_range(workloads["noop"][name], "cpu", 2),
            median_and_range(workloads["noop"][name], "memory", 0, 1 / 2**20),
            *(f"{statistics.median(each[place] * 1000 for each in results['queued'][name]):,.1f}" for place in (0, 1)),
        ]
        for name, title in names.items()
    ]
    costs_head = ["with tasks that do nothing", "CPU s for 1000", "memory, MiB", "ms in the queue at half the rate, p50", "p99"]
    return "\n\n".join(
        [
            "![Tasks that do nothing](performance-noop.svg)",
            "![Tasks that wait for a second](performance-wait.svg)",
            table(head, rows),
            table(costs_head, costs),
        ]
    )


SECTIONS = {"worker": worker}


def about(results: dict[str, Any]) -> str:
    """Return where and when the results of a part are from."""
    machine = results["machine"]
    return (
        f"{results['date']}, {machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, Linux {machine['kernel']}. "
        f"Medians of {results['rounds']} rounds of {results['seconds']} s, taken by turns, with the least and the most."
    )


def main() -> None:
    """Write everything for which there are results."""
    page = PAGE.read_text(encoding="utf-8")
    for part, section in SECTIONS.items():
        results = json.loads((HERE / "results" / f"{part}.json").read_text(encoding="utf-8"))
        begin, end = f"<!-- bench: {part} -->\n", f"<!-- end of bench: {part} -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise SystemExit(f"{PAGE.name} has not one place for {part}, from {begin.strip()} to {end}")
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}{about(results)}\n\n{section(results)}\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
