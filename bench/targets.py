"""What the stack shall reach, and what it has reached: from the results of `make bench`, without running anything."""

import statistics
from dataclasses import dataclass
from typing import Any

MB = 1e6
MIB = 2**20


@dataclass(frozen=True)
class Target:
    """A number to reach. `wanted` and `measured` are for readers, with their units."""

    what: str
    wanted: str
    measured: str
    reached: bool


def at_least(what: str, least: float, value: float, unit: str) -> Target:
    """Return a target for a number that shall be large."""
    return Target(what, f"≥ {least:g}{unit}", f"{value:,.3g}{unit}" if value < 1000 else f"{value:,.0f}{unit}", value >= least)


def at_most(what: str, most: float, value: float, unit: str) -> Target:
    """Return a target for a number that shall be small."""
    return Target(what, f"≤ {most:g}{unit}", f"{value:,.3g}{unit}" if value < 1000 else f"{value:,.0f}{unit}", value <= most)


def median(rounds: list[dict[str, float]], key: str = "rate") -> float:
    """Return the median of one number of the rounds."""
    return statistics.median(each[key] for each in rounds)


def of_workers(results: dict[str, Any]) -> list[Target]:
    """Return the targets for workers."""
    noop, wait, mix = (results["workloads"][name] for name in ("noop", "wait", "mix"))
    events = {state: median(rounds) for state, rounds in results["events"].items()}
    leads = [
        ("celery-5.6-gevent", 6, "the stock configuration on Celery 5.6.3"),
        ("celery-gevent", 80, "the stock configuration on Celery 5.7"),
    ]
    peers = [(name, 1, name) for name in ("dramatiq", "taskiq")]
    return [
        *(
            at_least(f"tasks that do nothing, beside {title}", least, median(noop["ours"]) / median(noop[name]), " times")
            for name, least, title in leads + peers
        ),
        at_least("tasks that wait for a second", 1000, median(wait["ours"]), " a second"),
        *(
            at_least(f"tasks that wait for a second, beside {name}", 1, median(wait["ours"]) / median(wait[name]), " times")
            for name, _, _ in peers
        ),
        at_most("rate lost to events of tasks", 20, 100 * (1 - events["events"] / events["none"]), " %"),
        at_most("rate lost to events, and to Flower on the same machine", 20, 100 * (1 - events["flower"] / events["none"]), " %"),
        at_most("rate of tasks that wait, lost to such as compute", 10, 100 * (1 - median(mix["ours"]) / median(wait["ours"])), " %"),
        at_most("memory of an idle container of workers", 300, results["idle_mib"] * MIB / MB, " MB"),
    ]


def of_servers(results: dict[str, Any]) -> list[Target]:
    """Return the targets for servers."""
    asked = results["targets"]
    submit, sent, live, read = (asked[name] for name in ("submit", "apply-async", "live", "read"))

    def calm(reports: dict[str, Any]) -> float:
        return median(reports["half"], "p99")

    return [
        at_least("submitting a task, beside plain `apply_async`", 3, median(submit["ours"]["64"]) / median(sent["ours"]["64"]), " times"),
        at_most("submitting a task, p99 at half the rate", 50, calm(submit["ours"]), " ms"),
        at_most("what nginx adds to p99 at half the rate", 2, calm(live["nginx"]) - calm(live["ours"]), " ms"),
        *(
            at_least(f"{what}, beside uvicorn", 1, median(reports["ours"]["64"]) / median(reports["uvicorn"]["64"]), " times")
            for what, reports in (("`/health/live`", live), ("a read with the database", read))
        ),
    ]


def of_playbooks(results: dict[str, Any]) -> list[Target]:
    """Return the targets for playbooks on one machine."""
    runs = results["runs"]
    return [
        at_most("a deploy that has nothing to do, one machine", 30, median(runs["no-op"], "seconds"), " s"),
        at_most("a release with one changed file, one machine", 60, median(runs["release"], "seconds"), " s"),
        at_most("of these the image", 15, median(runs["release"], "images"), " s"),
        at_most("requests that failed during releases", 0, results["requests"]["failed"], ""),
    ]


def of_fleets(results: dict[str, Any]) -> list[Target]:
    """Return the targets for playbooks on several hosts."""
    hosts = results["hosts"]
    one, four = (median(results["turns"][size], "seconds") for size in ("1", "4"))
    return [
        at_most("a deploy that has nothing to do, four hosts of workers beside one", 1.5, four / one, " times"),
        at_most("a host of workers joins that has Docker", 60, median(hosts["2"]["join"], "seconds"), " s"),
        at_most(
            "one changed file, to each host",
            5,
            max(each["bytes"] for kinds in hosts.values() for each in kinds.get("release", [])) / MB,
            " MB",
        ),
    ]


OF = {"worker": of_workers, "api": of_servers, "playbooks": of_playbooks, "fleet": of_fleets}
"""The targets by the part of the bench that measures them."""
