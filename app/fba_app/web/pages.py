"""What all pages have in common: who sees them, and what is shown when something goes wrong."""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from fba_app.problems import UnauthorizedError
from fba_app.users.access import current_user, require
from fba_app.users.principal import Permission, Principal
from fba_app.web.render import go, page

TITLES = {
    HTTPStatus.FORBIDDEN: "You may not do this",
    HTTPStatus.NOT_FOUND: "There is no such thing",
    HTTPStatus.CONFLICT: "This cannot be done now",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "This is too large",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many attempts",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Something went wrong",
    HTTPStatus.SERVICE_UNAVAILABLE: "Not available at the moment",
}

# Of this site: `//host` and `/\host` are others, and browsers pass over control characters.
LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]*")

logger = logging.getLogger(__name__)


def local(address: str | None) -> str:
    """Return an address that came with a request if it is of this site, else that of the start page."""
    return address if address and LOCAL.fullmatch(address) else "/"


async def _visitor(request: Request, user: Annotated[Principal, Depends(current_user)]) -> Principal:
    # For the menu, which pages show that say why they may not be seen, too.
    request.state.user = user
    return user


def visitor(*permissions: Permission) -> Callable[..., Awaitable[Principal]]:
    """Build the dependency of a page that only users with all of these permissions may see."""

    async def permitted(
        user: Annotated[Principal, Depends(_visitor)], _: Annotated[Principal, Depends(require(*permissions))]
    ) -> Principal:
        return user

    return permitted


Visitor = Annotated[Principal, Depends(_visitor)]


async def _explain(request: Request, error: Exception) -> Response:
    """Show as a page what the API would answer."""
    handlers = request.app.exception_handlers
    handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    answer: Response = await handler(request, error)
    if answer.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    problem = json.loads(bytes(answer.body))
    retry_after = answer.headers.get("Retry-After")
    response = page(
        request,
        "error.html",
        answer.status_code,
        title=TITLES.get(HTTPStatus(answer.status_code), "This is not understood"),
        detail=problem["detail"],
        retry=answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE,
        again=_address(request),
    )
    if retry_after:
        response.headers["Retry-After"] = retry_after
    return response


def _address(request: Request) -> str:
    """The page to come back to; what was sent to it cannot be sent again."""
    if request.method != "GET":
        return "/"
    return local(request.url.path + (f"?{request.url.query}" if request.url.query else ""))


class PageRoute(APIRoute):
    """A route for people: it tells what went wrong in HTML, and sends who is not logged in to where that is done."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Build what answers a request."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except UnauthorizedError:
                response = go("/login?" + urlencode({"next": _address(request)}))
            except Exception as error:
                response = await _explain(request, error)
            # Pages are personal, and show what was so a moment ago.
            response.headers["Cache-Control"] = "no-store"
            return response

        return answer
