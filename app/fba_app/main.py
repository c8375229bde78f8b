"""The ASGI application, `fba_app.main:app`."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from fba_app import cache, db, errors, metrics, openapi, web
from fba_app.audit import routes as audit
from fba_app.files import routes as files
from fba_app.health import routes as health
from fba_app.middleware import BodyLimit, SecurityHeaders
from fba_app.schedules import routes as schedules
from fba_app.settings import Settings, get_settings
from fba_app.tasks import routes as tasks
from fba_app.tasks import run_task
from fba_app.tasks.relay import relay
from fba_app.users import routes as users
from fba_app.web import routes as pages


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    # What was imported stays until the end. A collection that looks at all of it takes tens of milliseconds, in which
    # nobody is answered.
    gc.collect()
    gc.freeze()
    relay.start()
    yield
    relay.stop()
    await cache.client().aclose()
    await db.async_engine().dispose()


def create_app(settings: Settings) -> FastAPI:
    """Build the application; nothing connects before it is needed."""
    application = FastAPI(
        title="fba.stack",
        version="1.0.0",
        summary="FastAPI answers at once; Celery does the work.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    errors.install(application)
    for router in (
        tasks.router,
        run_task.router(settings),
        schedules.router,
        files.router,
        users.router,
        audit.router,
        health.router,
        metrics.router,
        pages.router,
    ):
        application.include_router(router)
    # nginx serves these in production; here they make the application whole without it.
    application.mount("/static", StaticFiles(directory=Path(web.__file__).parent.parent / "static"), name="static")
    # The last one added comes first.
    application.add_middleware(
        BodyLimit, request_max_size=settings.request_max_size, upload_max_size=settings.upload_max_size
    )
    application.add_middleware(SecurityHeaders)
    application.add_middleware(metrics.Middleware)
    openapi.install(application)
    return application


app = create_app(get_settings())
