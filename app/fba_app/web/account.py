"""The pages to log in, and what concerns oneself."""

from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from fba_app.audit.record import record
from fba_app.dependencies import Session
from fba_app.problems import ForbiddenError, ProblemError, TooManyRequestsError, UnauthorizedError
from fba_app.users import passwords, service, sessions
from fba_app.users.access import check_same_origin, clear_cookie, optional_user, set_cookie
from fba_app.users.login_routes import LoginRequest, PasswordChange
from fba_app.users.principal import Principal
from fba_app.web.forms import Form, Posted
from fba_app.web.pages import PageRoute, Visitor, local
from fba_app.web.render import go, page

SESSIONS = 10
"""How many the page shows."""

router = APIRouter(route_class=PageRoute)


def _login_page(request: Request, form: Form, status: int = 200) -> Response:
    return page(request, "login.html", status, form=form, faulty=form.faulty)


@router.get("/login")
async def login_page(request: Request, next: str | None = None) -> Response:  # noqa: A002
    """Show the form to log in with, unless that is done."""
    if await optional_user(request):
        return go(local(next))
    return _login_page(request, Form({"next": [local(next)]}))


@router.post("/login")
async def log_in(request: Request, form: Posted, session: Session) -> Response:
    """Log in, and go on to where one wanted to."""
    # Another site must not log anyone in as somebody else.
    check_same_origin(request)
    try:
        asked = LoginRequest(username=form.text("username"), password=form.text("password"))
        logged_in = await service.log_in(session, asked.username, asked.password, request)
    except (ValidationError, UnauthorizedError, TooManyRequestsError) as error:
        return _login_page(request, form, form.refuse(error))
    response = go(local(form.text("next")))
    set_cookie(response, request, logged_in.cookie)
    return response


@router.post("/logout")
async def log_out(request: Request, session: Session) -> Response:
    """Log out; it is no mistake to do so twice."""
    if user := await optional_user(request):
        await service.log_out(session, user)
    response = go("/login", "logged-out")
    clear_cookie(response)
    return response


async def _account_page(request: Request, user: Principal, form: Form, status: int = 200) -> Response:
    return page(
        request,
        "account.html",
        status,
        form=form,
        faulty=form.faulty,
        sessions=await sessions.of_user(user.id),
        shown=SESSIONS,
        shortest=passwords.MIN_LENGTH,
    )


@router.get("/account")
async def account(request: Request, user: Visitor) -> Response:
    """Show what concerns oneself."""
    return await _account_page(request, user, Form())


@router.post("/account")
async def change_password(request: Request, user: Visitor, form: Posted, session: Session) -> Response:
    """Change one's password."""
    names = ("present_password", "new_password")
    try:
        asked = PasswordChange.model_validate({name: form.text(name) for name in names})
        if form.text("new_password_again") != asked.new_password:
            form.errors["new_password_again"] = "This is not the same as above."  # noqa: S105
            return await _account_page(request, user, form, 422)
        await service.change_password(session, user, asked.present_password, asked.new_password)
    except ForbiddenError as error:
        form.errors["present_password"] = error.detail
        return await _account_page(request, user, form, 422)
    except (ValidationError, ProblemError) as error:
        return await _account_page(request, user, form, form.refuse(error))
    response = go("/login", "password")
    clear_cookie(response)
    return response


@router.post("/account/sessions/end")
async def end_sessions(user: Visitor, session: Session) -> Response:
    """Log out everywhere, here too."""
    await sessions.end_all(user.id)
    record(session, user, "session.end_all")
    await session.commit()
    response = go("/login", "logged-out")
    clear_cookie(response)
    return response


@router.post("/account/sessions/{session_id}/end")
async def end_session(session_id: UUID, user: Visitor, session: Session) -> Response:
    """Log out elsewhere; where that is done already, there is nothing to complain about."""
    if await sessions.end(user.id, str(session_id)):
        record(session, user, "session.end", session_id)
        await session.commit()
    return go("/account", "ended")
