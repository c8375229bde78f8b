# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status table: what should run on each host, and what does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from ansible_collections.fba.stack.plugins.filter.container import LEAVING
from ansible_collections.fba.stack.plugins.filter.fleet import SERVICES

UPTIME = re.compile(
    r"^(?P<verb>Up|Exited|Restarting|Created|Paused|Dead)\s*(?:\((?P<code>-?\d+)\))?\s*(?P<time>[^()]*?)\s*(?:ago)?\s*(?:\((?P<health>[^)]*)\))?$"
)

DEAD_LETTERS = "dead-letter"
DELAYED = "celery_delayed_"
EVENTS = "celeryev."
REPLIES = ".celery.pidbox"
NOT_FOR_WORKERS = (DELAYED, EVENTS)


def _health(container: dict[str, Any]) -> tuple[str, str]:
    """Return (health, uptime) from what the engine says of a container: state `running`, status `Up 5 minutes (healthy)`."""
    match = UPTIME.match(container["Status"])
    time = match["time"].strip() if match else container["Status"]
    if container["State"] != "running":
        # Also a paused container is up
        ended = match and match["verb"] != "Up" and time
        return container["State"], f"stopped {time} ago" if ended else time or "-"
    if container["Names"][0].endswith(LEAVING):
        # It answers no check any more
        return "finishing", time
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
        if name.startswith(DELAYED):
            delayed += int(queue["messages_ready"])
        elif not name.endswith(REPLIES) and not name.startswith(EVENTS):
            rows.append([name, *(str(queue[key]) for key in ("messages_ready", "messages_unacknowledged", "consumers"))])
    return rows + ([["(delayed)", str(delayed), "-", "-"]] if delayed else [])


def waiting_queues(answer: str) -> list[str]:
    """Return the queues for workers in which messages wait, from what `rabbitmqctl list_queues` answers as JSON.

    Those for delays and dead letters are none: what is in them is not handed out.
    """
    queues = json.loads(answer) if answer.strip() else []
    names = [str(queue["name"]) for queue in queues if int(queue["messages_ready"])]
    return sorted(name for name in names if name != DEAD_LETTERS and not name.startswith(NOT_FOR_WORKERS) and not name.endswith(REPLIES))


def dead_letter_rows(answer: str) -> list[list[str]]:
    """Return the rows of the table of dead letters, from what roles/worker/files/dead_letters.py prints."""
    letters = json.loads(answer) if answer.strip() else []
    return [[letter[key] or "-" for key in ("task", "id", "queue", "reason", "since", "outcome")] for letter in letters]


def leader_lines(answer: str, stack: str) -> str:
    """Return a line for each program of which only one may run, from the names of the sessions that hold the locks."""
    lines = []
    for session in answer.split():
        program, _, host = session.removeprefix("singleton:").partition("@")
        lines.append(f"{program} runs on {host.removeprefix(f'{stack}-')}; elsewhere it stands by")
    return "\n".join(lines)


def maintenance_line(hosts: list[str], hostvars: Any, content: str) -> str:
    """Return a line on where maintenance is on, or nothing where it is off everywhere.

    `content` is what the file says where it is on; roles/nginx/tasks/maintenance_status.yml has registered on each host what it is.
    """
    mark = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
    on = [host for host in hosts if hostvars[host]["__nginx_maintenance_found"]["stat"].get("checksum") == mark]
    off = [host for host in hosts if host not in on]
    if not on:
        return ""
    return f"Maintenance is on at {', '.join(on)}" + (f", and off at {', '.join(off)}" if off else "")


class FilterModule:
    """Filters for the status table."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "dead_letter_rows": dead_letter_rows,
            "found_containers": found_containers,
            "leader_lines": leader_lines,
            "maintenance_line": maintenance_line,
            "queue_rows": queue_rows,
            "status_rows": status_rows,
            "waiting_queues": waiting_queues,
        }
