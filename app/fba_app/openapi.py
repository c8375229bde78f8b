"""The OpenAPI document, where it differs from what FastAPI writes by itself: errors have our shape, not FastAPI's.

And the page that shows it, from files of our own: a browser need reach no other site.
"""

from pathlib import Path
from typing import Any

import fastapi_swagger
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema

from fba_app.errors import Problem, responses

ASSETS = "/docs/assets"

METHODS = ("get", "put", "post", "delete", "patch")


def _document(application: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=application.title,
        version=application.version,
        summary=application.summary,
        routes=application.routes,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, problem = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    schemas.update(problem["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for method in METHODS:
            operation = path.get(method, {})
            described = operation.get("responses", {})
            if "422" in described:
                described["422"] = responses(422)[422]
            if "requestBody" in operation:
                # Of any body: it cannot be read, or is too long.
                described |= {str(status): text for status, text in responses(400, 413).items()}
    return document


def install(application: FastAPI) -> None:
    """Make the application describe itself this way, and show it at `/docs`."""

    def openapi() -> dict[str, Any]:
        if application.openapi_schema is None:
            application.openapi_schema = _document(application)
        return application.openapi_schema

    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=str(application.openapi_url),
            title=f"{application.title}: API",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url="/static/icon.svg",
        )

    application.openapi = openapi  # type: ignore[method-assign]
    application.add_api_route("/docs", docs, include_in_schema=False)
    application.mount(ASSETS, StaticFiles(directory=Path(fastapi_swagger.__file__).parent / "resources"))
