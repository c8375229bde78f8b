# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which image a data service runs, which one is wanted, and how an upgrade went."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.fba.stack.plugins.plugin_utils.upgrade import NAMES, ORDER, is_kept

STAMP = re.compile(r"-(\d{8}T\d{6}Z)$")


def kept_image(containers: Mapping[str, Any], container: str, wanted: str) -> str:
    """Return the image that a data service goes on with: its present container's, running or not, or the wanted one where it has none.

    Docker lists an image by its id once its name is gone or has become another image's. The id is then what the service goes on with.
    """
    return str(containers.get(container, {}).get("image") or wanted)


def upgradable(
    services: Mapping[str, Mapping[str, str]], containers: Mapping[str, Any], here: list[str], only: str = ""
) -> list[dict[str, str]]:
    """Return the data services of a host whose container is made from another image than the wanted one, in the order of an upgrade.

    `services` maps each to its `container`, `image` and more, which is returned with it and with the image that `runs`; `here` are those of
    the host, `only` is the one that is asked for, if it is one.
    """
    found = []
    for service in ORDER:
        about = services[service]
        runs = kept_image(containers, about["container"], about["image"])
        if service in here and only in ("", service) and runs != about["image"]:
            found.append({**about, "service": service, "runs": runs})
    return found


def upgrade_notes(found: list[dict[str, str]], host: str) -> str:
    """Return a line for each data service that could be upgraded."""
    return "\n".join(
        f"{NAMES[each['service']]} on {host}: {each['runs']} runs, {each['image']} is wanted: make upgrade"
        + f" (fba.stack.upgrade -e upgrade_service={each['service']})"
        for each in found
    )


def upgrade_rows(hosts: list[str], hostvars: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of the closing table, in the order in which the services were upgraded."""
    rows = []
    for service in ORDER:
        for host in hosts:
            plan = hostvars[host]["ansible_facts"].get("fba_upgrades", {}).get(service)
            if plan and "seconds" in plan:
                rows.append([service, host, plan["from"], plan["to"], plan["backup"], str(plan["seconds"])])
    return rows


def upgrade_failures(hosts: list[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Return why upgrades have failed that were taken back."""
    plans = [plan for host in hosts for plan in hostvars[host]["ansible_facts"].get("fba_upgrades", {}).values()]
    return [plan["failed"] for plan in plans if plan.get("failed")]


def upgrade_outage(hosts: list[str], hostvars: Mapping[str, Any]) -> bool:
    """Return whether an upgrade that was planned on one of these hosts is one that the application has to stop for."""
    return any(
        plan["rebuilds"]
        for host in hosts
        if host in hostvars
        for plan in hostvars[host].get("ansible_facts", {}).get("fba_upgrades", {}).values()
    )


def surplus_backups(paths: list[str], kept: int) -> list[str]:
    """Return the backups beyond the newest `kept`, by the time at the end of their names. What has no such name is not one."""
    dated = sorted((path for path in paths if STAMP.search(path)), key=lambda path: path[-16:])
    return dated[:-kept] if kept > 0 else []


def database_dumps(answer: str, folder: str) -> list[dict[str, str]]:
    """Return `name` and `file` of each database, from one name in each line. A name may have any character; a file's name may not."""
    return [{"name": name, "file": f"{folder}/{urllib.parse.quote(name, safe='')}.dump"} for name in answer.splitlines() if name]


def conninfo(database: str) -> str:
    """Return how libpq's programs are told a database's name, which by itself they may take for a whole connection string."""
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def kept_containers(containers: list[dict[str, Any]], stack: str) -> list[str]:
    """Return the containers that an upgrade of PostgreSQL has put aside and not removed, as docker_host_info lists them all."""
    names = [container["Names"][0].lstrip("/") for container in containers]
    return [name for name in names if is_kept(stack, name)]


def queues_kept(after: str, before: str) -> bool:
    """Return whether RabbitMQ has lost nothing, from what it has answered before and after: durable queues, messages, deliveries.

    Before, no client was there. Since then some may be back and consume, so what was delivered after the start counts as well.
    """
    queues, messages, _delivered = (int(number) for number in re.findall(r"\d+", before))
    queues_now, messages_now, delivered = (int(number) for number in re.findall(r"\d+", after))
    return queues_now >= queues and messages_now + delivered >= messages


class FilterModule:
    """Filters on upgrades."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "conninfo": conninfo,
            "database_dumps": database_dumps,
            "kept_containers": kept_containers,
            "kept_image": kept_image,
            "queues_kept": queues_kept,
            "surplus_backups": surplus_backups,
            "upgradable": upgradable,
            "upgrade_failures": upgrade_failures,
            "upgrade_notes": upgrade_notes,
            "upgrade_outage": upgrade_outage,
            "upgrade_rows": upgrade_rows,
        }
