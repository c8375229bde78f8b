# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs and releases: what has happened on which host, what is there to go back to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.fba.stack.plugins.filter.fleet import SERVICES

# What the steps that take a failed release back are called by
BACK = "back: "
# What the steps are called by before which the application was stopped: those of parts/bring_back.yml
RESTORE = "restore of "
# Of what a program has said on standard output, how much is its reason
LAST_WORDS = 2000


def release_name(image: str) -> str:
    """Return the name of the release that an image is: its tag, or the start of its digest where it has none."""
    name, _, digest = image.partition("@")
    _path, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        return tag
    return digest.partition(":")[2][:12] or "latest"


def release_entry(
    image: str, source: Mapping[str, Any], run: Mapping[str, Any], incompatible: Mapping[str, str], rollback: bool
) -> dict[str, Any]:
    """Return what fba.stack.run_record is told of the release that an image is.

    `source` is what the lookup fba.stack.source_version knows of its source, `run` what fba.stack.lock does of this run. A dictionary of
    templates would say the same, and would be worked out anew for each of its parts.
    """
    return {
        "release": release_name(image),
        "image": image,
        "version": source["version"],
        "commit": source["commit"],
        "by": run["owner"],
        "at": run["since"],
        "reason": run["reason"],
        "incompatible": incompatible,
        "rollback": rollback,
    }


def journal_of(hostvars: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Return what fba.stack.journal has noted of a host in this run: `steps` and `containers`."""
    facts = hostvars[host].get("ansible_facts") or {}
    return facts.get("fba_journal") or {"steps": [], "containers": []}


def run_failures(hostvars: Mapping[str, Any], hosts: Iterable[str]) -> list[dict[str, str]]:
    """Return why this run has failed, oldest first: `host`, `step`, `task`, `message` of each step that did."""
    found = [
        {"host": host, "step": step["step"], "ended": step["ended"], **step["failure"]}
        for host in hosts
        for step in journal_of(hostvars, host)["steps"]
        if step.get("failure")
    ]
    return [
        {name: failure[name] for name in ("host", "step", "task", "message")} for failure in sorted(found, key=lambda one: one["ended"])
    ]


def failure_reason(result: Mapping[str, Any]) -> str:
    """Return why a task has failed, from its result: what it says, or, of a loop, what each item that failed says.

    What a program has said on standard error belongs to it; where it has said nothing there, what it has said last on standard output.
    """
    failed = [each for each in result.get("results") or [] if each.get("failed")] or [result]
    said = [(each.get("msg"), each.get("stderr") or str(each.get("stdout") or "")[-LAST_WORDS:]) for each in failed]
    texts = [str(part).strip() for parts in said for part in parts if part]
    return "\n".join(dict.fromkeys(texts)) or "it does not say why"


def outcome(hostvars: Mapping[str, Any], hosts: Iterable[str]) -> str:
    """Return how the run has ended: `done`, `failed`, `went back`, `stuck`, where also that has failed, or `stopped`, of a restore."""
    hosts = list(hosts)
    failures = run_failures(hostvars, hosts)
    if not failures:
        return "done"
    if any(failure["step"].startswith(BACK) for failure in failures):
        return "stuck"
    steps = [step["step"] for host in hosts for step in journal_of(hostvars, host)["steps"]]
    if any(step.startswith(BACK) for step in steps):
        return "went back"
    return "stopped" if any(step.startswith(RESTORE) for step in steps) else "failed"


ENDINGS = {
    "failed": "Nothing that serves was switched; what ran before goes on.",
    "went back": "What had been switched has gone back: the release before serves as it did.",
    "stopped": "The application is stopped. Repair the reason and restore again, or deploy to go on with the data that is there.",
    "stuck": "Going back failed too, so some hosts have the release before and some this one. Repair the reason and run it again.",
}


def failure_text(failures: list[dict[str, str]], ended: str) -> str:
    """Return why a run has failed, and what that means, as a person reads it; `ended` is its outcome."""
    reasons = "\n".join(f"{one['host']}, {one['step']}: {one['task']}\n{one['message']}".rstrip() for one in failures)
    return f"{reasons}\n\n{ENDINGS.get(ended, '')}".strip()


def log_entries(facts: Mapping[str, Any], release: Mapping[str, Any], failures: list[dict[str, str]], ended: str) -> list[dict[str, Any]]:
    """Return what a host's deploy log is to say of this run, from the host's facts. Before it, of an interrupted run that it went on with.

    Times are UTC, durations seconds. Of the containers, those that something has happened to.
    """
    run, journal = facts["fba_run"], facts.get("fba_journal") or {"steps": [], "containers": []}
    entries = []
    common = ("run", "verb", "owner", "reason", "since")
    if interrupted := run.get("interrupted"):
        entries.append({**{name: interrupted.get(name, "") for name in common}, "outcome": "interrupted"})
    now = time.time()
    entry: dict[str, Any] = {name: run[name] for name in common}
    entry |= {"seconds": round(now - run["began"], 1), "outcome": ended}
    entry |= {name: release.get(name, "") for name in ("release", "image", "version", "commit")}
    entry["steps"] = [{"step": step["step"], "seconds": round((step["ended"] or now) - step["began"], 1)} for step in journal["steps"]]
    entry["containers"] = [
        {name: verdict[name] for name in ("container", "what", "why")} for verdict in journal["containers"] if verdict["what"] != "left"
    ]
    if failures:
        entry["failures"] = failures
    return [*entries, entry]


def image_before(hostvars: Mapping[str, Any], host: str) -> str:
    """Return the application's image that a host ran before this run; empty where that is not known."""
    facts = hostvars[host].get("ansible_facts") or {}
    found = {each["service"]: each["image"] for each in (facts.get("fba_containers_before") or {}).values() if each["state"] == "running"}
    return next((found[service] for service in ("server", "worker", "beat") if service in found), "")


def released_text(record: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Return which release is the current one after a run, and how to go back, as a person reads it."""
    releases = {each["release"]: each for each in record.get("releases", [])}
    current = releases.get(record.get("current", ""))
    if current is None:
        return ""
    known = ", ".join(filter(None, [current.get("version"), current.get("commit")]))
    previous = current.get("previous")
    back = f"Before it was {previous}: rollback.yml (make rollback) goes back." if previous else "There is none before it."
    return f"Release {current['release']}{f' ({known})' if known else ''} is out, after {time.time() - run['began']:.0f} s. {back}"


def unlocked_text(holder: Mapping[str, Any]) -> str:
    """Return whose lock was taken away, as a person reads it."""
    if not holder:
        return "The stack was not locked."
    reason = f", for: {holder['reason']}" if holder.get("reason") else ""
    return f"The lock of {holder.get('owner')} is gone. It was held for {holder.get('verb')} since {holder.get('since')}{reason}."


def plan_rows(hostvars: Mapping[str, Any], hosts: Iterable[str]) -> list[list[str]]:
    """Return the rows of the plan: service, host, container, what is to happen to it, and why. In the order in which services start."""
    order = (*SERVICES, "")
    rows = [
        [verdict["service"], host, verdict["container"], verdict["what"], verdict["why"] or "as it should be"]
        for host in hosts
        for verdict in journal_of(hostvars, host)["containers"]
    ]

    def rank(row: list[str]) -> tuple[int, str, str]:
        return (order.index(row[0]) if row[0] in order else -1, row[1], row[2])

    return sorted(rows, key=rank)


def reached_nginx(
    groups: Mapping[str, list[str]], hostvars: Mapping[str, Any], leaving: Iterable[str], name: str, limited: bool
) -> list[str]:
    """Return the hosts whose nginx has to be told which servers to ask.

    Left out are those that were not reached in this run, and those where `name`, nginx's container, does not run: it reads the list when it
    starts. In a run that is limited to some hosts, nothing is known of the others, and they are told.
    """
    found = []
    for host in groups.get("nginx", []):
        facts = hostvars[host].get("ansible_facts") or {}
        if host in leaving:
            continue
        if "fba_containers" in facts:
            if (facts["fba_containers"].get(name) or {}).get("state") == "running":
                found.append(host)
        elif limited:
            found.append(host)
    return found


def rollback_target(record: dict[str, Any], wanted: str = "") -> dict[str, Any]:
    """Return what a rollback goes to, from the record of releases: `release`, None if there is none, and `refusals`, a sentence each.

    Without `wanted`, it is the one before the current. What the releases after the target have marked as not compatible refuses it.
    """
    releases = {each["release"]: each for each in record.get("releases", [])}
    current = releases.get(record.get("current", ""))
    known = ", ".join(releases) or "none"
    if current is None:
        return {"release": None, "refusals": ["no release is recorded here yet: deploy one first"]}
    name = wanted or current.get("previous") or ""
    if not name:
        return {"release": None, "refusals": [f"{current['release']} is the first release that is recorded: there is none before it"]}
    target = releases.get(name)
    if target is None:
        return {"release": None, "refusals": [f"fba_release is {name}: recorded are {known}"]}
    if target is current:
        return {"release": None, "refusals": [f"fba_release is {name}, which is the current release: recorded are {known}"]}
    there = target.get("incompatible") or {}
    refusals = [
        f"{file}, which {current['release']} has and {name} has not, is marked as not compatible: {reason}"
        for file, reason in (current.get("incompatible") or {}).items()
        if file not in there
    ]
    return {"release": target, "refusals": refusals}


class FilterModule:
    """Filters on runs and releases."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "failure_reason": failure_reason,
            "failure_text": failure_text,
            "image_before": image_before,
            "log_entries": log_entries,
            "outcome": outcome,
            "plan_rows": plan_rows,
            "reached_nginx": reached_nginx,
            "release_entry": release_entry,
            "release_name": release_name,
            "released_text": released_text,
            "rollback_target": rollback_target,
            "run_failures": run_failures,
            "unlocked_text": unlocked_text,
        }
