"""The page of files."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app.dependencies import Cursor, Session
from fba_app.files import service
from fba_app.files.form import read_form
from fba_app.files.types import TYPES
from fba_app.problems import ProblemError, UnavailableError
from fba_app.settings import get_settings
from fba_app.users.principal import Permission, Principal
from fba_app.web.forms import Form
from fba_app.web.lookup import usernames
from fba_app.web.pages import PageRoute, visitor
from fba_app.web.render import go, page

ROWS = 25

router = APIRouter(route_class=PageRoute)
Writer = Annotated[Principal, Depends(visitor(Permission.FILES_WRITE))]
Everyone = Annotated[bool, Query()]


async def _files_page(
    request: Request,
    session: AsyncSession,
    user: Principal,
    form: Form,
    *,
    everyone: bool = False,
    cursor: str | None = None,
    status: int = 200,
) -> Response:
    everyone = everyone and user.may(Permission.FILES_MANAGE)
    rows, following = await service.list_files(
        session, user, everyone=everyone, purpose=None, limit=ROWS, cursor=cursor
    )
    return page(
        request,
        "files.html",
        status,
        form=form,
        faulty=form.faulty,
        rows=rows,
        owners=await usernames(session, (file.owner_id for file in rows if file.owner_id != user.id)),
        everyone=everyone,
        older=f"/files?cursor={following}" + ("&everyone=1" if everyone else "") if following else None,
        largest=get_settings().upload_max_size,
        suffixes=list(TYPES),
    )


@router.get("/files")
async def files_page(
    request: Request, user: Writer, session: Session, everyone: Everyone = False, cursor: Cursor = None
) -> Response:
    """Show the files."""
    return await _files_page(request, session, user, Form(), everyone=everyone, cursor=cursor)


@router.post("/files")
async def upload(request: Request, user: Writer, session: Session) -> Response:
    """Store a file."""
    form = Form()
    try:
        part = await read_form(request)
        if not part.name:
            form.errors["file"] = "Choose a file."
            return await _files_page(request, session, user, form, status=422)
        limit = get_settings().upload_max_size
        await service.save_upload(session, user, part.name, part.content_type, part.chunks, limit)
    except UnavailableError:
        raise
    except ProblemError as error:
        # There is one field that can be wrong.
        form.errors["file"] = error.detail
        return await _files_page(request, session, user, form, status=error.status_code)
    return go("/files", "uploaded")


@router.get("/files/{file_id}/delete")
async def ask_to_delete(request: Request, file_id: UUID, user: Writer, session: Session) -> Response:
    """Ask whether a file shall be deleted."""
    file = await service.get_file(session, user, file_id)
    return page(
        request,
        "confirm.html",
        question=f"Delete {file.name}?",
        consequence="The file is gone for good. A task that still needs it will fail.",
        back="/files",
    )


@router.post("/files/{file_id}/delete")
async def delete(file_id: UUID, user: Writer, session: Session) -> Response:
    """Delete a file."""
    await service.delete_file(session, user, file_id)
    return go("/files", "file-deleted")
