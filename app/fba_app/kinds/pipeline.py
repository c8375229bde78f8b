"""The kind `pipeline`: statistics of a CSV file, computed by many tasks on whichever workers are free.

The first run reads the file once, as a stream, to find where it can be divided; the parts are tasks of their own, the
kind `pipeline_part`; the second run joins what they found.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from fba_app import db
from fba_app.files import service as files
from fba_app.files.storage import ObjectMissingError, StorageUnavailableError, get_storage
from fba_app.kinds.csv_records import HEADER_LIMIT, PART_SIZE, PipelineError, checked, read_header, split
from fba_app.kinds.csv_statistics import Column, Groups, PartResult, join_column, join_groups, measure
from fba_app.tasks.context import TaskContext
from fba_app.tasks.registry import CPU_QUEUE, FanOut, kind
from fba_app.types import BigInt, Model, Storable
from fba_app.users.principal import Principal

ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=255), Storable]
Delimiter = Literal[",", ";", "\t"]

RETRY_ON = (*db.AWAY, StorageUnavailableError)


class PipelineArguments(Model):
    """Which file to compute statistics of, and how."""

    file_id: UUID = Field(description="A CSV file in UTF-8 with a header row.")
    group_by: ColumnName | None = Field(
        default=None, description="The column whose texts tell the groups apart.", examples=["city"]
    )
    value: ColumnName | None = Field(
        default=None, description="A column of numbers to sum up for each group; needs `group_by`.", examples=["price"]
    )
    delimiter: Delimiter = Field(default=",", examples=[","])

    @model_validator(mode="after")
    def _value_of_groups(self) -> Self:
        if self.value is not None and self.group_by is None:
            raise ValueError("value needs group_by")
        return self


class PartArguments(Model):
    """Some whole records of a file, and what to compute of them."""

    file_id: UUID
    start: BigInt
    end: BigInt
    delimiter: Delimiter
    columns: int
    group_by: int | None
    value: int | None


class PipelineResult(Model):
    """The statistics of a CSV file."""

    rows: int
    bytes: int
    parts: int
    columns: list[Column]
    groups: Groups | None


async def _check(session: AsyncSession, user: Principal, arguments: PipelineArguments) -> None:
    await files.may_use(session, user, arguments.file_id, ["body", "arguments", "file_id"])


@contextmanager
def _file_exists() -> Iterator[None]:
    try:
        yield
    except ObjectMissingError:
        raise PipelineError("The file was deleted.") from None


def _bytes(file_id: UUID, start: int, end: int | None = None) -> Iterator[bytes]:
    with _file_exists():
        yield from get_storage().get(file_id.hex, start, end)


def _header(arguments: PipelineArguments) -> tuple[list[str], int]:
    return read_header(b"".join(_bytes(arguments.file_id, 0, HEADER_LIMIT)), arguments.delimiter)


def _position(name: str | None, names: list[str]) -> int | None:
    if name is None:
        return None
    try:
        return names.index(name)
    except ValueError:
        raise PipelineError(f"There is no column {name}.") from None


def _observed(context: TaskContext, chunks: Iterable[bytes], offset: int, size: int) -> Iterator[bytes]:
    for chunk in chunks:
        offset += len(chunk)
        context.progress(100 * offset / size, "looking for where to divide the file")
        yield chunk


def _divide(context: TaskContext, arguments: PipelineArguments) -> FanOut:
    with db.session() as session, _file_exists():
        size = files.open_file(session, arguments.file_id).size
    names, start = _header(arguments)
    group_by, value = _position(arguments.group_by, names), _position(arguments.value, names)
    chunks = _observed(context, checked(_bytes(arguments.file_id, start)), start, size)
    return FanOut(
        "pipeline_part",
        [
            PartArguments(
                file_id=arguments.file_id,
                start=part_start,
                end=part_end,
                delimiter=arguments.delimiter,
                columns=len(names),
                group_by=group_by,
                value=value,
            )
            for part_start, part_end in split(chunks, start, arguments.delimiter, PART_SIZE)
        ],
    )


def _join(arguments: PipelineArguments, results: list[dict[str, Any]]) -> PipelineResult:
    parts = [PartResult.model_validate(result) for result in results]
    rows = sum(part.rows for part in parts)
    if not rows:
        raise PipelineError("The file has a header row only.")
    names, header_end = _header(arguments)
    value = _position(arguments.value, names)
    groups = None
    if arguments.group_by is not None:
        groups = join_groups(
            arguments.group_by,
            arguments.value,
            [part.groups for part in parts],
            None if value is None else [part.columns[value] for part in parts],
        )
    return PipelineResult(
        rows=rows,
        bytes=header_end + sum(part.bytes for part in parts),
        parts=len(parts),
        columns=[join_column(name, [part.columns[number] for part in parts]) for number, name in enumerate(names)],
        groups=groups,
    )


@kind("pipeline", queue=CPU_QUEUE, time_limit=300, retry_on=RETRY_ON, check=_check)
def pipeline(context: TaskContext, arguments: PipelineArguments) -> PipelineResult | FanOut:
    """Compute statistics of the columns of a CSV file, and of its rows in groups, in parts on all workers."""
    if context.parts is None:
        return _divide(context, arguments)
    return _join(arguments, context.parts)


@kind("pipeline_part", queue=CPU_QUEUE, time_limit=120, retry_on=RETRY_ON, public=False)
def pipeline_part(context: TaskContext, arguments: PartArguments) -> PartResult:
    """Compute the statistics of one part of a CSV file."""
    data = b"".join(_bytes(arguments.file_id, arguments.start, arguments.end))
    context.progress(10, "reading")
    return measure(data, arguments.delimiter, arguments.columns, arguments.group_by, arguments.value)
