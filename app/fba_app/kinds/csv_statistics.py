"""Statistics of a CSV file's columns and groups: of each part, and joined into those of the whole file.

They are what pandas gives for the file read at once, `read_csv(…, low_memory=False)`. What a column is depends on all
of it, so each part says what its cells are as numbers, if they all are, and what they are as text. The differences:

- Booleans are text, and so are integers beyond 64 bits.
- A column of integers is summed exactly, where pandas overflows.
- Integers from 2**53 on in a column of fractions may differ in the last place: pandas does not read them to the
  nearest float.
- Integers from 2**63 on are text for pandas if others are negative or missing. Here they remain numbers if a part where
  some are missing has none so large.
- Groups are told apart by their text: `1` and `1.0` are two groups.
- The first record may not have more fields than the header; pandas would take the first columns as row labels.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fba_app.kinds.csv_records import PART_SIZE, PipelineError
from fba_app.types import Model

if TYPE_CHECKING:
    import pandas as pd

GROUP_LIMIT = 20_000
"""In the whole file: what one process can hold of them is bounded."""

GROUP_NAME_LIMIT = 1000
"""Characters."""

GROUPS_SHOWN = 1000
TEXT_SHOWN = 200
"""Characters of the smallest and the largest text; cut texts still compare as the whole ones do."""

INT64_MAX = 2**63 - 1

Number = int | float | Literal["inf", "-inf", "nan"]
"""JSON has no name for what is not finite, and `float` reads these."""


class NumbersPart(Model):
    """Some cells of a column, none of them missing, as numbers."""

    integer: bool
    sum: Number
    min: Number
    max: Number
    mean: Number
    m2: Number
    """The sum of the squared differences from the mean."""


class ColumnPart(Model):
    """A column in one part."""

    count: int
    missing: int
    first: str | None = None
    last: str | None = None
    """In the order of the texts."""
    numbers: NumbersPart | None = None
    """None unless all cells are numbers."""


GroupPart = tuple[str, int, Number | None, Number | None, Number | None]
"""The name of a group, how many values it has, and their sum, minimum and maximum."""


class PartResult(Model):
    """What one part adds to the result."""

    rows: int
    bytes: int
    columns: list[ColumnPart]
    groups: list[GroupPart]


class Column(Model):
    """A column of the file."""

    name: str
    kind: Literal["number", "text"]
    count: int = Field(description="Cells that are not missing.")
    missing: int
    min: Number | str | None
    max: Number | str | None
    sum: Number | None
    mean: Number | None
    std: Number | None = Field(description="Of a sample: with n - 1.")


class Group(Model):
    """The rows that have the same text in one column."""

    group: str
    count: int = Field(description="Values that are not missing, or rows if there is no column of values.")
    sum: Number | None
    mean: Number | None
    min: Number | None
    max: Number | None


class Groups(Model):
    """The rows by the text of one column."""

    by: str
    value: str | None
    rows: list[Group]
    truncated: bool = Field(description=f"Whether there are more groups than these {GROUPS_SHOWN}.")


def _portable(value: Any) -> Number:  # noqa: ANN401
    number: int | float = value.item() if hasattr(value, "item") else value
    if math.isfinite(number):
        return number
    return "nan" if math.isnan(number) else "inf" if number > 0 else "-inf"


def _answer(value: float | None) -> Number | None:
    """What pandas calls NaN is None in the result."""
    return None if value is None or math.isnan(value) else _portable(value)


def _total(values: Iterable[float]) -> float:
    values = list(values)
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond the largest float, or of both infinities
        return sum(values)


def _read(data: bytes, delimiter: str, columns: int, dtype: type[str] | None = None) -> "pd.DataFrame":
    import pandas as pd

    # Records with few fields are filled up, so a part of nothing but such ones could take any amount of memory. Full
    # ones have a byte for each field at least.
    rows = PART_SIZE // columns + 1
    # The first record says how wide the others may be. Zeros change neither what is a number nor what is text.
    width = delimiter.join("0" * columns) + "\n"
    try:
        frame = pd.read_csv(
            BytesIO(width.encode() + data),
            sep=delimiter,
            header=None,
            dtype=dtype,
            low_memory=False,
            nrows=rows + 2,
        )
    except pd.errors.ParserError:
        raise PipelineError("A record has more fields than the header row.") from None
    if len(frame) > rows + 1:
        raise PipelineError("The records have far fewer fields than the header row.")
    return frame.iloc[1:]


def _is_number(column: "pd.Series[Any]") -> bool:
    return column.dtype.kind in "iuf"


def _is_integer(column: "pd.Series[Any]") -> bool:
    return column.dtype.kind in "iu"


def _halves(values: "pd.Series[Any]") -> "tuple[pd.Series[Any], pd.Series[Any]]":
    """Split 64-bit integers into halves whose sums do not overflow; the first counts 2**32 times."""
    return values // 2**32, values % 2**32


def _numbers(values: "pd.Series[Any]") -> NumbersPart:
    integer = _is_integer(values)
    if integer:
        high, low = _halves(values)
        total: Any = int(high.sum()) * 2**32 + int(low.sum())
    else:
        total = values.sum()
    floats = values.astype("float64")
    return NumbersPart(
        integer=integer,
        sum=_portable(total),
        min=_portable(values.min()),
        max=_portable(values.max()),
        mean=_portable(floats.mean()),
        m2=_portable(floats.var(ddof=0) * len(floats)),
    )


def _group(names: "pd.Series[str]", values: "pd.Series[Any] | None") -> list[GroupPart]:
    counts = names.value_counts(sort=False)
    if len(counts) > GROUP_LIMIT:
        raise PipelineError(f"There are more than {GROUP_LIMIT} groups.")
    if any(len(name) > GROUP_NAME_LIMIT for name in counts.index):
        raise PipelineError(f"The name of a group has more than {GROUP_NAME_LIMIT} characters.")
    if values is None:
        return [(str(name), int(count), None, None, None) for name, count in counts.items()]
    table = values.groupby(names).agg(["count", "min", "max"])
    if _is_integer(values):
        high, low = (half.groupby(names).sum() for half in _halves(values))
        totals = [upper * 2**32 + lower for upper, lower in zip(high.tolist(), low.tolist(), strict=True)]
    else:
        totals = values.groupby(names).sum().tolist()
    return [
        (name, count, _portable(total), _portable(least) if count else None, _portable(most) if count else None)
        for name, count, total, least, most in zip(
            table.index.tolist(),
            table["count"].tolist(),
            totals,
            table["min"].tolist(),
            table["max"].tolist(),
            strict=True,
        )
    ]


def measure(data: bytes, delimiter: str, columns: int, group_by: int | None, value: int | None) -> PartResult:
    """Return the statistics of some whole records.

    Args:
        data: the records, without the header row.
        delimiter: one character.
        columns: how many the header row has.
        group_by: the number of a column, from 0.
        value: the number of a column whose values are summed up for each group.

    Raises:
        PipelineError: the records are malformed, or there are too many groups.
    """
    import numpy as np

    texts = _read(data, delimiter, columns, str)
    results = []
    for number in range(columns):
        present = texts[number].dropna()
        result = ColumnPart(count=len(present), missing=len(texts) - len(present))
        if result.count:
            result.first, result.last = str(present.min())[:TEXT_SHOWN], str(present.max())[:TEXT_SHOWN]
        results.append(result)
    names = None if group_by is None else texts[group_by]
    # Both readings at once would need half as much memory again.
    del texts

    frame = _read(data, delimiter, columns)
    groups: list[GroupPart] = []
    # pandas warns of numbers that are not finite.
    with np.errstate(all="ignore"):
        for number, result in enumerate(results):
            if result.count and _is_number(frame[number]):
                result.numbers = _numbers(frame[number].dropna())
        # Values that are no numbers fail the whole, but only the join knows the column's name.
        if names is not None and (value is None or _is_number(frame[value])):
            groups = _group(names, None if value is None else frame[value])
    return PartResult(rows=len(frame), bytes=len(data), columns=results, groups=groups)


def _is_integer_column(parts: Sequence[ColumnPart]) -> bool:
    """Whether pandas would have read the whole column as integers: a gap makes them floats."""
    return all(part.missing == 0 and (part.numbers is None or part.numbers.integer) for part in parts)


def _numbers_of(parts: Sequence[ColumnPart]) -> list[tuple[int, NumbersPart]] | None:
    """The parts that have any cells, with how many, if the column is one of numbers."""
    found = [(part.count, part.numbers) for part in parts if part.count and part.numbers]
    if len(found) < sum(part.count > 0 for part in parts):
        return None
    if all(numbers.integer for _, numbers in found):
        unsigned = any(int(numbers.max) > INT64_MAX for _, numbers in found)
        negative = any(int(numbers.min) < 0 for _, numbers in found)
        if unsigned and (negative or any(part.missing for part in parts)):
            return None
    return found


def join_column(name: str, parts: Sequence[ColumnPart]) -> Column:
    """Return the statistics of a column from those of its parts."""
    count, missing = sum(part.count for part in parts), sum(part.missing for part in parts)
    found = _numbers_of(parts)
    if found is None:
        first = min(part.first for part in parts if part.first is not None)
        last = max(part.last for part in parts if part.last is not None)
        return Column(
            name=name, kind="text", count=count, missing=missing, min=first, max=last, sum=None, mean=None, std=None
        )
    if not found:
        return Column(
            name=name, kind="number", count=0, missing=missing, min=None, max=None, sum=0.0, mean=None, std=None
        )

    read = int if _is_integer_column(parts) else float
    total = sum(int(each.sum) for _, each in found) if read is int else _total(float(each.sum) for _, each in found)
    return Column(
        name=name,
        kind="number",
        count=count,
        missing=missing,
        min=_answer(min(read(each.min) for _, each in found)),
        max=_answer(max(read(each.max) for _, each in found)),
        sum=_answer(total),
        mean=_answer(total / count),
        std=_answer(_std(found)),
    )


def _std(parts: Sequence[tuple[int, NumbersPart]]) -> float | None:
    """Chan's formula, which unlike the sum of squares loses nothing where the mean is large."""
    count = sum(part_count for part_count, _ in parts)
    if count < 2:
        return None
    mean = _total(part_count * (float(part.mean) / count) for part_count, part in parts)
    between = (part_count * (float(part.mean) - mean) * (float(part.mean) - mean) for part_count, part in parts)
    within = (float(part.m2) for _, part in parts)
    return math.sqrt(_total([*within, *between]) / (count - 1))


def join_groups(
    by: str, value: str | None, parts: Sequence[Sequence[GroupPart]], values: Sequence[ColumnPart] | None
) -> Groups:
    """Return the groups from those of the parts, in the order of their names.

    Args:
        by: the column's name.
        value: the name of the column of values.
        parts: the groups of each.
        values: the column of values in each part.

    Raises:
        PipelineError: there are too many groups, or the values are not numbers after all.
    """
    gathered: dict[str, list[GroupPart]] = defaultdict(list)
    for part in parts:
        for group in part:
            gathered[group[0]].append(group)
    if len(gathered) > GROUP_LIMIT:
        raise PipelineError(f"There are more than {GROUP_LIMIT} groups.")
    if values is not None and _numbers_of(values) is None:
        raise PipelineError(f"The column {value} has cells that are not numbers.")
    read = int if values is not None and _is_integer_column(values) else float
    rows = [_join_group(name, gathered[name], read) for name in sorted(gathered)[:GROUPS_SHOWN]]
    return Groups(by=by, value=value, rows=rows, truncated=len(gathered) > GROUPS_SHOWN)


def _join_group(name: str, parts: Sequence[GroupPart], read: type[int] | type[float]) -> Group:
    count = sum(part[1] for part in parts)
    sums = [read(part[2]) for part in parts if part[2] is not None]
    minima = [read(part[3]) for part in parts if part[3] is not None]
    maxima = [read(part[4]) for part in parts if part[4] is not None]
    total = None if not sums else sum(sums) if read is int else _total(sums)
    return Group(
        group=name,
        count=count,
        sum=_answer(total),
        mean=None if total is None or not count else _answer(total / count),
        min=_answer(min(minima, default=None)),
        max=_answer(max(maxima, default=None)),
    )
