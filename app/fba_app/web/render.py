"""Templates, and how they write numbers and times."""

import hashlib
import json
import os
from datetime import datetime
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fba_app.settings import get_settings
from fba_app.users.principal import Permission, Principal

HERE = Path(__file__).parent
STATIC = HERE.parent / "static"

NOTICES = {
    "cancelled": "The task is being cancelled.",
    "ended": "The session has ended.",
    "file-deleted": "The file is deleted.",
    "logged-out": "You are logged out.",
    "password": "Your password is changed. Log in with the new one.",
    "schedule-changed": "The schedule is changed.",
    "schedule-created": "The schedule is created.",
    "schedule-deleted": "The schedule is deleted.",
    "schedule-run": "A task of this schedule is accepted.",
    "started": "The task is accepted.",
    "uploaded": "The file is uploaded.",
}
"""What a page may say has just been done. An address names it: a page that is loaded again does nothing again."""

MENU = {
    "/": ("Tasks", Permission.TASKS_SUBMIT),
    "/files": ("Files", Permission.FILES_WRITE),
    "/schedules": ("Schedules", Permission.SCHEDULES_MANAGE),
    "/stack": ("Stack", Permission.STACK_READ),
}
"""Addresses, their names, and the permission that each needs."""


@lru_cache
def _asset(name: str) -> str:
    # Caches may keep a file for as long as they like: a new version has a new address. While two releases serve, it is
    # also how a page gets the files of its own release.
    version = os.environ.get("FBA_RELEASE") or hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?{urlencode({'v': version})}"


def label(name: str) -> str:
    """Write a name of the API for people: `file_id` is File, `group_by` is Group by."""
    return name.removesuffix("_id").replace("_", " ").capitalize()


def when(moment: datetime) -> Markup:
    """Write a time in the settings' time zone; the page's script changes that to the reader's."""
    local = moment.astimezone(ZoneInfo(get_settings().timezone))
    written = f"{local.day} {local:%b %Y, %H:%M %Z}"
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), written)


def duration(seconds: float) -> str:
    """Write seconds in the two largest units that they fill."""
    if seconds < 0.1:
        return "less than 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    rest, parts = round(seconds), []
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        number, rest = divmod(rest, length)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


def size(number: float) -> str:
    """Write a number of bytes."""
    if number < 1024:
        return f"{number:.0f} bytes"
    for unit in ("KiB", "MiB"):
        number /= 1024
        if number < 1024:
            return f"{number:.1f}".removesuffix(".0") + f" {unit}"
    return f"{number / 1024:.1f} GiB"


def figure(value: float | str | None) -> str:
    """Write what a statistic may be."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if value and not 1e-3 <= abs(value) < 1e15:
        return f"{value:.5g}"
    return f"{value:,.4f}".rstrip("0").rstrip(".")


BROWSERS = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
SYSTEMS = {
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Windows": "Windows",
    "Mac OS": "macOS",
    "Linux": "Linux",
}
"""How browsers say what they are, each of them before those that it claims to be as well."""


def program(agent: str) -> str:
    """Write what a request's header says of the program that sent it."""
    browser = next((name for mark, name in BROWSERS.items() if mark in agent), None)
    system = next((name for mark, name in SYSTEMS.items() if mark in agent), None)
    if browser and system:
        return f"{browser} on {system}"
    return browser or agent or "A program without a name"


def _menu(user: Principal) -> list[tuple[str, str]]:
    return [(address, name) for address, (name, needed) in MENU.items() if user.may(needed)]


def start_page(user: Principal) -> str:
    """Return the address of the first page that this user may see."""
    return next((address for address, _ in _menu(user)), "/account")


def _context(request: Request) -> dict[str, Any]:
    user: Principal | None = getattr(request.state, "user", None)
    section = "/" + request.url.path.split("/")[1]
    return {
        "user": user,
        "menu": _menu(user) if user else [],
        "here": "/" if section == "/tasks" else section,
        "notice": NOTICES.get(request.query_params.get("done", "")),
    }


_environment = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals["asset"] = _asset
_environment.filters |= {
    "bytes": size,
    "duration": duration,
    "figure": figure,
    "file_url": lambda file_id: f"/api/v1/files/{file_id}/content",
    "first_paragraph": lambda text: text.partition("\n\n")[0],
    "label": label,
    "program": program,
    "thousands": "{:,}".format,
    "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    "when": when,
}
_templates = Jinja2Templates(env=_environment, context_processors=[_context])


def page(request: Request, template: str, status: int = HTTPStatus.OK, **values: Any) -> Response:  # noqa: ANN401
    """Render a page."""
    return _templates.TemplateResponse(request, template, values, status)


def go(address: str, done: str | None = None) -> Response:
    """Have the browser load a page of this site, and say on it what was done."""
    if done:
        address += ("&" if "?" in address else "?") + urlencode({"done": done})
    return RedirectResponse(address, HTTPStatus.SEE_OTHER)
