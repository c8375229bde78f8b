"""The start page, with a form for each kind of task and the tasks that there are; and a page for each task."""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app.audit.record import record
from fba_app.dependencies import Cursor, Session
from fba_app.files.models import File
from fba_app.paging import page as page_of_rows
from fba_app.problems import ConflictError, NotFoundError, ProblemError
from fba_app.settings import get_settings
from fba_app.tasks import service
from fba_app.tasks.models import FINAL, State, Task
from fba_app.tasks.progress import Progress
from fba_app.tasks.registry import KINDS
from fba_app.tasks.requests import AnyTaskRequest, TaskRequest
from fba_app.users.principal import Permission, Principal
from fba_app.web import kinds
from fba_app.web.forms import Form, Posted
from fba_app.web.lookup import file_names, usernames
from fba_app.web.pages import PageRoute, Visitor, local, visitor
from fba_app.web.render import go, label, page, start_page

ROWS = 15
FILES = 100
"""How many files a form offers."""

STATES = {State.WAITING: "Running"}
"""Where the name of a state would say too much of how it works."""

FILTERS = {"": "All", "running": "Unfinished", "succeeded": "Succeeded", "failed": "Failed"}
UNFINISHED = [state for state in State if state not in FINAL]

REQUEST: TypeAdapter[AnyTaskRequest] = TypeAdapter(TaskRequest)

router = APIRouter(route_class=PageRoute)
Submitter = Annotated[Principal, Depends(visitor(Permission.TASKS_SUBMIT))]


@dataclass(frozen=True)
class Item:
    """A task as the pages show it."""

    task: Task
    title: str
    kind: str
    state: str
    ended: bool
    percent: float
    message: str
    owner: str | None
    outcome: str
    facts: list[tuple[str, str]]
    downloads: list[tuple[str, str]]
    """Identifiers of files and what to call them."""
    result_template: str


def _item(
    task: Task, shape: kinds.KindPage, known: dict[UUID, Progress], files: dict[UUID, str], owner: str | None
) -> Item:
    percent, message = known.get(task.id, Progress(0.0, ""))
    result = task.result if task.state == State.SUCCEEDED else None
    reports = result["files"] if result and task.kind == "report" else []
    return Item(
        task=task,
        title=shape.title(task.kind, task.arguments, files),
        kind=label(task.kind),
        state=STATES.get(State(task.state), label(task.state)),
        ended=task.state in FINAL,
        percent=percent,
        message=message,
        owner=owner,
        outcome=shape.outcome(result) if result else "",
        facts=shape.facts(task.arguments, files),
        downloads=[(file["id"], file["name"].rpartition(".")[2].upper()) for file in reports],
        result_template=f"kinds/{shape.template}_result.html",
    )


async def _items(session: AsyncSession, user: Principal, tasks: Sequence[Task]) -> list[Item]:
    shapes = [kinds.shape_of(task.kind, task.arguments) for task in tasks]
    known = await service.percent(list(tasks))
    files = await file_names(session, (file_id for _, ids in shapes for file_id in ids))
    # One's own name on each of one's own tasks says nothing.
    owners = await usernames(session, (task.submitted_by for task in tasks if task.submitted_by != user.id))
    return [
        _item(task, shape, known, files, owners.get(task.submitted_by))
        for task, (shape, _) in zip(tasks, shapes, strict=True)
    ]


async def file_choices(session: AsyncSession, user: Principal, kind: str) -> list[tuple[str, str]]:
    """Return the files that a form can offer for this kind of task: identifiers and names."""
    if kind not in ("pipeline", "email"):
        return []
    query = select(File).where(File.owner_id == user.id)
    if kind == "pipeline":
        query = query.where(File.content_type == "text/csv")
    rows = await session.scalars(query.order_by(File.created_at.desc()).limit(FILES))
    return [(str(file.id), file.name) for file in rows]


async def form_values(session: AsyncSession, user: Principal, kind: str, shape: kinds.KindPage) -> dict[str, Any]:
    """Return what the templates of a form for this kind of task need."""
    return {
        "chosen": KINDS[kind],
        "kinds": kinds.public_kinds(),
        "unavailable": KINDS[kind].unavailable(get_settings()),
        "fields_template": f"kinds/{shape.template}_fields.html",
        "files": await file_choices(session, user, kind),
        "samples": list(enumerate(kinds.SAMPLES)),
    }


def known_kind(name: str | None) -> str:
    """Return the kind that an address names.

    Raises:
        NotFoundError: there is none.
    """
    if name is None:
        return kinds.public_kinds()[0]
    if name not in kinds.public_kinds():
        raise NotFoundError("There is no such kind of task.")
    return name


def _link(**parameters: str | None) -> str:
    chosen = {name: value for name, value in parameters.items() if value}
    return f"/?{urlencode(chosen)}" if chosen else "/"


@dataclass(frozen=True)
class Shown:
    """Which tasks the list shows, and which form stands beside it."""

    kind: Annotated[str | None, Query()] = None
    show: Annotated[str, Query(max_length=20)] = ""
    everyone: Annotated[str | None, Query(max_length=1)] = None
    cursor: Cursor = None

    def link(self, **other: str | None) -> str:
        """Return the address of the same but for something, from the first task on."""
        return _link(**{"kind": self.kind, "show": self.show, "everyone": self.everyone} | other)


async def _home(
    request: Request, session: AsyncSession, user: Principal, shown: Shown, form: Form | None = None, status: int = 200
) -> Response:
    kind = known_kind(shown.kind)
    shape = kinds.posted_page(kind, form) if form else kinds.page_of(kind)
    if form is None:
        form = shape.start(KINDS[kind])
        if file_id := request.query_params.get("file_id"):
            form.values["file_id"] = [file_id]
    everyone = bool(shown.everyone) and user.may(Permission.TASKS_MANAGE)
    query = service.visible(user, everyone)
    if shown.show == "running":
        query = query.where(Task.state.in_(UNFINISHED))
    elif shown.show in FILTERS and shown.show:
        query = query.where(Task.state == shown.show)
    tasks, following = await page_of_rows(session, query, Task, ROWS, shown.cursor)
    filters = [(shown.link(show=name), text, shown.show == name) for name, text in FILTERS.items()]
    if user.may(Permission.TASKS_MANAGE):
        filters.append((shown.link(everyone=None if everyone else "1"), "Everyone's", everyone))
    return page(
        request,
        "home.html",
        status,
        form=form,
        faulty=form.faulty,
        once=secrets.token_urlsafe(16),
        items=await _items(session, user, tasks),
        everyone=everyone,
        filters=filters,
        filtered=bool(shown.show),
        back=shown.link(cursor=shown.cursor),
        older=shown.link(cursor=following) if following else None,
        **await form_values(session, user, kind, shape),
    )


@router.get("/")
async def home(request: Request, user: Visitor, session: Session, shown: Annotated[Shown, Depends()]) -> Response:
    """Show what can be run, and what runs."""
    if not user.may(Permission.TASKS_SUBMIT):
        return go(start_page(user))
    return await _home(request, session, user, shown)


@router.post("/")
async def submit(
    request: Request, user: Submitter, session: Session, form: Posted, shown: Annotated[Shown, Depends()]
) -> Response:
    """Submit a task."""
    kind = known_kind(shown.kind)
    arguments = kinds.posted_page(kind, form).read(form)
    if form.faulty:
        return await _home(request, session, user, shown, form, 422)
    # A form that is sent twice by a second click is one request; the same form with another content is another one.
    once = hashlib.sha256(json.dumps([form.text("once"), kind, arguments]).encode()).hexdigest()
    try:
        asked = REQUEST.validate_python({"kind": kind, "arguments": arguments})
        await service.submit(session, user, asked, once if form.text("once") else None)
    except (ValidationError, ProblemError) as error:
        await session.rollback()
        return await _home(request, session, user, shown, form, form.refuse(error, kind))
    return go(_link(kind=kind), "started")


@router.get("/tasks/{task_id}")
async def task_page(request: Request, task_id: UUID, user: Submitter, session: Session) -> Response:
    """Show a task."""
    (item,) = await _items(session, user, [await service.get(session, user, task_id)])
    return page(request, "task.html", item=item)


@router.post("/tasks/{task_id}/cancel")
async def cancel(task_id: UUID, user: Submitter, session: Session, form: Posted) -> Response:
    """Cancel a task. One that has just ended by itself shows that it has."""
    task = await service.get(session, user, task_id)
    record(session, user, "task.cancel", task_id, kind=task.kind)
    back = local(form.text("next"))
    try:
        await service.cancel(session, task)
    except ConflictError:
        return go(back)
    return go(back, "cancelled")
