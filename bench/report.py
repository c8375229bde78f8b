"""From what was measured to what people read: tables in docs/performance.md, between marks, and a picture beside it.

    python -m bench.report            # from all of bench/results

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

from bench import targets

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
    """Return the median of the rounds, and from where to where they go if there is more than one."""
    values = sorted(factor * each[key] for each in rounds)
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
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
        [
            f"**{title}**" if name == "ours" else title,
            *(median_and_range(outcomes[name], "rate") if name in outcomes else "" for outcomes in workloads.values()),
        ]
        for name, title in names.items()
    ]
    costs = [
        [
            f"**{title}**" if name == "ours" else title,
            median_and_range(workloads["noop"][name], "cpu", 2),
            median_and_range(workloads["noop"][name], "memory", 0, 1 / 2**20),
            *(f"{1000 * seconds:,.1f}" for seconds in results["queued"][name]),
        ]
        for name, title in names.items()
    ]
    costs_head = ["with tasks that do nothing", "CPU s for 1000", "memory, MiB", "ms in the queue, p50", "p99"]
    noop = workloads["noop"]
    users = sorted({key for name in ("ours", "dramatiq") for each in noop[name] for key in each if key.startswith("cpu_of_")})
    who = [
        [title, median_and_range(noop["ours"], key, 2), median_and_range(noop["dramatiq"], key, 2)]
        for key, title in [("cpu", "the workers"), *((key, f"`{key.removeprefix('cpu_of_')}`") for key in users)]
        if all(key in each for name in ("ours", "dramatiq") for each in noop[name])
    ]
    without, events, flower = (
        statistics.median(each["rate"] for each in results["events"][state]) for state in ("none", "events", "flower")
    )
    return "\n\n".join(
        [
            "![Tasks that do nothing](performance-noop.svg)",
            "![Tasks that wait for a second](performance-wait.svg)",
            table(head, rows),
            table(costs_head, costs),
            table(["processor seconds for 1000 tasks that do nothing, of", "**fba.stack**", "dramatiq"], who),
            f"Flower asks workers for the events of tasks. Without events, {without:,.0f} tasks that do nothing are done a second, with "
            f"events that nobody takes {events:,.0f}, {1 - events / without:.0%} less; with Flower on the same two cores {flower:,.0f}, "
            f"{1 - flower / without:.0%} less.",
            f"A container of workers that has nothing to do holds {results['idle_mib']:.0f} MiB.",
        ]
    )


ASKED = {
    "live": "`/health/live`",
    "read": "a row that is looked for in PostgreSQL",
    "submit": "a task that is accepted for good",
    "apply-async": "a task that is sent by plain `apply_async`, confirmed by the broker",
}


def api(results: dict[str, Any]) -> str:
    """Return the section on servers, and draw its picture."""
    names, parts = titles("api"), []
    chosen = {names[name]: reports["64"] for name, reports in results["targets"]["live"].items()}
    bars(PAGE.parent / "performance-live.svg", "/health/live, 64 connections", "requests a second", chosen)
    for target, what in ASKED.items():
        reports = results["targets"][target]
        counts = [count for count in next(iter(reports.values())) if count != "half"]
        head = [
            what,
            *(f"requests a second, {count} connections" for count in counts),
            "ms, 64 connections: p50",
            "p99",
            "p99.9",
            "half: p99",
        ]
        rows = [
            [
                f"**{names[name]}**" if name in ("ours", "nginx") else names[name],
                *(median_and_range(steps[count], "rate") for count in counts),
                *(median_and_range(steps["64"], quantile, 1) for quantile in ("p50", "p99", "p999")),
                median_and_range(steps["half"], "p99", 1),
            ]
            for name, steps in reports.items()
        ]
        parts.append(table(head, rows))
    return "\n\n".join(["![/health/live](performance-live.svg)", *parts])


RUN_HEAD = ["seconds", "of these the images", "tasks", "processor seconds of the controller"]
RUNS = {
    "first": "first deploy",
    "no-op": "nothing to do",
    "variable": "one variable changed: the workers are replaced",
    "release": "a release with one changed file",
    "containers": "all containers gone, images and data there",
    "join": "the new hosts join",
}


def run_cells(runs: Rounds) -> list[str]:
    """Return what a table says of runs of one kind."""
    return [median_and_range(runs, key, digits) for key, digits in (("seconds", 0), ("images", 0), ("tasks", 0), ("cpu_seconds", 0))]


def playbooks(results: dict[str, Any]) -> str:
    """Return the section on the playbooks for one machine."""
    rows = [[RUNS[name], *run_cells(runs)] for name, runs in results["runs"].items()]
    composed = [
        [f"`docker compose up -d`: {what}", f"{statistics.median(seconds):.1f}", "", "", ""]
        for what, seconds in (("all containers gone", results["compose"]["first"]), ("nothing to do", results["compose"]["no-op"]))
    ]
    asked = results["requests"]
    told = f"During the releases {asked['requests']:,} requests were made; {asked['failed']} failed."
    return f"{table(['one machine', *RUN_HEAD], rows + composed)}\n\n{told}"


def fleet(results: dict[str, Any]) -> str:
    """Return the section on the playbooks for more and more hosts."""
    rows = [[size, RUNS[name], *run_cells(runs)] for size, kinds in results["hosts"].items() for name, runs in kinds.items()]
    brought = [
        [size, median_and_range(kinds["release"], "images"), median_and_range(kinds["release"], "bytes", 2, 1e-6)]
        for size, kinds in results["hosts"].items()
        if "release" in kinds
    ]
    head = ["a release with one changed file, hosts of workers", "seconds to build and bring the image", "MB that a host receives"]
    turns = [[size, *run_cells(runs)] for size, runs in results["turns"].items()]
    return "\n\n".join(
        [
            table(["hosts of workers", "", *RUN_HEAD], rows),
            table(["hosts of workers, by turns: nothing to do", *RUN_HEAD], turns),
            table(head, brought),
        ]
    )


def reached(parts: dict[str, dict[str, Any]]) -> str:
    """Return the table of what was to be reached, from the results of all parts that there are."""
    found = [target for part, of in targets.OF.items() if part in parts for target in of(parts[part])]
    rows = [[each.what, each.wanted, each.measured if each.reached else f"**{each.measured}**"] for each in found]
    missed = sum(not each.reached for each in found)
    return f"{table(['', 'wanted', 'measured'], rows)}\n\n{missed} of {len(found)} are not reached; they are set in bold."


SECTIONS = {"worker": worker, "api": api, "playbooks": playbooks, "fleet": fleet, "fleet-8": fleet}


def about(results: dict[str, Any]) -> str:
    """Return where and when the results of a part are from."""
    machine, rounds = results["machine"], f"{results['rounds']} rounds"
    if "seconds" in results:
        rounds += f" of {results['seconds']} s, taken by turns"
    return (
        f"{results['date']}, {machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, Linux {machine['kernel']}. "
        f"Medians of {rounds}, with the least and the most."
    )


def put(page: str, part: str, text: str) -> str:
    """Return the page with this text between the marks of a part."""
    begin, end = f"<!-- bench: {part} -->\n", f"<!-- end of bench: {part} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"{PAGE.name} has not one place for {part}, from {begin.strip()} to {end}")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}{text}\n{end}{rest.partition(end)[2]}"


def main() -> None:
    """Write everything for which there are results."""
    page = PAGE.read_text(encoding="utf-8")
    files = {part: HERE / "results" / f"{part}.json" for part in SECTIONS}
    parts = {part: json.loads(file.read_text(encoding="utf-8")) for part, file in files.items() if file.exists()}
    for part, section in SECTIONS.items():
        if part in parts:
            page = put(page, part, f"{about(parts[part])}\n\n{section(parts[part])}")
        else:
            print(f"there are no results for {part}: its tables stay as they are")
    if parts:
        page = put(page, "targets", reached(parts))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
