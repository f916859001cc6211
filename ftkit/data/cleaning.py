"""Cleaning that takes nothing a reader could see, and filters that know prose from code, mathematics and tables."""

import json
import re
import unicodedata
import zlib
from typing import Any, Literal

Kind = Literal["prose", "code", "math", "table", "json"]

# Control characters but tab and newline, DEL, the C1 block, and characters without width that join nothing. The
# joiners U+200C and U+200D stay: Persian, Hindi and emoji need them.
_REMOVED = {c: None for c in (*range(0x20), *range(0x7F, 0xA0), 0x200B, 0x2060, 0xFEFF) if c not in (0x09, 0x0A, 0x85)}
_REMOVED[0x85] = "\n"
_SURROGATES = re.compile("[\ud800-\udfff]")

_CODE = re.compile(
    r"```|^\s*(def |class |import |from \w+ import|#include|function |const |let |var |public |private |fn |SELECT |"
    r"package |return\b|(if|for|while)\b.*[:{(]$|\w+ = )|[;{}]\s*$|=>|->|\(\)|==",
    re.MULTILINE | re.IGNORECASE,
)
_MATH = re.compile(r"\$[^$]+\$|\\(frac|sum|int|begin|alpha|cdot|sqrt)|[0-9)]\s*[-+*/=^×÷<>]\s*[-0-9(]")

MAX_UNDECODED = 0.01
"""Share of U+FFFD above which a text was read with the wrong encoding."""
MIN_LETTERS = 0.5
"""Least share of letters, marks, digits and spaces in prose. Marks count: Hindi, Thai or Arabic are written with
them."""
LONG_ENOUGH = 300
"""Characters from which a text is long enough to say that it repeats itself or has too few letters."""
MAX_COMPRESSION = 0.1
"""Size after zlib over size before, below which a text is one phrase over and over. Prose of that length stands at
0.5, a table of numbers at 0.2."""

_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)

_MOJIBAKE = re.compile("(Ã[\x80-\xbf©¨¼¶¤«¢ª³§]|â€[™œ\x9d“”¦˜]|Â[ \xa0°»«£])")


def clean_text(text: Any) -> str:
    """`text` without control characters, byte order marks and zero-width spaces, and without blank lines around it.

    Newlines (as `\\n`), tabs, indentation, every script, joiners and emoji stay. Half a surrogate pair becomes U+FFFD.
    What is no string becomes the empty string. Cleaning twice is cleaning once.
    """
    if not isinstance(text, str):
        return ""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not (text.isascii() and text.replace("\n", "").replace("\t", "").isprintable()):  # most texts have no such
        text = _SURROGATES.sub("\ufffd", text.translate(_REMOVED))
    lines = text.rstrip().split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    return "\n".join(lines[first:])


def clean_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row in the messages format, or of plain text, with every content cleaned."""
    if "text" in row:
        return row | {"text": clean_text(row["text"])}
    return row | {"messages": [message | {"content": clean_text(message["content"])} for message in row["messages"]]}


def row_text(row: dict[str, Any]) -> str:
    """What a row says: its text, or the contents of all its messages but the system's, a line apart. The call of a tool
    is said too: rows that differ in nothing else are no duplicates."""
    if "text" in row:
        return row["text"]
    return "\n".join(_said(message) for message in row["messages"] if message["role"] != "system")


def _said(message: dict[str, Any]) -> str:
    if not message.get("tool_calls"):
        return message["content"]
    calls = (clean_text(_call(call)) for call in message["tool_calls"])
    return "\n".join([message["content"], *calls] if message["content"] else calls)


def _call(call: dict[str, Any]) -> str:
    """A call without what all calls have in common, in which two would look alike: its name and, as JSON, its
    arguments."""
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or "arguments" not in function:
        return _JSON.encode(call)
    arguments = function["arguments"]
    return f"{function['name']} {arguments if isinstance(arguments, str) else _JSON.encode(arguments)}"


def kind_of(text: str) -> Kind:
    """What kind of text this is, by its signs: JSON that parses, rows of cells, code, mathematics, else prose."""
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        try:
            json.loads(stripped)
            return "json"
        except (ValueError, RecursionError):
            pass
    lines = stripped.split("\n")
    if len(lines) > 1 and sum(line.count("|") > 1 or line.count("\t") > 0 for line in lines) > len(lines) / 2:
        return "table"
    if len(_CODE.findall(stripped)) >= max(2, len(lines) / 4):
        return "code"
    if len(_MATH.findall(stripped)) >= max(1, len(stripped) / 200):
        return "math"
    return "prose"


def quality_problem(text: str, min_length: int = 1, max_length: int | None = None) -> str | None:
    """Why a text should not be trained on; None where nothing speaks against it.

    Args:
        text: as it is read, without a chat template around it.
        min_length, max_length: bounds in characters.

    Returns:
        "too short", "too long", "wrong encoding", "repetitive", or "few letters", the last for prose alone: code,
        mathematics, tables and JSON are made of other characters.
    """
    if len(text.strip()) < min_length:
        return "too short"
    if max_length is not None and len(text) > max_length:
        return "too long"
    if not text.isascii() and (
        text.count("\ufffd") > MAX_UNDECODED * len(text) or len(_MOJIBAKE.findall(text)) * 100 > len(text)
    ):
        return "wrong encoding"
    if len(text) >= LONG_ENOUGH:
        raw = text.encode(errors="replace")
        if len(zlib.compress(raw, 1)) < MAX_COMPRESSION * len(raw):
            return "repetitive"
        if not text.isascii() or sum(map(str.isalnum, text)) + text.count(" ") < MIN_LETTERS * len(text):
            if _letters(text) < MIN_LETTERS * len(text) and kind_of(text) == "prose":
                return "few letters"
    return None


def _letters(text: str) -> int:
    return sum(char.isspace() or unicodedata.category(char)[0] in "LMN" for char in text)
