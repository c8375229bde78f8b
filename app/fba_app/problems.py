"""What can be wrong with a request. How it is answered is in `errors`; what runs tasks needs no more than this."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

RETRY_AFTER = 5
"""Seconds after which a client may ask again."""


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    location: list[str | int] = Field(description="The way to the value, such as `body`, `arguments`, `to`, 0.")
    message: str


class ProblemError(HTTPException):
    """Ends a request with a problem.

    It is one of Starlette's errors, because FastAPI takes any other that comes up while it reads a body for a bad body.
    """

    status = HTTPStatus.BAD_REQUEST
    code = "bad_request"

    def __init__(
        self, detail: str, *, errors: Sequence[FieldError] | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(self.status, detail, dict(headers or {}))
        self.errors = errors


class UnauthorizedError(ProblemError):
    """Who asks is not known."""

    status, code = HTTPStatus.UNAUTHORIZED, "unauthorized"

    def __init__(self, detail: str = "Log in first.") -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class ForbiddenError(ProblemError):
    """Who asks is known, and may not."""

    status, code = HTTPStatus.FORBIDDEN, "forbidden"


class NotFoundError(ProblemError):
    """There is no such thing, or not for who asks."""

    status, code = HTTPStatus.NOT_FOUND, "not_found"


class ConflictError(ProblemError):
    """The thing is not in a state that allows it."""

    status, code = HTTPStatus.CONFLICT, "conflict"


class TooLargeError(ProblemError):
    """The request has more bytes than this route takes."""

    status, code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large"


class UnsupportedTypeError(ProblemError):
    """The content is of a type that this route does not take."""

    status, code = HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_type"


class InvalidError(ProblemError):
    """The request is well formed, and its content is wrong."""

    status, code = HTTPStatus.UNPROCESSABLE_ENTITY, "invalid"

    def __init__(self, detail: str, location: Sequence[str | int] = ("body",)) -> None:
        super().__init__(detail, errors=[FieldError(location=list(location), message=detail)])


class TooManyRequestsError(ProblemError):
    """Later, perhaps."""

    status, code = HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


class UnavailableError(ProblemError):
    """A service that this rests on is away; nothing was changed."""

    status, code = HTTPStatus.SERVICE_UNAVAILABLE, "unavailable"

    def __init__(self, service: str) -> None:
        super().__init__(f"The {service} is unavailable.", headers={"Retry-After": str(RETRY_AFTER)})
