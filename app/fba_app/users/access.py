"""Who asks, and what they may do: what every route depends on.

user: Annotated[Principal, Depends(require(Permission.TASKS_SUBMIT))]
"""

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated

from fastapi import Depends, Request, Response, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import db
from fba_app.problems import ForbiddenError, UnauthorizedError
from fba_app.users import sessions
from fba_app.users.models import Role, User
from fba_app.users.principal import Permission, Principal

COOKIE = "fba_session"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

bearer = HTTPBearer(auto_error=False, scheme_name="token", description="The `access_token` of `/api/v1/auth/login`.")
cookie = APIKeyCookie(
    name=COOKIE,
    auto_error=False,
    scheme_name="cookie",
    description="Of a browser that has logged in. What changes something must come from this site's own pages.",
)


def _ip(address: str | None) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(address or "")
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def client_address(request: Request) -> str:
    """Return where a request comes from: what nginx says, if the peer can be nginx, else the peer."""
    peer = _ip(request.client.host if request.client else None)
    if peer is None:
        return "unknown"
    named = _ip(request.headers.get("X-Real-IP")) if peer.is_private else None
    # Without an interface's name, which is anything that the client likes.
    return str(named or peer).partition("%")[0]


def check_same_origin(request: Request) -> None:
    """Refuse a request that a page of another site made the browser send.

    Raises:
        ForbiddenError: it is one, or the browser does not say.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        # `none` is the user's own doing, such as a bookmark.
        same = site in ("same-origin", "none")
    else:
        # Browsers leave the other header out where there is no HTTPS.
        origin = request.headers.get("Origin", "").partition("://")[2]
        same = origin != "" and origin == request.headers.get("Host")
    if not same:
        raise ForbiddenError("With a cookie, this must be asked by a page of this site.")


def set_cookie(response: Response, request: Request, value: str) -> None:
    """Give a browser its session. How long it lasts is for the server to say, at most until the browser is closed."""
    scheme = request.headers.get("X-Forwarded-Proto", request.url.scheme)
    response.set_cookie(COOKIE, value, httponly=True, samesite="lax", secure=scheme == "https")


def clear_cookie(response: Response) -> None:
    """Take a browser's session away."""
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")


async def principal(session: AsyncSession, claim: sessions.Claim, address: str) -> Principal | None:
    """Return the user whose session it is, as of now; None if that user is gone, disabled or in another epoch."""
    query = (
        select(User.username, Role.permissions)
        .outerjoin(User.roles)
        .where(User.id == claim.user_id, User.epoch == claim.epoch, User.disabled.is_(False))
    )
    rows = (await session.execute(query)).all()
    if not rows:
        return None
    held = {permission for row in rows for permission in row.permissions or ()}
    return Principal(
        id=claim.user_id,
        username=rows[0].username,
        permissions=frozenset(permission for permission in Permission if permission in held),
        session_id=claim.session_id,
        address=address,
    )


async def optional_user(request: Request) -> Principal | None:
    """Return the user that the request's token, or else its cookie, names; None if it names nobody who may come in.

    Raises:
        ForbiddenError: the cookie is right, but a page of another site may have sent it.
    """
    claim: sessions.Claim | None = None
    if token := await bearer(request):
        if session_id := sessions.read(token.credentials, "access"):
            claim = await sessions.use(session_id)
    elif value := request.cookies.get(COOKIE):
        claim = await sessions.use_cookie(value)
        if claim and request.method not in SAFE_METHODS:
            check_same_origin(request)
    if not claim:
        return None
    # Its own and short: a route that then waits or sends for long holds no connection for this.
    async with AsyncSession(db.async_engine()) as session:
        return await principal(session, claim, client_address(request))


async def current_user(
    request: Request,
    # Read above; these are for the API's description.
    _token: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)] = None,
    _cookie: Annotated[str | None, Security(cookie)] = None,
) -> Principal:
    """Return the user that the request's token or cookie names.

    Raises:
        UnauthorizedError: nobody, or the session has ended, or the user was disabled.
        ForbiddenError: the cookie is right, but a page of another site may have sent it.
    """
    user = await optional_user(request)
    if user is None:
        raise UnauthorizedError
    return user


def require(*permissions: Permission) -> Callable[..., Awaitable[Principal]]:
    """Build the dependency of a route that only users with all of these permissions may call.

    Raises:
        UnauthorizedError, ForbiddenError: when called.
    """

    async def permitted(user: Annotated[Principal, Depends(current_user)]) -> Principal:
        for permission in permissions:
            if not user.may(permission):
                raise ForbiddenError(f"This needs the permission {permission}.")
        return user

    return permitted
