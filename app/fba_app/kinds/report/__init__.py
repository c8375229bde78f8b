"""The kind `report`: what became of the tasks of some days, as a PDF and as an Excel workbook."""

from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from fba_app import db
from fba_app.files import service as files
from fba_app.files.storage import StorageUnavailableError
from fba_app.kinds.report import data
from fba_app.problems import ForbiddenError
from fba_app.tasks.context import TaskContext
from fba_app.tasks.registry import CPU_QUEUE, kind
from fba_app.types import Model, Storable
from fba_app.users.principal import Permission

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from fba_app.users.principal import Principal

# On one line, and no character that XML, and so a workbook, cannot hold.
TITLE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]+$"
Title = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=TITLE), Storable]

PDF = "application/pdf"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


class ReportArguments(Model):
    """What to report, and how."""

    title: Title = Field(examples=["Tasks of the month"])
    days: int = Field(default=30, strict=True, ge=1, le=365, description="Today and the days before it.", examples=[30])
    format: Literal["pdf", "xlsx", "both"] = Field(default="both", examples=["both"])
    scope: Literal["own", "all"] = Field(
        default="own",
        description="Whose tasks: one's own, or everyone's, which needs the permission tasks:manage.",
        examples=["own"],
    )


class ReportFile(Model):
    """A file that was made."""

    id: UUID
    name: str = Field(examples=["report-2030-01-31.pdf"])
    url: str = Field(examples=["/static/upload/7f4c0f0e-0000-4000-8000-000000000000/report-2030-01-31.pdf"])
    size: int = Field(ge=0, description="Bytes.", examples=[48213])


class ReportResult(Model):
    """The files that were made."""

    files: list[ReportFile]


async def _check(session: "AsyncSession", user: "Principal", arguments: ReportArguments) -> None:
    del session
    if arguments.scope == "all" and not user.may(Permission.TASKS_MANAGE):
        raise ForbiddenError(f"A report on everyone's tasks needs the permission {Permission.TASKS_MANAGE}.")


@kind("report", queue=CPU_QUEUE, time_limit=300, retry_on=(*db.AWAY, StorageUnavailableError), check=_check)
def report(context: TaskContext, arguments: ReportArguments) -> ReportResult:
    """Make a PDF, an Excel workbook or both of what became of the tasks of the last days."""
    # Not at the top: a worker that makes no report shall not spend memory on their libraries.
    from fba_app.kinds.report import pdf, xlsx

    context.progress(0, "counting tasks")
    everyone = arguments.scope == "all"
    counted = data.collect(arguments.title, arguments.days, everyone=everyone, user=context.submitted_by)
    made: list[tuple[str, str, bytes]] = []
    if arguments.format != "xlsx":
        context.progress(20, "making the PDF")
        made.append(("pdf", PDF, pdf.make(counted, context.check)))
    if arguments.format != "pdf":
        context.progress(60, "making the workbook")
        made.append(("xlsx", XLSX, xlsx.make(counted)))
    context.progress(90, "storing")
    stored = [
        files.store_file(context, f"report-{counted.last}.{suffix}", content_type, "report", [content])
        for suffix, content_type, content in made
    ]
    return ReportResult(
        files=[
            ReportFile(id=file.id, name=file.name, url=f"/static/upload/{file.id}/{file.name}", size=file.size)
            for file in stored
        ]
    )
