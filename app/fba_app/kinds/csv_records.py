"""Where the records of a CSV file begin and end, found without parsing them.

A quote opens only at the start of a field, as in pandas: elsewhere, as in `5" pipe`, it is a character like any other.
"""

import codecs
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADER_LIMIT = 2**20
"""Bytes in which the header row must end."""

COLUMN_LIMIT = 500

PART_SIZE = 8 * 2**20
"""Bytes of a part at most: what one task holds in memory, with some thirty times as much for what it makes of them."""

BLOCK = 2**16
"""Bytes that are searched at once: with all that is made of them, about what a processor's cache holds."""

LF, CR, QUOTE = b'\n\r"'


class PipelineError(ValueError):
    """The file cannot be worked on as it is. The message is for whoever uploaded it."""


class RecordEnds:
    """Finds the ends of records in successive blocks of bytes, at hundreds of megabytes a second."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = ord(delimiter)
        self._quoted = False
        self._before = b"\n"
        """The end of the last block: its last byte that is no quote, and one or two quotes if quotes followed."""

    def feed(self, block: bytes) -> "NDArray[np.int64]":
        """Return the offsets in this block at which a record has just ended, in ascending order."""
        import numpy as np

        data = self._before + block
        codes = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(codes[1:] == LF) + 1
        if CR in data:
            alone = np.flatnonzero((codes[:-1] == CR) & (codes[1:] != LF))
            ends = np.sort(np.concatenate((ends, alone)))

        # Quotes at the end wait for the next block, which may go on with more of them.
        settled = len(data.rstrip(b'"'))
        quotes = np.flatnonzero(codes[:settled] == QUOTE)
        inside = np.array([self._quoted])
        if quotes.size:
            # An even run of quotes, such as a doubled one, changes nothing. An odd run at the start of a field, or at
            # what looks like it from inside quotes, opens or closes; any other closes, or is of an unquoted field.
            first = np.flatnonzero(np.diff(quotes, prepend=-1) != 1)
            odd = np.diff(first, append=quotes.size) & 1 == 1
            quotes = quotes[first[odd]]
            before = codes[quotes - 1]
            toggles = (before == self._delimiter) | (before == LF) | (before == CR)
            count = np.cumsum(toggles) + self._quoted
            since = count - np.maximum.accumulate(np.where(toggles, 0, count))
            inside = np.append(inside, since & 1 == 1)
        offsets: NDArray[np.int64] = ends[~inside[np.searchsorted(quotes, ends)]] + 1 - len(self._before)

        self._quoted = bool(inside[-1])
        trailing = len(data) - settled
        self._before = data[settled - 1 : settled] + b'"' * (trailing and 2 - trailing % 2)
        # Less than 0 is what the last block has reported.
        return offsets[offsets >= 0]

    def finish(self) -> None:
        """Say that there are no more blocks.

        Raises:
            PipelineError: they ended inside quotes.
        """
        self.feed(b"\n")
        if self._quoted:
            raise PipelineError("The file ends inside a quoted field: a closing quote is missing.")


def _decode(data: bytes, decoder: codecs.IncrementalDecoder, final: bool) -> None:
    if 0 in data:
        raise PipelineError("The file is not a CSV file in UTF-8: it has a byte 0.")
    try:
        decoder.decode(data, final)
    except UnicodeDecodeError as error:
        raise PipelineError(f"The file is not a CSV file in UTF-8: {error.reason}.") from None


def checked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Give the chunks on, in blocks.

    Raises:
        PipelineError: they are not text in UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    for chunk in chunks:
        for start in range(0, len(chunk), BLOCK):
            block = chunk[start : start + BLOCK]
            _decode(block, decoder, final=False)
            yield block
    _decode(b"", decoder, final=True)


def read_header(head: bytes, delimiter: str) -> tuple[list[str], int]:
    """Return the names of the columns, as pandas makes them unique, and the offset at which the header row has ended.

    Args:
        head: the first HEADER_LIMIT bytes of the file.
        delimiter: one character.

    Raises:
        PipelineError: there is no header row with something below it, or it is malformed or too long.
    """
    import pandas as pd

    begin = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    records = RecordEnds(delimiter)
    for end in (begin + records.feed(head[begin:])).tolist():
        # Lines of blanks above the header are skipped, as pandas does.
        if head[begin:end].strip(b" \t\r\n".replace(delimiter.encode(), b"")):
            break
        begin = end
    else:
        if len(head) >= HEADER_LIMIT:
            raise PipelineError(f"The header row does not end within {HEADER_LIMIT} bytes.")
        records.finish()
        raise PipelineError("The file has a header row only." if head[begin:].strip() else "The file is empty.")
    if end == len(head) < HEADER_LIMIT:
        raise PipelineError("The file has a header row only.")
    _decode(head[:end], codecs.getincrementaldecoder("utf-8")(), final=True)
    names = [str(name) for name in pd.read_csv(BytesIO(head[:end]), sep=delimiter, nrows=0).columns]
    if len(names) > COLUMN_LIMIT:
        raise PipelineError(f"The file has {len(names)} columns; at most {COLUMN_LIMIT} are allowed.")
    return names, end


def split(chunks: Iterable[bytes], start: int, delimiter: str, part_size: int) -> Iterator[tuple[int, int]]:
    """Divide the file into parts of whole records, as large as `part_size` bytes allow: the start and end of each.

    Args:
        chunks: the file's bytes from `start` on, where a record begins.
        start: an offset in the file.
        delimiter: one character.
        part_size: bytes.

    Raises:
        PipelineError: a record is larger than a part, or a closing quote is missing.
    """
    import numpy as np

    records = RecordEnds(delimiter)
    offset = last = start
    for chunk in chunks:
        ends = offset + records.feed(chunk)
        offset += len(chunk)
        while offset > start + part_size:
            fitting = int(np.searchsorted(ends, start + part_size, side="right"))
            end = int(ends[fitting - 1]) if fitting else last
            if end == start:
                raise PipelineError(
                    f"The record at byte {start} has more than {part_size} bytes: perhaps a closing quote is missing."
                )
            yield start, end
            start = end
        if ends.size:
            last = int(ends[-1])
    records.finish()
    if start < offset:
        yield start, offset
