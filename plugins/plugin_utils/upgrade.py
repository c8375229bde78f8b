# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which versions of a data service may follow each other, and what an upgrade needs before it begins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Version = tuple[int, ...]

NAMES = {"postgres": "PostgreSQL", "redis": "Redis", "rabbitmq": "RabbitMQ"}
# The order of an upgrade: what the fewest depend on comes first, and the one that may stop the application last
ORDER = ("rabbitmq", "redis", "postgres")
# Where each says its version: `postgres (PostgreSQL) 17.6 (Debian …)`, `Redis server v=8.0.2 sha=…`, `4.0.5`
SAYS = {
    "postgres": re.compile(r"\(PostgreSQL\) (\d+(?:\.\d+)*)"),
    "redis": re.compile(r"\bv=(\d+(?:\.\d+)*)"),
    "rabbitmq": re.compile(r"(?m)^(\d+\.\d+(?:\.\d+)*)"),
}
# Series of RabbitMQ to those that it may be upgraded to, besides its own. Up to 4.0 by the table "RabbitMQ Version Upgradability" of
# https://www.rabbitmq.com/docs/4.0/upgrade; then by "Upgrading to …" in the release notes of 4.1.0, 4.2.0 and 4.3.0
# (https://github.com/rabbitmq/rabbitmq-server/tree/main/release-notes): 4.3 wants every feature flag of 4.2, so it comes after 4.2 alone
RABBITMQ_PATHS: dict[Version, tuple[Version, ...]] = {
    (3, 8): ((3, 9),),
    (3, 9): ((3, 10),),
    (3, 10): ((3, 11),),
    (3, 11): ((3, 12),),
    (3, 12): ((3, 13),),
    (3, 13): ((4, 0), (4, 1), (4, 2)),
    (4, 0): ((4, 1), (4, 2)),
    (4, 1): ((4, 2),),
    (4, 2): ((4, 3),),
}
# 3.12 wants a feature flag that 3.11 has from this release on; the same table has it
RABBITMQ_311: Version = (3, 11, 18)
# What the disk has to hold beyond twice the volume
MARGIN = 10**9


def version_in(service: str, answer: str) -> Version | None:
    """Return the version in what a service's own command answers, or None where there is none."""
    match = SAYS[service].search(answer)
    return tuple(int(part) for part in match[1].split(".")) if match else None


def shown(version: Version) -> str:
    """Return a version as people write it."""
    return ".".join(str(part) for part in version)


def major(service: str, version: Version) -> Version:
    """Return the part of a version that says whether two of them open the same data: PostgreSQL's first number, before 10 the first two."""
    return version[:1] if service == "postgres" and version[0] >= 10 else version[:2]


def rebuilds_data(service: str, start: Version, end: Version) -> bool:
    """Return whether the data has to be dumped and restored."""
    return service == "postgres" and major(service, start) != major(service, end)


def _rabbitmq_targets(start: Version) -> tuple[Version, ...]:
    """Return the series that a release of RabbitMQ may be upgraded to, its own left out."""
    if start[:2] == (3, 11) and start < RABBITMQ_311:
        return ()
    # Of a series that is not in the table, the next is all that is known to be meant
    return RABBITMQ_PATHS.get(start[:2], ((start[0], start[1] + 1),) if start[:2] > max(RABBITMQ_PATHS) else ())


def jump_refusal(service: str, start: Version, end: Version) -> str | None:
    """Return why a service cannot go from one version to the other, or None where it can."""
    name = NAMES[service]
    if end < start:
        return (
            f"{name} {shown(start)} runs, and {shown(end)} is wanted: no older version opens its data; allowed are {shown(start)} or newer"
        )
    if service != "rabbitmq" or start[:2] == end[:2] or end[:2] in _rabbitmq_targets(start):
        return None
    own = shown(start[:2])
    if start[:2] == (3, 11) and start < RABBITMQ_311:
        own = f"{shown(RABBITMQ_311)} or a newer {own}"
    allowed = [own, *(shown(series) for series in _rabbitmq_targets(start))]
    return f"{name} {shown(start)} runs, and {shown(end)} is wanted: allowed from here are {', '.join(allowed)}; go there first"


def kept_volume(stack: str, version: Version) -> str:
    """Return the name of the volume, and of the container while it is needed, in which PostgreSQL of an older major version is kept."""
    return f"{stack}_postgres_{'_'.join(str(part) for part in major('postgres', version))}"


def is_kept(stack: str, name: str) -> bool:
    """Return whether this is the name of a container that an upgrade of PostgreSQL has put aside."""
    return re.fullmatch(rf"{re.escape(stack)}_postgres_\d+(_\d+)?", name) is not None


def space_refusal(service: str, size: int, free: int, folder: str) -> str | None:
    """Return why a disk cannot take what an upgrade of a volume of `size` bytes writes, or None where it can."""
    needed = 2 * size + MARGIN
    if free >= needed:
        return None
    return (
        f"{NAMES[service]} has {size / 10**9:.1f} GB of data, and {folder} has {free / 10**9:.1f} GB of free space: allowed are"
        f" {needed / 10**9:.1f} GB or more, twice the data and 1 GB"
    )


def refusals(stack: str, plans: Mapping[str, Mapping[str, Any]], usage: Mapping[str, Any], folder: str) -> list[str]:
    """Return every reason for which nothing is upgraded.

    `plans` maps each service to its versions `start` and `end`; None is one that could not be read. `usage` is what the module
    fba.stack.volume_usage has returned, `folder` where backups go.
    """
    problems: list[str | None] = []
    for service, plan in plans.items():
        start, end = plan["start"], plan["end"]
        name, volume = NAMES[service], f"{stack}_{service}"
        if start is None or end is None:
            which = "that runs" if start is None else "that is wanted"
            problems.append(f"the image of {name} {which} does not tell its version: allowed are images with {name}'s own programs")
            continue
        problems.append(jump_refusal(service, start, end))
        size = usage["volumes"].get(volume, {}).get("bytes", 0)
        problems.append(space_refusal(service, size, usage["free"], folder))
        if rebuilds_data(service, start, end):
            problems.append(space_refusal(service, size, usage["docker_free"], "the folder of Docker's volumes"))
            kept = kept_volume(stack, start)
            if kept in usage["volumes"]:
                problems.append(
                    f"the volume {kept} is there already, from an earlier upgrade: remove it if nobody needs it any more"
                    f" (docker volume rm {kept})"
                )
    return [problem for problem in problems if problem]
