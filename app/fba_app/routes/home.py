"""The start page."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

PAGE = (Path(__file__).parent.parent / "index.html").read_text(encoding="utf-8")

router = APIRouter(include_in_schema=False)


@router.get("/")
async def home() -> HTMLResponse:
    """Say what runs here and where to go from it."""
    return HTMLResponse(PAGE)
