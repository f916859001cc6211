"""Rows of one file, each with the place where it stands; a row that cannot be read is an error with that place."""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.data.formats import BrokenRow, from_table, not_utf8, recognise
from ftkit.data.json_arrays import WHITE, elements, fault_of
from ftkit.errors import DataError

if TYPE_CHECKING:
    from pyarrow import RecordBatch

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
PACKED = (".gz", ".zst")

LONGEST_CELL = 2**26
"""Characters of a cell of a CSV file, above which a quote was not closed."""

Located = tuple[str, Any]
"""Where a row stands, and the row or the `BrokenRow` that stands in its place."""
Stretch = tuple[int, int]
"""Lines that follow one another: the byte at which they begin, and the number of the first."""
STRETCH = 1000
"""Lines of a stretch."""


def suffix_of(path: Path) -> str:
    """The ending that says how to read a file, in small letters and without that of a compression."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return Path(name).suffix


def stretches(path: Path) -> list[Stretch]:
    """The stretches of a file of lines that is not compressed.

    Raises:
        DataError: it cannot be read.
    """
    found, at = [], 0
    with _reading(path), open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if (number - 1) % STRETCH == 0:
                found.append((at, number))
            at += len(line)
    return found


def read_file(path: Path, stretch: Stretch | None = None) -> Iterator[Located]:
    """The rows of a .jsonl, .json (array or one object a line), .csv or .parquet file, and of the text formats
    compressed as .gz or .zst. Lines are read as a stream; an array is held whole.

    Args:
        path: of the file.
        stretch: of a .jsonl file that is not compressed: these lines alone.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    suffix = suffix_of(path)
    readers = {".jsonl": _lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    if suffix not in readers or (suffix == ".parquet" and not path.name.lower().endswith(suffix)):
        raise DataError(
            f"{path} ends in {path.suffix or 'nothing'!r}; rows are read from {', '.join(SUFFIXES)} files (all but "
            ".parquet also with .gz or .zst behind)."
        )
    with _reading(path):
        yield from readers[suffix](path) if stretch is None else _lines(path, *stretch, STRETCH)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _open(path: Path) -> io.BufferedReader:
    from pyarrow import input_stream

    packed = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
    return io.BufferedReader(input_stream(str(path), compression=packed) if packed else open(path, "rb", buffering=0))


def _lines(path: Path, at: int = 0, first: int = 1, count: int | None = None) -> Iterator[Located]:
    with _open(path) as file:
        if at:
            file.seek(at)
        # Cut at newlines only: str.splitlines would also cut at U+2028 and the like, which are legal inside JSON.
        for number, line in enumerate(islice(file, count), start=first):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n\t ")
                if text:
                    yield where, json.loads(text)
            except UnicodeDecodeError as error:
                yield where, not_utf8(where, f" at byte {error.start}")
            except (ValueError, RecursionError) as error:
                at = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
                yield where, BrokenRow(where + at, f"{fault_of(error)}; mend or remove the line.", "not valid JSON")


def _json(path: Path) -> Iterator[Located]:
    text, lost = _text_of(path)
    begin = WHITE.match(text).end()
    if text[begin : begin + 1] == "[":
        yield from elements(path, text, sound=lost is None)
        return
    fault, value = None, []
    try:
        value = json.loads(text) if begin < len(text) else []
    except (ValueError, RecursionError) as error:
        fault = error
    if fault is not None and _is_of_lines(text):
        del text, fault  # lines are read as a stream
        yield from _lines(path)
    elif fault is not None and lost is not None:
        raise DataError(f"{path} is not UTF-8 at byte {lost}; save it as UTF-8.")
    elif fault is not None:
        at = f", line {fault.lineno}, column {fault.colno}" if isinstance(fault, json.JSONDecodeError) else ""
        raise DataError(f"{path}{at}: {fault_of(fault)}.")
    elif recognise(value):
        where = f"{path}, line {1 + text.count(chr(10), 0, begin)}"
        yield where, value if lost is None else not_utf8(where, f" at byte {lost}")
    elif value != []:
        inside = ", ".join(map(repr, value)) if isinstance(value, dict) else ""
        hint = f" It holds {inside}: save the array in it as a file of its own." if inside else ""
        raise DataError(f"{path} holds one JSON {type(value).__name__}; a .json file must hold an array of rows.{hint}")


def _text_of(path: Path) -> tuple[str, int | None]:
    """The text of a file, and the first byte of it that is no UTF-8; such bytes become halves of surrogate pairs."""
    with _open(path) as file:
        raw = file.read()
    try:
        return raw.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        return raw.decode("utf-8-sig", errors="surrogateescape"), error.start


def _is_of_lines(text: str) -> bool:
    """Whether a text that is not JSON as a whole is so by lines: its first is an object, or any of them is a row."""
    lines = filter(None, (line[0].strip("\r\t ") for line in re.finditer("[^\n]+", text)))
    return isinstance(_value(next(lines, "")), dict) or any(recognise(_value(line)) for line in lines)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _csv(path: Path) -> Iterator[Located]:
    # A cell beyond the reader's 131,072 characters would be cut into pieces that look like rows.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines)
        header: list[str] | None = None
        while True:
            where = f"{path}, line {lines.begin_record()}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                cells, lines.open = [], str(error)
            if lines.open:
                if header is None:
                    raise DataError(f"{where}: a quote opens in the headings and is not closed ({lines.open}).")
                yield where, _unclosed(where, lines, len(header))
            elif not cells:
                continue
            elif header is None:
                header = cells
                if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), None)):
                    raise DataError(f"{path} separates its cells by {other!r}; save it with commas.")
            elif len(cells) != len(header):
                to = f", to line {lines.number}," if len(lines.record) > 1 else ""
                what = f"has{to} {len(cells)} cells under {len(header)} headings."
                yield where, BrokenRow(where, what, "wrong number of cells")
            elif not _is_utf8(cells):
                yield where, not_utf8(where)
            else:
                yield where, dict(zip(header, cells, strict=True))


class _Lines:
    """The lines of a CSV file as its reader asks for them. Those of the last record are kept, to be read once more.

    Attributes:
        record: lines of the last record.
        number: of the last line.
        open: why the last record has no end; empty where it has.
    """

    def __init__(self, file: Iterator[str]) -> None:
        self.record: list[str] = []
        self.number, self.open = 0, ""
        self._file, self._again = file, []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._file, None)
        if line is None:
            # The reader asks for a further line of one record only within quotes.
            self.open = "the file ends" if self.record else ""
            raise StopIteration
        self.number += 1
        self.record.append(line)
        return line

    def begin_record(self) -> int:
        """The number of the line at which the next record begins."""
        self.record, self.open = [], ""
        return self.number + 1

    def go_back(self) -> None:
        """Read all lines of the record but the first once more."""
        again = self.record[1:]
        self.number -= len(again)
        self._again += reversed(again)


def _unclosed(where: str, lines: _Lines, cells: int) -> BrokenRow:
    """The fault of a record whose quote is not closed. The lines behind its first are read as rows, where most of them
    look like some: a text that was cut off has lines too."""
    what = f"a quote opens and is not closed ({lines.open})"
    goes_on = f"what stands from there to line {lines.number} are no rows"
    if _are_rows(lines.record[1:], cells):
        lines.go_back()
        goes_on = "reading goes on at the next line"
    return BrokenRow(where, f"{what}; {goes_on}.", "a quote that is not closed")


def _are_rows(lines: list[str], cells: int) -> bool:
    try:
        fitting = [len(row) == cells for row in csv.reader(lines) if row]
    except csv.Error:
        return False
    return sum(fitting) * 2 >= len(fitting)


def _is_utf8(cells: list[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:  # a byte that was no UTF-8 stands in the text as half of a surrogate pair
        return False
    return True


def _parquet(path: Path) -> Iterator[Located]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for row in _rows_of(batch):
                    number += 1
                    where = f"{path}, row {number}"
                    yield where, not_utf8(where) if row is None else from_table(row)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is not a Parquet file: {error}.") from None


def _rows_of(batch: "RecordBatch") -> Iterator[dict[str, Any] | None]:
    """The rows of a batch; None for one whose text is no UTF-8, which Arrow does not look at when it reads."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        if len(batch) == 1:
            yield None
        else:
            for i in range(len(batch)):
                yield from _rows_of(batch.slice(i, 1))
