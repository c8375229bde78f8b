"""The ASGI application, `fba_app.main:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, status
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from redis.exceptions import RedisError

from fba_app import cache, db
from fba_app.publish import BrokerUnavailableError
from fba_app.routes import health, home, tasks
from fba_app.settings import Settings, get_settings

RETRY_AFTER = "5"
"""Seconds after which a client may ask again."""


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await cache.client().aclose()
    await db.async_engine().dispose()


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    service = "broker" if isinstance(error, BrokerUnavailableError) else "result store"
    return JSONResponse(
        {"detail": f"The {service} is unavailable."},
        status_code=status.HTTP_503_SERVICE_UNAVAILABLE,
        headers={"Retry-After": RETRY_AFTER, "Cache-Control": "no-store"},
    )


def create_app(settings: Settings) -> FastAPI:
    """Build the application; nothing connects before it is needed."""
    application = FastAPI(title="fba.stack", version="1.0.0", lifespan=_lifespan)
    application.add_exception_handler(BrokerUnavailableError, _unavailable)
    application.add_exception_handler(RedisError, _unavailable)
    application.include_router(home.router)
    application.include_router(tasks.router(settings))
    application.include_router(health.router)
    # nginx serves these in production; here they make the application whole without it.
    application.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    return application


app = create_app(get_settings())
