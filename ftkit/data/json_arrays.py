"""Rows of a JSON array, of which one that is broken costs no other."""

import json
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from ftkit.data.formats import BrokenRow, not_utf8, recognise

WHITE = re.compile(r"[ \t\r\n]*")
_GAP = re.compile(r"[ \t\r\n,]*")
_OPENED = re.compile(r"\{[ \t]*\r?\n([ \t]*)")
_LOST = re.compile("[\udc80-\udcff]")
"""Bytes that are no UTF-8, as "surrogateescape" writes them."""
_PARTS = frozenset(("role", "from", "type", "function", "arguments", "parameters"))
"""Keys of what stands in a row, and not of rows."""
_PIECES = (2**12, 2**16)
_LONGEST_WORD = len("-Infinity")
_DECODER = json.JSONDecoder()


def fault_of(error: Exception) -> str:
    """What the reader of JSON says, in words."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg})"
    if isinstance(error, RecursionError):
        return "nested too deeply to be read"
    return "holds a number of more digits than can be read"


class _Fault(Exception):
    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.what, self.at = what, at


class _Place:
    """A place in a text, which goes on and counts the lines that it passes."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.line, self._begin = text, 0, 1, 0

    def go(self, at: int) -> None:
        self.line, self._begin, self.at = *self._line(at), at

    def ahead(self, at: int) -> str:
        """Line and column of `at`, which is not yet gone by, in words."""
        line, begin = self._line(at)
        return f"line {line}, column {at - begin + 1}"

    def _line(self, at: int) -> tuple[int, int]:
        passed = self.text.count("\n", self.at, at)
        begin = self.text.rfind("\n", self.at, at) + 1 if passed else self._begin
        return self.line + passed, begin


def elements(path: Path, text: str, sound: bool) -> Iterator[tuple[str, Any]]:
    """The elements of a JSON array, or of several one behind the other, each with its place, as
    `ftkit.data.readers.read_file` gives them.

    Args:
        sound: no byte of the text was written as half of a surrogate pair, because it is no UTF-8.
    """
    place, inside, known = _Place(text), False, frozenset()
    while True:
        place.go(_GAP.match(text, place.at).end())
        where = f"{path}, line {place.line}"
        if place.at == len(text):
            break
        if text[place.at] == ("]" if inside else "["):
            inside = not inside
            place.go(place.at + 1)
            continue
        try:
            if not inside:
                raise _Fault("not valid JSON (Something behind the end of the array)", place.at)
            row, end = _decoded(text, place.at)
        except _Fault as fault:
            further = _next_element(text, place.at, fault.at, known)
            goes_on = "nothing behind it was read" if further is None else f"reading goes on at {place.ahead(further)}"
            yield where, BrokenRow(f"{path}, {place.ahead(fault.at)}", f"{fault.what}; {goes_on}.", "not valid JSON")
            if further is None:
                return
            inside = True
            place.go(further)
            continue
        known = row.keys() if isinstance(row, dict) else known
        yield where, row if sound or not _LOST.search(text, place.at, end) else not_utf8(where)
        place.go(end)
    if inside:
        yield where, BrokenRow(where, "the array is not closed.", "not valid JSON")


def _decoded(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends.

    An error of the reader of JSON counts all lines before it, so it is given a short piece first.

    Raises:
        _Fault: there is none.
    """
    for size in _PIECES:
        piece = text[at : at + size]
        try:
            value, end = _DECODER.raw_decode(piece)
        except json.JSONDecodeError as error:
            cut_off = error.pos >= size - _LONGEST_WORD or error.msg.startswith("Unterminated")
            if not (cut_off and at + size < len(text)):
                raise _Fault(fault_of(error), at + error.pos) from None
        except (ValueError, RecursionError) as error:
            raise _Fault(fault_of(error), at) from None
        else:
            if end < len(piece) or at + size >= len(text):  # else a number may go on
                return value, at + end
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise _Fault(fault_of(error), getattr(error, "pos", at)) from None


def _next_element(text: str, begin: int, fault: int, known: Set[str]) -> int | None:
    """Where the next element begins behind the one at `begin` that is broken at `fault`; None where none is found.

    Each `{` may open a row, or but a message of the broken one; and a row that misses a bracket or a quote takes those
    behind it in. Where elements have lines of their own, the indentation tells which; else what follows does, see
    `_run`.

    Args:
        known: keys of the row before.
    """
    indentation = _indentation(text, begin)
    line = -1 if indentation is None else text.find(f"\n{indentation}{{", begin + 1)
    end = len(text) if line < 0 else line + 1 + len(indentation)
    at = begin + 1
    while (at := text.find("{", at, end)) >= 0:
        at, found, closed = _run(text, at, fault, known)
        if found is not None and (closed or indentation is None):
            return min(found, end)
    return None if line < 0 else end


def _indentation(text: str, begin: int) -> str | None:
    """The white space before an element that has lines of its own; None where it has not, or what is in it is not
    indented further."""
    at = begin
    while at and text[at - 1] in " \t":
        at -= 1
    opened = _OPENED.match(text, begin)
    if not at or text[at - 1] != "\n" or (opened and len(opened[1]) <= begin - at):
        return None
    return text[at:begin]


def _run(text: str, at: int, fault: int, known: Set[str]) -> tuple[int, int | None, bool]:
    """The elements that follow one another from `at` on: where they end, which of them begins the rows, and whether
    their array ends there, and nothing but another array follows.

    Such an array is that of the rows. Where the elements end with a broken one or with the file, the array can be any.
    """
    begin, first, sure = at, None, None
    while True:
        try:
            value, end = _decoded(text, at)
        except _Fault:
            return max(at, begin + 1), sure, False
        if first is None and _may_be_row(value, known):
            first = at
        if sure is None and _must_be_row(value, known, at < fault):
            sure = at
        at = WHITE.match(text, end).end()
        apart, at = text.startswith(",", at), _GAP.match(text, at).end()
        mark = text[at : at + 1]
        if mark == "]":
            behind = WHITE.match(text, at + 1).end()
            closed = text[behind : behind + 1] not in (",", "]", "}")
            return at + 1, (begin if first is None else first) if closed else None, closed
        if mark in ("}", ":") or not (apart or mark in ("{", "")):
            return end, None, False
        if not mark:
            return at, sure, False


def _may_be_row(value: Any, known: Set[str]) -> bool:
    """Whether this does not look like a part of a row, by its keys and those of a row before."""
    return isinstance(value, dict) and bool(value.keys() & known or (value and not value.keys() & _PARTS))


def _must_be_row(value: Any, known: Set[str], inside: bool) -> bool:
    """Whether this looks like a row, wherever it stands; in what was read of a broken row, a text can be part of it."""
    if not _may_be_row(value, known):
        return False
    kind = recognise(value)
    if inside:
        return kind not in (None, "text") or (len(value) > 1 and value.keys() == known)
    return kind is not None or not known or bool(value.keys() & known)
