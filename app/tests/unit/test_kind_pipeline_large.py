"""The kind `pipeline` with a file of 100 MB: the memory it takes, and its numbers against those of pandas."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fba_app.kinds.csv_records import PART_SIZE
from tests.unit.test_kind_pipeline import FILE, assert_as_pandas, divide, finish, run, stored

ARGUMENTS = {"file_id": str(FILE), "group_by": "city", "value": "price"}
SIZE = 100 * 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    filler = "lorem ipsum, dolor sit amet, " * 8
    # Each `#` is another number in each copy.
    rows = "".join(f'{i},"c""{i % 50}\n漢",#{i % 1000}.{i % 97:02},"{filler}{i}"\r\n' for i in range(10_000)).encode()
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.write(b"number,city,price,text\r\n")
        copy = 0
        while file.tell() < SIZE:
            copy += 1
            file.write(rows.replace(b"#", b"%d" % copy))
    return path


def megabytes(name: str) -> int:
    """Of this process: `VmRSS`, what it holds; `VmHWM`, the most that it has held."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith(name))) // 1024


def measure(path: Path) -> dict[str, Any]:
    """Run the pipeline in this process, after all that it imports is there."""
    run(b"city,price\nx,1\n", group_by="city", value="price")
    before = megabytes("VmRSS")
    with path.open("rb") as file, stored(file, path.stat().st_size, part_size=PART_SIZE, chunk=2**20):
        parts = divide(ARGUMENTS)
        divided = megabytes("VmHWM")
        result = finish(ARGUMENTS, parts)
    return {"division": divided - before, "all": megabytes("VmHWM") - before, "result": result}


def test_memory_is_bounded_and_the_numbers_are_right(file: Path) -> None:
    # A process of its own: this one has held more already.
    command = [sys.executable, "-m", __name__, str(file)]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603
    assert measured["division"] < 40
    assert measured["all"] < 200
    assert measured["result"]["parts"] == 13
    assert_as_pandas(measured["result"], file.read_bytes(), ",", "city", "price")


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
