# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status table: what should run on each host, and what does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from ansible_collections.fba.stack.plugins.filter.fleet import SERVICES

UPTIME = re.compile(
    r"^(?P<verb>Up|Exited|Restarting|Created|Paused|Dead)\s*(?:\((?P<code>-?\d+)\))?\s*(?P<time>[^()]*?)\s*(?:ago)?\s*(?:\((?P<health>[^)]*)\))?$"
)


def _health(container: dict[str, Any]) -> tuple[str, str]:
    """Return (health, uptime) from what the engine says of a container: state `running`, status `Up 5 minutes (healthy)`."""
    match = UPTIME.match(container["Status"])
    time = match["time"].strip() if match else container["Status"]
    if container["State"] != "running":
        # Also a paused container is up
        ended = match and match["verb"] != "Up" and time
        return container["State"], f"stopped {time} ago" if ended else time or "-"
    health = (match["health"] if match else None) or "no check"
    return health.removeprefix("health: "), time


def status_rows(found: dict[str, list[dict[str, Any]]], groups: dict[str, list[str]]) -> list[list[str]]:
    """Return the rows of the table: every container of the stack, and a row `missing` for each service that a host has none of.

    `found` maps a host to its containers as docker_host_info lists them (absent where the host was not reached); `groups` is the
    inventory's, and what else has containers of the stack. The services come in the order in which they start.
    """
    rows = []
    for service in [*SERVICES, *(name for name in ("registry",) if name in groups)]:
        for host in groups.get(service, []):
            if host not in found:
                rows.append([service, host, "-", "unreachable", "-", "-"])
                continue
            mine = [container for container in found[host] if container["Labels"].get("fba.service") == service]
            if not mine:
                rows.append([service, host, "-", "missing", "-", "-"])
            for container in sorted(mine, key=lambda one: one["Names"][0]):
                health, uptime = _health(container)
                rows.append([service, host, container["Names"][0].lstrip("/"), health, container["Image"], uptime])
    return rows


def found_containers(hosts: list[str], hostvars: Any) -> dict[str, list[dict[str, Any]]]:
    """Return host to containers, from what roles/container/tasks/find.yml has registered on each host."""
    return {host: hostvars[host]["__container_found"]["containers"] for host in hosts}


def queue_rows(answer: str) -> list[list[str]]:
    """Return the rows of the table of queues, from what `rabbitmqctl list_queues` answers as JSON.

    Celery's own queues, for replies and events, are left out. Messages in Celery's delay queues wait too: they are one row together.
    """
    queues = json.loads(answer) if answer.strip() else []
    rows, delayed = [], 0
    for queue in sorted(queues, key=lambda each: str(each["name"])):
        name = queue["name"]
        if name.startswith("celery_delayed_"):
            delayed += int(queue["messages_ready"])
        elif not name.endswith(".celery.pidbox") and not name.startswith("celeryev."):
            rows.append([name, *(str(queue[key]) for key in ("messages_ready", "messages_unacknowledged", "consumers"))])
    return rows + ([["(delayed)", str(delayed), "-", "-"]] if delayed else [])


def leader_lines(answer: str, stack: str) -> str:
    """Return a line for each program of which only one may run, from the names of the sessions that hold the locks."""
    lines = []
    for session in answer.split():
        program, _, host = session.removeprefix("singleton:").partition("@")
        lines.append(f"{program} runs on {host.removeprefix(f'{stack}-')}; elsewhere it stands by")
    return "\n".join(lines)


class FilterModule:
    """Filters for the status table."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "found_containers": found_containers,
            "leader_lines": leader_lines,
            "queue_rows": queue_rows,
            "status_rows": status_rows,
        }
