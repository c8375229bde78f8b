"""The one shape of every answer that is not a success: `application/problem+json`, RFC 9457."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError
from sqlalchemy.exc import IntegrityError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from fba_app import db
from fba_app.problems import ConflictError, FieldError, ProblemError, UnavailableError

MEDIA_TYPE = "application/problem+json"
logger = logging.getLogger(__name__)


class Problem(BaseModel):
    """What went wrong, for a program (`code`) and for a person (`detail`)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "code": "not_found",
                "detail": "There is no task 7f4c0f0e-0000-4000-8000-000000000000.",
            }
        }
    )

    type: str = "about:blank"
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(ge=400, le=599)
    code: str = Field(description="What went wrong, in a word that does not change.")
    detail: str
    errors: list[FieldError] | None = Field(default=None, description="Of an invalid request: every fault found.")


def answer(
    status: int,
    code: str,
    detail: str,
    errors: Sequence[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build the response of a problem."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail, errors=errors)
    return JSONResponse(
        jsonable_encoder(problem, exclude_none=True),
        status_code=status,
        headers={**(headers or {}), "Cache-Control": "no-store"},
        media_type=MEDIA_TYPE,
    )


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101
    return answer(error.status, error.code, error.detail, error.errors, error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    # Without the rejected values: one of them may be a password.
    faults = [
        FieldError(location=list(each["loc"]), message=each["msg"].removeprefix("Value error, "))
        for each in error.errors()
    ]
    return answer(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "The request is not valid.", faults)


def _allowed(request: Request) -> str:
    """The methods that the path has; Starlette names those of the first route alone."""
    routes = [context.original_route for context in iter_route_contexts(request.app.routes)]
    here = [r for r in routes if isinstance(r, Route) and r.path_regex.match(request.scope["path"])]
    return ", ".join(sorted({method for route in here for method in route.methods or ()}))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_").replace("'", "")
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": _allowed(request)}
    return answer(error.status_code, code, str(error.detail), headers=headers)


async def _postgres_away(request: Request, error: Exception) -> Response:
    logger.warning("PostgreSQL is unavailable: %s", error)
    return await _problem(request, UnavailableError("database"))


async def _redis_away(request: Request, error: Exception) -> Response:
    logger.warning("Redis is unavailable: %s", error)
    return await _problem(request, UnavailableError("session store"))


async def _conflict(request: Request, error: Exception) -> Response:
    # Two requests at once: what one rests on, such as a user, the other has removed.
    logger.warning("PostgreSQL refused a change: %s", error)
    return await _problem(request, ConflictError("Another request has changed what this one rests on."))


async def _unexpected(_: Request, error: Exception) -> Response:
    # Starlette logs it with its trace; the client learns nothing of that.
    del error
    return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "Something went wrong here; the log has more.")


def install(application: FastAPI) -> None:
    """Make the application answer every error in this shape."""
    application.add_exception_handler(ProblemError, _problem)
    application.add_exception_handler(RequestValidationError, _invalid)
    application.add_exception_handler(HTTPException, _http)
    for error in db.AWAY:
        application.add_exception_handler(error, _postgres_away)
    application.add_exception_handler(IntegrityError, _conflict)
    application.add_exception_handler(RedisError, _redis_away)
    application.add_exception_handler(Exception, _unexpected)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe these statuses in OpenAPI as problems, for a route's `responses`."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
