"""The kind `pipeline` against pandas, which reads the whole file at once."""

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from types import SimpleNamespace
from typing import Any, BinaryIO
from unittest.mock import patch
from uuid import UUID, uuid4

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fba_app.files.storage import ObjectMissingError
from fba_app.kinds import csv_statistics, pipeline
from fba_app.kinds.csv_records import PART_SIZE, PipelineError, RecordEnds
from fba_app.problems import InvalidError
from fba_app.tasks.context import TaskContext
from fba_app.tasks.registry import KINDS, FanOut

FILE = UUID("7f4c0f0e-0000-4000-8000-000000000000")


class Storage:
    """Has one file, and gives it in chunks of some bytes."""

    def __init__(self, file: BinaryIO | None, chunk: int) -> None:
        self._file = file
        self._chunk = chunk

    def get(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        if self._file is None or key != FILE.hex:
            raise ObjectMissingError(key)
        while end is None or start < end:
            self._file.seek(start)
            chunk = self._file.read(self._chunk if end is None else min(self._chunk, end - start))
            if not chunk:
                return
            yield chunk
            start += len(chunk)


@contextmanager
def stored(file: BinaryIO | None, size: int, *, part_size: int, chunk: int) -> Iterator[None]:
    """Let the kind find this file in the storage, and nothing else anywhere."""
    with (
        patch.object(pipeline, "PART_SIZE", part_size),
        patch.object(pipeline, "get_storage", lambda: Storage(file, chunk)),
        patch("fba_app.db.session", nullcontext),
        patch("fba_app.files.service.open_file", return_value=SimpleNamespace(size=size)),
        patch("fba_app.tasks.progress.write"),
    ):
        yield


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value.model_dump(mode="json"), allow_nan=False))


def divide(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the kind for the first time; return the arguments of its parts."""
    whole = KINDS["pipeline"]
    parts = whole.run(TaskContext(uuid4()), whole.arguments.model_validate(arguments))
    assert isinstance(parts, FanOut)
    assert parts.kind == "pipeline_part"
    return [through_json(each) for each in parts.arguments]


def finish(arguments: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Run the parts, and then the kind for the second time; return the result."""
    whole, part = KINDS["pipeline"], KINDS["pipeline_part"]
    results = [through_json(part.run(TaskContext(uuid4()), part.arguments.model_validate(each))) for each in parts]
    context = TaskContext(uuid4(), parts=results)
    result: dict[str, Any] = through_json(whole.run(context, whole.arguments.model_validate(arguments)))
    return result


def run(content: bytes | None, *, part_size: int = PART_SIZE, chunk: int = 2**20, **arguments: Any) -> dict[str, Any]:
    """Run the kind as the runner does: the parts are tasks of their own, and all that they pass on is JSON."""
    asked = {"file_id": str(FILE), **arguments}
    file = None if content is None else BytesIO(content)
    with stored(file, len(content or b""), part_size=part_size, chunk=chunk):
        return finish(asked, divide(asked))


def read(content: bytes, **options: Any) -> pd.DataFrame:
    frame: pd.DataFrame = pd.read_csv(BytesIO(content), low_memory=False, **options)
    return frame


def same(ours: Any, theirs: Any, scale: float = 0.0) -> bool:
    """Compare numbers as they are in the result with those of pandas; sums may differ by 1e-9 of what was summed up."""
    if pd.isna(theirs):
        return ours is None
    return math.isclose(float(ours), float(theirs), rel_tol=1e-9, abs_tol=1e-9 * scale)


def assert_column(ours: dict[str, Any], typed: "pd.Series[Any]", text: "pd.Series[Any]") -> None:
    present = text.dropna()
    assert (ours["count"], ours["missing"]) == (len(present), len(text) - len(present))
    if typed.dtype.kind not in "iuf":
        assert (ours["kind"], ours["min"], ours["max"]) == ("text", present.min()[:200], present.max()[:200])
        assert (ours["sum"], ours["mean"], ours["std"]) == (None, None, None)
        return
    assert ours["kind"] == "number"
    with np.errstate(all="ignore"):
        scale = float(typed.abs().sum())
        assert same(ours["sum"], typed.sum(), scale)
        assert same(ours["mean"], typed.mean(), scale / max(len(present), 1))
        assert same(ours["std"], typed.std(), scale / max(len(present), 1))
    if not len(present):
        assert (ours["min"], ours["max"]) == (None, None)
    elif typed.dtype.kind == "f":
        assert (float(ours["min"]), float(ours["max"])) == (typed.min(), typed.max())
    else:
        assert (ours["min"], ours["max"]) == (typed.min(), typed.max())


def assert_groups(ours: dict[str, Any], names: "pd.Series[str]", values: "pd.Series[Any] | None") -> None:
    if values is None:
        counts = names.value_counts().sort_index()
        assert [(row["group"], row["count"]) for row in ours["rows"]] == list(counts.items())
        assert all(row[key] is None for row in ours["rows"] for key in ("sum", "mean", "min", "max"))
        return
    with np.errstate(all="ignore"):
        table = values.groupby(names).agg(["count", "sum", "mean", "min", "max"])
        scales = values.abs().groupby(names).sum().tolist()
    assert [row["group"] for row in ours["rows"]] == list(table.index)
    for row, expected, scale in zip(ours["rows"], table.to_dict("records"), scales, strict=True):
        assert row["count"] == expected["count"]
        assert same(row["sum"], expected["sum"], scale)
        assert same(row["mean"], expected["mean"], scale)
        for key in ("min", "max"):
            assert row[key] is None if pd.isna(expected[key]) else float(row[key]) == expected[key]


def assert_as_pandas(ours: dict[str, Any], content: bytes, delimiter: str, by: str | None, value: str | None) -> None:
    typed, text = read(content, sep=delimiter), read(content, sep=delimiter, dtype=str)
    assert (ours["rows"], ours["bytes"]) == (len(typed), len(content))
    assert [column["name"] for column in ours["columns"]] == list(typed.columns)
    for column in ours["columns"]:
        assert_column(column, typed[column["name"]], text[column["name"]])
    if by is None:
        assert ours["groups"] is None
    else:
        assert (ours["groups"]["by"], ours["groups"]["value"], ours["groups"]["truncated"]) == (by, value, False)
        assert_groups(ours["groups"], text[by], None if value is None else typed[value])


MISSING = st.sampled_from(["", "NA", "nan", "null", "None", "n/a"])
INTEGER = st.integers(-(2**53), 2**53).map(str) | st.integers(-20, 20).map("{:+04d}".format)
FRACTION = st.floats(-1e9, 1e9).map("{:.6g}".format) | st.sampled_from(["1e3", ".5", "-0.0", "7."])
INFINITE = st.sampled_from(["inf", "-inf", "Infinity", "1e400", "2.5"])
TEXT = st.text(st.sampled_from('ab ,;\t"\n\réß漢😀1-'), max_size=8)
BOOLEAN = st.sampled_from(["True", "false", "TRUE"])
KINDS_OF_COLUMNS = st.sampled_from(
    [
        INTEGER,
        INTEGER | MISSING,
        FRACTION,
        INTEGER | FRACTION | MISSING,
        FRACTION | INFINITE,
        INTEGER | TEXT,
        FRACTION | BOOLEAN,
        TEXT | MISSING,
        BOOLEAN | MISSING,
        MISSING,
        st.sampled_from(["x", "y", "007", "7", ""]),
    ]
)


@st.composite
def files(draw: st.DrawFn) -> tuple[list[bytes], str]:
    """A well-formed CSV file as its records, and its delimiter."""
    delimiter = draw(st.sampled_from([",", ";", "\t"]))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    special = set('",;\t\r\n ')
    kinds = draw(st.lists(KINDS_OF_COLUMNS, min_size=1, max_size=4))

    def record(cells: list[str]) -> bytes:
        quoted = [
            '"' + cell.replace('"', '""') + '"' if not special.isdisjoint(cell) or draw(st.booleans()) else cell
            for cell in cells
        ]
        return (delimiter.join(quoted) + newline).encode()

    header = record([draw(st.sampled_from(["a", "a", "größe", 'q"\n,']), label="name") for _ in kinds])
    rows = draw(st.integers(1, 25))
    records = [header, *(record([draw(kind) for kind in kinds]) for _ in range(rows))]
    if draw(st.booleans()):
        records[0] = b"\xef\xbb\xbf" + records[0]
    if draw(st.booleans()):
        records[-1] = records[-1].removesuffix(newline.encode())
    return records, delimiter


@settings(max_examples=100, deadline=None)
@given(files(), st.data())
def test_parts_join_to_what_pandas_finds_in_the_whole_file(file: tuple[list[bytes], str], data: st.DataObject) -> None:
    records, delimiter = file
    content = b"".join(records)
    typed = read(content, sep=delimiter)
    if not len(typed):
        return
    by = data.draw(st.sampled_from([None, *typed.columns]), label="group by")
    numbers = [name for name in typed.columns if typed[name].dtype.kind in "iuf"]
    value = data.draw(st.sampled_from([None, *numbers]), label="value") if by else None
    part_size = max(map(len, records)) + data.draw(st.integers(0, 60), label="room")
    chunk = data.draw(st.sampled_from([1, 7, 64, 10**6]), label="chunk")
    ours = run(content, part_size=part_size, chunk=chunk, group_by=by, value=value, delimiter=delimiter)
    assert ours["parts"] >= math.floor((len(content) - len(records[0])) / part_size)
    assert_as_pandas(ours, content, delimiter, by, value)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('a1 ",\n'), max_size=40), st.integers(8, 40))
def test_what_is_malformed_fails_and_the_rest_is_read_as_pandas_reads_it(text: str, part_size: int) -> None:
    content = f"x,y\n{text}".encode()
    try:
        ours = run(content, part_size=part_size, chunk=3, group_by="y")
    except PipelineError as error:
        refused = str(error)
    else:
        assert_as_pandas(ours, content, ",", "y", None)
        return
    if "bytes: perhaps" in refused or "header row only" in refused:
        return
    try:
        found = read(content)
    except pd.errors.ParserError:
        return
    # pandas takes what the first record has too much of as row labels.
    assert refused == "A record has more fields than the header row."
    assert len(found.columns) == 2
    first = read(content, header=None, skiprows=1, nrows=1)
    assert len(first.columns) > 2


def ends_of_records(content: bytes) -> list[int]:
    """Walk through the states of pandas' tokenizer, byte by byte."""
    state, ends = "start", []
    for at, byte in enumerate(content):
        character = chr(byte)
        if state == "quoted":
            state = "quote" if character == '"' else "quoted"
        elif character == '"' and state in ("start", "quote"):
            state = "quoted"
        elif character in ",\r\n":
            state = "start"
            if character == "\n" or (character == "\r" and content[at + 1 : at + 2] not in (b"\n", b"")):
                ends.append(at + 1)
        else:
            state = "plain"
    return ends


@settings(max_examples=500, deadline=None)
@given(st.lists(st.text(st.sampled_from('a"",\r\n'), max_size=12).map(str.encode)))
def test_records_end_where_the_tokenizer_of_pandas_ends_them(blocks: list[bytes]) -> None:
    records, found, offset = RecordEnds(","), list[int](), 0
    for block in blocks:
        found += (offset + records.feed(block)).tolist()
        offset += len(block)
    assert found == ends_of_records(b"".join(blocks))


def column(result: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in result["columns"] if each["name"] == name)
    return found


def test_the_result_of_a_small_file() -> None:
    content = b"city,price\nRome,1.5\nOslo,2\nRome,\n,4\n"
    assert run(content, group_by="city", value="price") == {
        "rows": 4,
        "bytes": len(content),
        "parts": 1,
        "columns": [
            {
                "name": "city",
                "kind": "text",
                "count": 3,
                "missing": 1,
                "min": "Oslo",
                "max": "Rome",
                "sum": None,
                "mean": None,
                "std": None,
            },
            {
                "name": "price",
                "kind": "number",
                "count": 3,
                "missing": 1,
                "min": 1.5,
                "max": 4.0,
                "sum": 7.5,
                "mean": 2.5,
                "std": pytest.approx(1.3228756555322954, rel=1e-12),
            },
        ],
        "groups": {
            "by": "city",
            "value": "price",
            "rows": [
                {"group": "Oslo", "count": 1, "sum": 2.0, "mean": 2.0, "min": 2.0, "max": 2.0},
                {"group": "Rome", "count": 1, "sum": 1.5, "mean": 1.5, "min": 1.5, "max": 1.5},
            ],
            "truncated": False,
        },
    }


def test_a_column_is_text_if_one_part_of_it_is() -> None:
    result = run(b"a\n007\n7\n\nx\nTRUE\n1e9\n", part_size=5)
    assert result["parts"] > 3
    assert column(result, "a") | {"name": "a"} == {
        "name": "a",
        "kind": "text",
        "count": 5,
        "missing": 0,
        "min": "007",
        "max": "x",
        "sum": None,
        "mean": None,
        "std": None,
    }


def test_integers_are_summed_exactly() -> None:
    large = 2**63 - 1
    content = f"g,a,u\nx,{large},{2**64 - 1}\nx,{large},{2**64 - 1}\nx,{-(2**63)},1\n".encode()
    for part_size in (60, 10**6):
        result = run(content, part_size=part_size, group_by="g", value="a")
        signed, unsigned = column(result, "a"), column(result, "u")
        assert (signed["min"], signed["max"], signed["sum"]) == (-(2**63), large, 2 * large - 2**63)
        assert (unsigned["kind"], unsigned["max"], unsigned["sum"]) == ("number", 2**64 - 1, 2**65 - 1)
        assert result["groups"]["rows"][0]["sum"] == 2 * large - 2**63


@pytest.mark.parametrize("other", ["-1", '""'])
def test_integers_beyond_what_is_signed_are_text_beside_negative_or_missing_ones(other: str) -> None:
    content = f"a,b\n{2**63},1\n{other},1\n5,1\n".encode()
    assert column(run(content), "a")["kind"] == "text"
    assert not pd.api.types.is_numeric_dtype(read(content)["a"].dtype)


def test_integers_beyond_what_is_signed_are_text_if_another_part_has_negative_ones() -> None:
    result = run(f"a\n{2**63}\n-1\n5\n".encode(), part_size=20)
    assert result["parts"] == 2
    assert (column(result, "a")["kind"], column(result, "a")["max"]) == ("text", str(2**63))


def test_integers_beyond_64_bits_and_booleans_are_text() -> None:
    result = run(f"a,b\n{10**20},True\n5,False\n".encode())
    assert [(each["kind"], each["min"], each["max"]) for each in result["columns"]] == [
        ("text", str(10**20), "5"),
        ("text", "False", "True"),
    ]


def test_what_is_not_finite_has_a_name() -> None:
    result = run(b"g,a,b\nx,inf,1e308\nx,1,1e308\ny,-inf,1e308\n", part_size=16, group_by="g", value="a")
    a, b = column(result, "a"), column(result, "b")
    assert (a["min"], a["max"], a["sum"], a["mean"], a["std"]) == ("-inf", "inf", None, None, None)
    assert (b["min"], b["max"], b["sum"], b["mean"]) == (1e308, 1e308, "inf", "inf")
    assert [(row["sum"], row["max"]) for row in result["groups"]["rows"]] == [("inf", "inf"), ("-inf", "-inf")]


def test_the_deviation_is_accurate_far_from_zero() -> None:
    values = [10**9 + 0.25 * (number % 7) for number in range(500)]
    result = run("\n".join(["a", *map(str, values)]).encode(), part_size=100)
    assert result["parts"] > 50
    assert column(result, "a")["std"] == pytest.approx(float(np.std(values, ddof=1)), rel=1e-9)


def test_long_texts_are_cut() -> None:
    result = run(f"a,b\n{'x' * 500},1\n".encode())
    assert column(result, "a")["max"] == "x" * 200


def test_only_so_many_groups_are_shown() -> None:
    content = "\n".join(["a", *(f"g{number:05}" for number in range(1500))]).encode()
    groups = run(content, part_size=1000, group_by="a")["groups"]
    assert groups["truncated"]
    assert [row["group"] for row in groups["rows"]] == [f"g{number:05}" for number in range(1000)]


@pytest.mark.parametrize("part_size", [100, 10**6])
def test_too_many_groups_fail(part_size: int) -> None:
    content = "\n".join(["a", *map(str, range(101))]).encode()
    with patch.object(csv_statistics, "GROUP_LIMIT", 101):
        run(content, part_size=part_size, group_by="a")
    with patch.object(csv_statistics, "GROUP_LIMIT", 100), pytest.raises(PipelineError, match="more than 100 groups"):
        run(content, part_size=part_size, group_by="a")


MALFORMED = {
    "empty": (b"", "The file is empty."),
    "blank": (b"\xef\xbb\xbf\n \r\n\n", "The file is empty."),
    "header only": (b"a,b", "The file has a header row only."),
    "header and newline": (b"a,b\n", "The file has a header row only."),
    "header and blank lines": (b"a,b\n\n  \r\n", "The file has a header row only."),
    "too many fields": (b"a,b\n1,2\n1,2,3\n", "A record has more fields than the header row."),
    "too many fields in the first record": (b"a,b\n1,2,3\n", "A record has more fields than the header row."),
    "an open quote": (b'a,b\n1,"2\n3,4\n', "The file ends inside a quoted field: a closing quote is missing."),
    "an open quote at the end": (b'a,b\n1,"', "The file ends inside a quoted field: a closing quote is missing."),
    "an open quote in the header": (b'a,"b\n1,2', "The file ends inside a quoted field: a closing quote is missing."),
    "Latin-1": ("a,b\nGröße,2\n".encode("latin-1"), "The file is not a CSV file in UTF-8: invalid start byte."),
    "Latin-1 in the header": ("é,b\n1,2\n".encode("latin-1"), "not a CSV file in UTF-8"),
    "half a character at the end": ("a\nß".encode()[:-1], "not a CSV file in UTF-8: unexpected end of data."),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "The file is not a CSV file in UTF-8"),
    "a byte 0": (b"a,b\n1,\0\n", "The file is not a CSV file in UTF-8: it has a byte 0."),
    "a long record": (b"a,b\n1,2\n" + b"x" * 50 + b",1\n1,2\n", "The record at byte 8 has more than 50 bytes"),
    "a long record at the end": (b"a,b\n1,2\n" + b"x" * 51, "The record at byte 8 has more than 50 bytes"),
    "a long quoted record": (b'a,b\n1,"' + b"2,1\n" * 50 + b'"\n', "The record at byte 4 has more than 50 bytes"),
    "many columns": (b"," * 500 + b"\n1\n", "The file has 501 columns; at most 500 are allowed."),
    "a long header": (b"a" * (2**20 + 1) + b"\n1\n", "The header row does not end within 1048576 bytes."),
}


@pytest.mark.parametrize("chunk", [3, 10**6])
@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_fails(content: bytes, message: str, chunk: int) -> None:
    with pytest.raises(PipelineError) as raised:
        run(content, part_size=50, chunk=chunk)
    assert message in str(raised.value)


def test_records_of_too_few_fields_cannot_fill_the_memory() -> None:
    short = b",".join([b"a"] * 100) + b"\n" + b"1\n" * 1000
    assert run(short)["columns"][99]["missing"] == 1000
    with patch.object(csv_statistics, "PART_SIZE", 50_000), pytest.raises(PipelineError, match="far fewer fields"):
        run(short)


def test_full_records_are_never_too_many() -> None:
    content = b",,\n" + b",,\n" * 400
    with patch.object(csv_statistics, "PART_SIZE", 1200):
        assert run(content, part_size=1200)["rows"] == 400


def test_unknown_columns_fail() -> None:
    with pytest.raises(PipelineError, match=r"There is no column c\."):
        run(b"a,b\n1,2\n", group_by="c")
    with pytest.raises(PipelineError, match=r"There is no column c\."):
        run(b"a,b\n1,2\n", group_by="a", value="c")


@pytest.mark.parametrize("part_size", [4, 10**6])
def test_values_must_be_numbers(part_size: int) -> None:
    with pytest.raises(PipelineError, match=r"The column b has cells that are not numbers\."):
        run(b"a,b\n1,2\n1,x\n", part_size=part_size, group_by="a", value="b")


def test_a_long_name_of_a_group_fails() -> None:
    with pytest.raises(PipelineError, match="more than 1000 characters"):
        run(b"a,b\n" + b"x" * 1001 + b",2\n", group_by="a")


def test_a_deleted_file_fails() -> None:
    with pytest.raises(PipelineError, match="was deleted"):
        run(None)


def test_a_cancelled_task_stops_at_the_next_block() -> None:
    context = TaskContext(uuid4())
    read_on = pipeline._observed(context, [b"a", b"b"], 0, 2)
    with patch("fba_app.tasks.progress.write") as write:
        assert next(read_on) == b"a"
        write.assert_called_once_with(context.id, 50.0, "looking for where to divide the file")
        context.stop(InterruptedError)
        with pytest.raises(InterruptedError):
            next(read_on)


@pytest.mark.parametrize(
    "arguments",
    [
        {"value": "price"},
        {"delimiter": "|"},
        {"group_by": ""},
        {"group_by": "x" * 256},
        {"group_by": "\0"},
        {"file_id": "x"},
        {"other": 1},
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS["pipeline"].arguments.model_validate({"file_id": str(FILE), **arguments})


def test_another_users_file_is_refused() -> None:
    session, user = object(), object()
    arguments = KINDS["pipeline"].arguments.model_validate({"file_id": str(FILE)})
    check = KINDS["pipeline"].check
    assert check is not None
    refusal = InvalidError("There is no file.", ["body", "arguments", "file_id"])
    with patch("fba_app.files.service.may_use", side_effect=refusal) as may_use, pytest.raises(InvalidError):
        asyncio.run(check(session, user, arguments))  # type: ignore[arg-type]
    may_use.assert_awaited_once_with(session, user, FILE, ["body", "arguments", "file_id"])


def test_only_the_whole_may_be_submitted() -> None:
    assert KINDS["pipeline"].public
    assert not KINDS["pipeline_part"].public


def test_the_server_does_not_load_pandas() -> None:
    code = "import sys, fba_app.kinds.pipeline; print(sys.modules.keys() & {'numpy', 'pandas'})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert loaded.stdout.strip() == "set()"
