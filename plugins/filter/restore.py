# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The moment to which the stack is brought back, and the backup of PostgreSQL that leads to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

# A file of PostgreSQL's log in the archive, below the folder of a database: timeline, then two numbers, of which the second counts the 256
# files of 16 MB that are 4 GB
SEGMENT = re.compile(r"([^/]+)/(?:[^/]+/)?([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})-[0-9a-f]{40}(?:\.\w+)?")
SEGMENTS = 256
SEGMENT_BITS = 24
# And the file that says where a timeline has left the one before
HISTORY = re.compile(r"([^/]+)/([0-9A-F]{8})\.history")
LEFT = re.compile(r"\s*(\d+)\s+([0-9A-Fa-f]+)/([0-9A-Fa-f]+)")
# A place in the log is a number of 64 bits, of bytes
LOG_END = 1 << 64


def restore_moment(text: str) -> dict[str, str]:
    """Return a moment, with its offset from UTC, as `iso` and as PostgreSQL takes it, and what is wrong with it as `problem`."""
    if not text:
        return {"iso": "", "postgres": "", "problem": ""}
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        wanted = "allowed is a time with its offset from UTC, such as 2026-11-22 03:15:00+00:00, or nothing for the latest"
        return {"iso": "", "postgres": "", "problem": f"restore_time is {text!r}: {wanted}"}
    moment = moment.astimezone(UTC)
    if moment > datetime.now(UTC):
        return {"iso": "", "postgres": "", "problem": f"restore_time is {text!r}: allowed are times up to now"}
    return {"iso": moment.isoformat(sep=" "), "postgres": moment.strftime("%Y-%m-%d %H:%M:%S.%f+00"), "problem": ""}


def _made(info: str, moment: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the stanza that pgBackRest tells of, and of its backups those that had ended at a moment, the last one last."""
    found = json.loads(info)
    stanza: dict[str, Any] = found[0] if found else {"status": {"code": 1, "message": "missing stanza path"}, "archive": [], "backup": []}
    limit = datetime.fromisoformat(moment).timestamp() if moment else float("inf")
    made = [each for each in stanza["backup"] if each["timestamp"]["stop"] <= limit]
    return stanza, sorted(made, key=lambda each: float(each["timestamp"]["stop"]))


def _archive(stanza: Mapping[str, Any], backup: Mapping[str, Any]) -> str:
    """Return the folder that has the log of a backup's database: each major version has one of its own."""
    return str(next(each["id"] for each in stanza["archive"] if each["database"]["id"] == backup["database"]["id"]))


def _timelines(listing: str, archive: str) -> list[int]:
    """Return the timelines of a folder of the log: the first, which no file tells of, and those that restores have begun."""
    return sorted({1} | {int(match[2], 16) for name in json.loads(listing) if (match := HISTORY.fullmatch(name)) and match[1] == archive})


def backup_history(info: str, listing: str, moment: str = "", timeline: str = "latest") -> str:
    """Return the file in the archive of PostgreSQL's log that says where the timeline to follow comes from; nothing for the first.

    `info` is what `pgbackrest info` answers as JSON, `listing` what `repo-ls --recurse` says of the stanza's archive, `moment` as `iso` of
    restore_moment, and `timeline` a number or `latest`. What is wrong with any of them, backup_set says.
    """
    stanza, made = _made(info, moment)
    if not made:
        return ""
    archive = _archive(stanza, made[-1])
    begun = _timelines(listing, archive)[1:]
    number = begun[-1] if timeline == "latest" and begun else int(timeline) if timeline.isdecimal() else 0
    return f"{archive}/{number:08X}.history" if number in begun else ""


def _way(history: str, timeline: int) -> dict[int, int]:
    """Return the log that leads along a timeline: of each that it comes from, and of itself, the place where it ends.

    `history` is the text of the timeline's file: a line for each that it comes from, with the place where that was left.
    """
    left = filter(None, map(LEFT.match, history.splitlines()))
    return {int(match[1]): _place(match[2], match[3]) for match in left} | {timeline: LOG_END}


def _place(high: str, low: str) -> int:
    """Return a place in the log, which PostgreSQL writes as two numbers with a slash between them."""
    return (int(high, 16) << 32) + int(low, 16)


def _number(high: str, low: str) -> int:
    """Return the number of a file of the log, whatever its timeline."""
    return int(high, 16) * SEGMENTS + int(low, 16)


def _segments(listing: str, archive: str) -> Iterator[tuple[int, int]]:
    """Give of each file of the log its timeline and its number."""
    for name in json.loads(listing):
        if (match := SEGMENT.fullmatch(name)) and match[1] == archive:
            yield int(match[2], 16), _number(match[3], match[4])


def backup_set(info: str, listing: str, version: str, history: str = "", moment: str = "", timeline: str = "latest") -> dict[str, Any]:
    """Return the backup that a restore of PostgreSQL begins with, and the files of the log that it needs.

    The backup is the last one from which the log leads along the timeline: a later one can have what a restore has gone back behind.

    `info`, `listing`, `moment` and `timeline` are as for backup_history, `history` is the text of the file that it names, and `version` is
    what `postgres --version` says. Gives `label`, the database's `bytes`, as `log` how many files of the log are needed, and as `gone` the
    ends of the names of those that are not there. Where nothing can be restored it gives `problem` alone, which is empty otherwise.
    """
    stanza, made = _made(info, moment)
    # 99 is all that a wrong passphrase shows as
    if stanza["status"]["code"] == 99:
        return {"problem": f"the backups of PostgreSQL cannot be read ({stanza['status']['message']}): is fba_backup_passphrase theirs?"}
    if not stanza["backup"]:
        return {"problem": f"there is no backup of PostgreSQL ({stanza['status']['message']})"}
    if not made:
        first = datetime.fromtimestamp(min(each["timestamp"]["stop"] for each in stanza["backup"]), UTC)
        return {"problem": f"the first backup of PostgreSQL is of {first:%Y-%m-%d %H:%M:%S+00:00}: restore_time must be later"}
    database = next(each for each in stanza["db"] if each["id"] == made[-1]["database"]["id"])
    major = re.search(r"\(PostgreSQL\) (\d+)", version)
    if major is None or database["version"].partition(".")[0] != major[1]:
        has = major[1] if major else repr(version)
        return {
            "problem": f"the backup is of PostgreSQL {database['version']}, and the image has {has}: take an image of {database['version']}"
        }
    archive = _archive(stanza, made[-1])
    timelines = _timelines(listing, archive)
    if timeline not in {"latest", *map(str, timelines)}:
        return {"problem": f"restore_timeline is {timeline!r}: allowed are latest, {', '.join(map(str, timelines))}"}
    way = _way(history, timelines[-1] if timeline == "latest" else int(timeline))

    def leads(backup: Mapping[str, Any]) -> bool:
        own = int(backup["archive"]["start"][:8], 16)
        stop = _place(*backup["lsn"]["stop"].split("/"))
        return bool(backup["database"]["id"] == database["id"] and own in way and stop <= way[own])

    fitting = [each for each in made if leads(each)]
    if not fitting:
        return {
            "problem": f"no backup of PostgreSQL{' from before restore_time' if moment else ''} leads to timeline {max(way)}: "
            f"restore_timeline may be another one of {', '.join(map(str, timelines))}"
        }
    chosen = fitting[-1]
    # A backup that was begun after the moment needs no more of the log than the moment does
    limit = datetime.fromisoformat(moment).timestamp() if moment else float("inf")
    later = [_file(each, "start") for each in stanza["backup"] if each["timestamp"]["start"] > limit and leads(each)]
    there = {number for own, number in _segments(listing, archive) if own in way and number << SEGMENT_BITS < way[own]}
    last = max(_file(chosen, "stop"), min(later, default=max(there, default=0)))
    wanted = range(_file(chosen, "start"), last + 1)
    return {
        "label": chosen["label"],
        "bytes": chosen["info"]["size"],
        "log": len(wanted),
        "gone": [f"{number // SEGMENTS:08X}{number % SEGMENTS:08X}" for number in wanted if number not in there],
        "problem": "",
    }


def _file(backup: Mapping[str, Any], where: str) -> int:
    """Return the number of the file of the log in which a backup has its `start`, or its `stop`."""
    name = backup["archive"][where]
    return _number(name[8:16], name[16:24])


def backup_problems(chosen: Mapping[str, Any], verified: str) -> list[str]:
    """Return what is wrong with a backup of PostgreSQL, as backup_set gives it, in sentences.

    `verified` is what `pgbackrest verify --output=text --verbose` says, whose exit code is 0 whatever it finds. It does not miss a file of
    the log that is gone.
    """
    problems = []
    status = re.search(r"(?m)^\s*status:\s*(.+)$", verified)
    if status is None or status[1].strip() != "ok":
        problems.append(f"pgBackRest finds faults in the backup {chosen['label']} or in the log that belongs to it:\n{verified.strip()}")
    if chosen["gone"]:
        first, number = chosen["gone"][0], len(chosen["gone"])
        problems.append(f"{number} of {chosen['log']} files of PostgreSQL's log are not in the backup; the first ends with {first}")
    return problems


def recovery_hint(log: str) -> str:
    """Return what to do about the end of PostgreSQL's recovery that its log tells of, or nothing where only the log can say it."""
    if "recovery ended before configured recovery target was reached" in log:
        return "restore_time is later than the last thing that the log has: without restore_time, all of it is restored"
    return ""


class FilterModule:
    """Filters for restores."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "backup_history": backup_history,
            "backup_problems": backup_problems,
            "backup_set": backup_set,
            "recovery_hint": recovery_hint,
            "restore_moment": restore_moment,
        }
