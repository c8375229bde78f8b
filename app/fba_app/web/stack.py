"""The page of workers, queues and services."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from fba_app.health import routes as health
from fba_app.tasks.relay import relay
from fba_app.users.principal import Permission, Principal
from fba_app.web.pages import PageRoute, visitor
from fba_app.web.render import page

PARTS = {"beat": "Beat, for schedules"}
WORKER = "worker:"

router = APIRouter(route_class=PageRoute)


def _name(part: str) -> str:
    return f"Workers of {part.removeprefix(WORKER)}" if part.startswith(WORKER) else PARTS.get(part, part)


@router.get("/stack")
async def stack_page(request: Request, _: Annotated[Principal, Depends(visitor(Permission.STACK_READ))]) -> Response:
    """Show who works, and what waits for them."""
    background = await health.background(Response())
    return page(
        request,
        "stack.html",
        parts=[(_name(name), pulse.state, pulse.age_seconds) for name, pulse in background.checks.items()],
        services=await health.states(),
        queues=relay.queues,
        broker=relay.available,
    )
