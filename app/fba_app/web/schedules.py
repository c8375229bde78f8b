"""The pages of schedules."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app.dependencies import Cursor, Session
from fba_app.paging import page as page_of_rows
from fba_app.problems import ProblemError
from fba_app.schedules import service
from fba_app.schedules.models import Schedule
from fba_app.schedules.routes import NewSchedule
from fba_app.settings import get_settings
from fba_app.tasks.registry import KINDS
from fba_app.users.principal import Permission, Principal
from fba_app.web import kinds
from fba_app.web.forms import Form, Posted
from fba_app.web.lookup import file_names
from fba_app.web.pages import PageRoute, visitor
from fba_app.web.render import go, page
from fba_app.web.tasks import form_values, known_kind

ROWS = 25

router = APIRouter(route_class=PageRoute)
Manager = Annotated[Principal, Depends(visitor(Permission.SCHEDULES_MANAGE))]


@router.get("/schedules")
async def schedules_page(request: Request, _: Manager, session: Session, cursor: Cursor = None) -> Response:
    """Show the schedules."""
    rows, following = await page_of_rows(session, select(Schedule), Schedule, ROWS, cursor)
    shapes = [kinds.shape_of(row.kind, row.arguments) for row in rows]
    files = await file_names(session, (file_id for _, ids in shapes for file_id in ids))
    return page(
        request,
        "schedules.html",
        rows=[(row, shape.title(row.kind, row.arguments, files)) for row, (shape, _) in zip(rows, shapes, strict=True)],
        older=f"/schedules?cursor={following}" if following else None,
    )


async def _form_page(
    request: Request,
    session: AsyncSession,
    user: Principal,
    kind: str,
    form: Form,
    *,
    schedule: Schedule | None = None,
    status: int = 200,
) -> Response:
    return page(
        request,
        "schedule.html",
        status,
        form=form,
        faulty=form.faulty,
        heading=schedule.name if schedule else "New schedule",
        new=schedule is None,
        action=f"/schedules/{schedule.id}" if schedule else "/schedules/new",
        timezone=get_settings().timezone,
        **await form_values(session, user, kind, kinds.posted_page(kind, form)),
    )


def _read(kind: str, form: Form) -> NewSchedule | None:
    """Return what a form holds; None if it is wrong, of which the form then knows."""
    task: dict[str, Any] = {"kind": kind, "arguments": kinds.posted_page(kind, form).read(form)}
    if form.faulty:
        return None
    try:
        return NewSchedule.model_validate(
            {
                "name": form.text("name"),
                "task": task,
                "crontab": " ".join(form.text("crontab").split()) or None,
                "every": form.number("every"),
                "enabled": bool(form.text("enabled")),
            }
        )
    except ValidationError as error:
        form.refuse(error, kind)
        return None


def _start(kind: str, **values: str) -> Form:
    form = kinds.page_of(kind).start(KINDS[kind])
    form.values |= {name: [value] for name, value in values.items()}
    return form


def _present(schedule: Schedule, kind: str) -> Form:
    form = kinds.filled(KINDS[kind], schedule.arguments) if kind == schedule.kind else _start(kind)
    form.values |= {
        "name": [schedule.name],
        "crontab": [schedule.crontab or ""],
        "every": [str(schedule.every or "")],
        "enabled": ["yes"] if schedule.enabled else [],
    }
    return form


@router.get("/schedules/new")
async def new_page(request: Request, user: Manager, session: Session, kind: str | None = None) -> Response:
    """Show the form of a new schedule."""
    name = known_kind(kind)
    return await _form_page(request, session, user, name, _start(name, enabled="yes"))


@router.post("/schedules/new")
async def create(request: Request, user: Manager, session: Session, form: Posted, kind: str | None = None) -> Response:
    """Make a schedule."""
    name, status = known_kind(kind), 422
    try:
        if asked := _read(name, form):
            await service.create(
                session,
                user,
                name=asked.name,
                task=asked.task,
                crontab=asked.crontab,
                every=asked.every,
                enabled=asked.enabled,
            )
            return go("/schedules", "schedule-created")
    except ProblemError as error:
        await session.rollback()
        status = form.refuse(error, name)
    return await _form_page(request, session, user, name, form, status=status)


@router.get("/schedules/{schedule_id}")
async def edit_page(
    request: Request, schedule_id: UUID, user: Manager, session: Session, kind: str | None = None
) -> Response:
    """Show the form of a schedule."""
    schedule = await service.get(session, schedule_id)
    name = known_kind(kind or schedule.kind)
    return await _form_page(request, session, user, name, _present(schedule, name), schedule=schedule)


@router.post("/schedules/{schedule_id}")
async def change(
    request: Request, schedule_id: UUID, user: Manager, session: Session, form: Posted, kind: str | None = None
) -> Response:
    """Change a schedule."""
    schedule = await service.get(session, schedule_id)
    name, status = known_kind(kind or schedule.kind), 422
    try:
        if asked := _read(name, form):
            await service.change(
                session,
                user,
                schedule_id,
                name=asked.name,
                task=asked.task,
                crontab=asked.crontab,
                every=asked.every,
                enabled=asked.enabled,
            )
            return go("/schedules", "schedule-changed")
    except ProblemError as error:
        await session.rollback()
        status = form.refuse(error, name)
        schedule = await service.get(session, schedule_id)
    return await _form_page(request, session, user, name, form, schedule=schedule, status=status)


@router.post("/schedules/{schedule_id}/run")
async def run(schedule_id: UUID, user: Manager, session: Session) -> Response:
    """Run a schedule's task now."""
    await service.run(session, user, schedule_id, None)
    return go("/schedules", "schedule-run")


@router.post("/schedules/{schedule_id}/enable")
async def enable(schedule_id: UUID, user: Manager, session: Session) -> Response:
    """Enable a schedule."""
    await service.change(session, user, schedule_id, enabled=True)
    return go("/schedules", "schedule-changed")


@router.post("/schedules/{schedule_id}/disable")
async def disable(schedule_id: UUID, user: Manager, session: Session) -> Response:
    """Disable a schedule."""
    await service.change(session, user, schedule_id, enabled=False)
    return go("/schedules", "schedule-changed")


@router.get("/schedules/{schedule_id}/delete")
async def ask_to_delete(request: Request, schedule_id: UUID, _: Manager, session: Session) -> Response:
    """Ask whether a schedule shall be deleted."""
    schedule = await service.get(session, schedule_id)
    return page(
        request,
        "confirm.html",
        question=f"Delete {schedule.name}?",
        consequence="No task will come of it any more. The tasks that came of it stay.",
        back="/schedules",
    )


@router.post("/schedules/{schedule_id}/delete")
async def delete(schedule_id: UUID, user: Manager, session: Session) -> Response:
    """Delete a schedule."""
    await service.delete(session, user, schedule_id)
    return go("/schedules", "schedule-deleted")
