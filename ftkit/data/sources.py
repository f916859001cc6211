"""Where rows come from: a shipped task, a folder of splits, or one file.

A row is a dictionary. Whatever its format, `to_messages` turns it into the one that the rest of ftkit reads:
`{"messages": [{"role": ..., "content": ...}, ...]}`, the last message being the assistant's.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from ftkit.errors import DataError, near_matches

SPLITS = ("train", "validation", "test")
BUILTIN = ("tickets",)
"""Tasks whose data ships with ftkit."""

ROLES = ("system", "user", "assistant", "tool")


def load_data(source: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Read `source` into `{split: rows}`, every row in the messages format.

    Args:
        source: a shipped task (`"tickets"`), a folder with `train.jsonl` and, where there are any, `validation.jsonl`
            and `test.jsonl` (`.json` too), or one such file, which becomes the split `train`.

    Raises:
        DataError: the source does not exist, holds no rows, or a line of it is broken; the text names file and line.
    """
    if str(source) in BUILTIN:
        root = files("ftkit.data") / "builtin" / str(source)
        return {split: read_rows(Path(str(root / f"{split}.jsonl"))) for split in SPLITS}
    path = Path(source)
    if path.is_file():
        return {"train": read_rows(path)}
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"{path} does not exist; give a .jsonl or .json file, a folder that holds train.jsonl, or one of "
            f"{', '.join(BUILTIN)}.{near_matches(path.name, [*BUILTIN, *beside])}"
        )
    found = {s: p for s in SPLITS for p in (path / f"{s}.jsonl", path / f"{s}.json") if p.is_file()}
    if not found:
        raise DataError(f"{path} holds none of train.jsonl, validation.jsonl and test.jsonl; name its files so.")
    return {split: read_rows(file) for split, file in found.items()}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one `.jsonl` file (one object a line) or `.json` file (an array), in the messages format.

    Raises:
        DataError: with the file and the line (of `.json`: the row) at fault.
    """
    if path.suffix not in (".jsonl", ".json"):
        raise DataError(f"{path} ends in {path.suffix or 'nothing'!r}; rows are read from .jsonl or .json files.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    numbered = _lines(path, text) if path.suffix == ".jsonl" else _array(path, text)
    rows = [to_messages(row, where) for where, row in numbered]
    if not rows:
        raise DataError(f"{path} is empty; it must hold at least one row.")
    return rows


def _lines(path: Path, text: str):
    # Split at newlines only: str.splitlines would also cut at U+2028 and the like, which are legal inside JSON.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}, line {number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {number}, column {error.colno}: not valid JSON ({error.msg}); mend or remove the line."
            ) from None


def _array(path: Path, text: str):
    try:
        rows = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        hint = " A file with one object a line is named .jsonl." if error.msg == "Extra data" else ""
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}).{hint}"
        ) from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds one JSON {type(rows).__name__}; a .json file must hold an array of rows.")
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))


def to_messages(row: Any, where: str = "row") -> dict[str, Any]:
    """One row in the messages format, from `messages`, `prompt`/`completion` or `instruction`/`input`/`output`.

    Args:
        row: the row as read.
        where: how an error calls it, e.g. "data.jsonl, line 7".

    Raises:
        DataError: the row is in none of these formats, or has no assistant's answer to learn.
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be a JSON object, not {type(row).__name__}.")
    if "messages" in row:
        messages = row["messages"]
    elif {"prompt", "completion"} <= row.keys():
        messages = _turn(row["prompt"], row["completion"])
    elif {"instruction", "output"} <= row.keys():
        context = row.get("input")
        messages = _turn(f"{row['instruction']}\n\n{context}" if context else row["instruction"], row["output"])
    else:
        raise DataError(
            f"{where}: has the fields {', '.join(map(repr, row)) or '(none)'}; expected messages, or prompt and "
            "completion, or instruction, input and output."
        )
    _check_messages(messages, where)
    return {"messages": messages}


def _turn(user, assistant) -> list[dict]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def _check_messages(messages: Any, where: str) -> None:
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: messages must be a list of role and content, and not empty.")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            role = message.get("role") if isinstance(message, dict) else message
            raise DataError(f"{where}: message {number} has the role {role!r}; expected one of {', '.join(ROLES)}.")
        if not isinstance(message.get("content"), str):
            raise DataError(f"{where}: message {number} ({message['role']}) has no text in content.")
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"{where}: the last message is the {messages[-1]['role']}'s; it must be the assistant's answer."
        )
    if not messages[-1]["content"].strip():
        raise DataError(f"{where}: the assistant's answer is empty; there is nothing to learn from it.")
