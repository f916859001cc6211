"""The formats of rows, and the one that the rest of ftkit reads.

`to_messages` turns each into `{"messages": [{"role": ..., "content": ...}, ...]}`, the last message being the
assistant's, with `tools` beside it where the row offers any; plain text stays `{"text": ...}`.
"""

import json
import reprlib
from collections.abc import Set
from typing import Any

from ftkit.errors import ConfigError, DataError

ROLES = ("system", "user", "assistant", "tool")

FORMATS = {
    "messages": "messages: a list of role and content, with tool_calls and tools where there are any",
    "sharegpt": "conversations: a list of from and value, or of role and content",
    "prompt/completion": "prompt and completion: two texts, or two lists of messages",
    "alpaca": "instruction, output (or response) and, where there is any, input, system and history",
    "text": "text: trained as it stands, without a chat template",
    "columns": "columns that were named by the caller",
}
"""Name of a format: what a row of it holds."""

MOST_LEVELS = 100
"""Levels of lists and objects in a row's tools or a message's further keys: what is read must be written again, and a
template must walk through it."""

_EXCHANGE = ("user", "assistant")
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


class BrokenRow(DataError):
    """One row that cannot be used; `reason` is the same for all rows with this fault, so that they can be counted."""

    def __init__(self, where: str, what: str, reason: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.what, self.reason = where, what, reason

    def __reduce__(self) -> tuple:  # an exception is rebuilt from its one text, unless it says otherwise
        return type(self), (self.where, self.what, self.reason)


def not_utf8(where: str, at: str = "") -> BrokenRow:
    """What stands in the place of a row with bytes of another encoding."""
    return BrokenRow(where, f"not UTF-8{at}; save it as UTF-8.", "not UTF-8")


def recognise(row: Any) -> str | None:
    """The format of a row, one of `FORMATS`; None where it is in none of them.

    The keys that hold something decide: a table of rows in several formats has the keys of all of them. Where those
    make no format, all keys do, so that it can be said what is missing.
    """
    if not isinstance(row, dict):
        return None
    return _format({key for key, value in row.items() if not missing(value)}) or _format(row.keys())


def _format(keys: Set[Any]) -> str | None:
    if "messages" in keys:
        return "messages"
    if "conversations" in keys:
        return "sharegpt"
    if {"prompt", "completion"} <= keys:
        return "prompt/completion"
    if "instruction" in keys and ("output" in keys or "response" in keys):
        return "alpaca"
    return "text" if "text" in keys else None


def missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, or what pandas writes for it."""
    if value is None or isinstance(value, str | list | dict):  # most are
        return value is None
    return (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")


def from_table(value: Any, sparse: bool = False) -> Any:
    """A row of a table, or a part of one, as JSON would hold it: lists for arrays, None for what is missing.

    Arrow gives every struct the keys of all rows. In `tools` and `tool_calls` those would be read as arguments, so keys
    without a value are left out there (`sparse`); one that was written as null on purpose, which the table cannot tell
    apart, goes with them.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        cells = {key: from_table(cell, sparse or key in ("tools", "tool_calls")) for key, cell in value.items()}
        return {key: cell for key, cell in cells.items() if cell is not None} if sparse else cells
    if isinstance(value, list | tuple):
        return [from_table(item, sparse) for item in value]
    if hasattr(value, "tolist"):  # an array of NumPy's or a number of it
        return from_table(value.tolist(), sparse)
    return None if missing(value) else value


def named_columns(
    text: str, instruction: str | None, response: str | None, system: str | None
) -> dict[str, str] | None:
    """The `columns` of `to_messages` by the names that a caller gave; None where it gave none.

    Raises:
        ConfigError: one is named that would not be used, without another or beside it.
    """
    if instruction is None and response is None:
        if system is not None:
            raise ConfigError(
                f"the system column {system!r} is named without instruction and response columns; name all three."
            )
        return {"text": text} if text != "text" else None
    if instruction is None or response is None:
        raise ConfigError("instruction and response columns are named together; one of them is missing.")
    if text != "text":
        raise ConfigError(f"name either the text column {text!r} or instruction and response columns, not both.")
    named = {"instruction": instruction, "response": response}
    return named | ({"system": system} if system is not None else {})


def to_messages(
    row: Any, where: str = "row", columns: dict[str, str] | None = None, *, answered: bool = True
) -> dict[str, Any]:
    """One row in the messages format, from any of `FORMATS`.

    Args:
        row: the row as read.
        where: how an error calls it, e.g. "data.jsonl, line 7".
        columns: names of the row's columns by meaning: `instruction` and `response`, with `input` and `system` where
            there are any, or `text`. They are then used and nothing is recognised; a column that is called `input`
            needs no name to be part of the question.
        answered: refuse a row without an answer. False is for test rows that are asked and not trained on: the last
            message may then be the user's, and prompt or instruction may stand alone.

    Returns:
        `messages` (and `tools`), or `text`. A message's content is a string; further keys of it are passed through.

    Raises:
        BrokenRow: the row is in none of the formats, or has nothing to learn from.
    """
    if not isinstance(row, dict):
        raise BrokenRow(where, f"a row must be a JSON object, not {type(row).__name__}.", "not an object")
    if columns:
        if absent := [name for name in columns.values() if name not in row]:
            has = ", ".join(map(repr, row))
            raise BrokenRow(where, f"has no column {absent[0]!r}; it has {has}.", "a named column is missing")
        if "text" in columns:
            return _text(row[columns["text"]], where)
        named = {key: row[name] for key, name in columns.items()}
        if "input" in row and "input" not in columns.values():
            named.setdefault("input", row["input"])
        return _checked(_turns(named, where), where)
    kind = recognise(row) or (None if answered else _asked(row))
    if kind == "text":
        return _text(row["text"], where)
    messages = _messages(row, kind, where)
    if not answered and _has_no_answer(messages):
        messages = messages[:-1]
    made = _checked(messages, where, answered)
    if row.get("tools") is not None and (tools := _dicts(row["tools"], "tools", where)):
        _refuse_depth(tools, "tools", where)
        made["tools"] = tools
    return made


def _messages(row: dict[str, Any], kind: str | None, where: str) -> Any:
    """The messages of a row in one of the formats of conversations, not yet checked."""
    if kind == "alpaca":
        return _turns(row | {"response": row.get("output") if missing(row.get("response")) else row["response"]}, where)
    if kind == "prompt/completion":
        sides = (row["prompt"], "user"), (row.get("completion"), "assistant")
        return [m for side, role in sides for m in _side(side, role, where)]
    if kind == "sharegpt":
        turns = [_from_sharegpt(turn) for turn in _list(row["conversations"], "conversations", where)]
        return _system(row, where) + turns
    if kind == "messages":
        return row["messages"]
    fields = ", ".join(map(repr, row)) or "(none)"
    raise BrokenRow(
        where,
        f"has the fields {fields}; expected messages, or conversations, or prompt and completion, or instruction, "
        "input and output, or text.",
        "unknown format",
    )


def _asked(row: dict[str, Any]) -> str | None:
    """The format of a row that has no key for an answer."""
    return "prompt/completion" if "prompt" in row else "alpaca" if "instruction" in row else None


def _has_no_answer(messages: Any) -> bool:
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "assistant" or last.get("tool_calls"):
        return False
    return missing(last.get("content")) or (isinstance(last["content"], str) and not last["content"].strip())


def _text(text: Any, where: str) -> dict[str, str]:
    if not isinstance(text, str) or not text.strip():
        raise BrokenRow(where, "the text is empty.", "empty text")
    return {"text": text}


def _turns(row: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Turns of instruction, input, response and system. What is absent or None makes no turn and no part of one."""
    instruction, context = (_string(row, key, where) for key in ("instruction", "input"))
    if context and context.strip():
        instruction = f"{instruction}\n\n{context}" if instruction and instruction.strip() else context
    turns = {"role": "user", "content": instruction}, {"role": "assistant", "content": row.get("response")}
    return [*_system(row, where), *_history(row, where), *turns]


def _history(row: dict[str, Any], where: str) -> list[dict[str, str]]:
    """The exchanges before the instruction, as LLaMA-Factory writes them beside it: pairs of question and answer."""
    pairs = row.get("history")
    if missing(pairs):
        return []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise BrokenRow(where, "history must be a list of pairs of question and answer.", "malformed history")
    return [{"role": role, "content": said} for pair in pairs for role, said in zip(_EXCHANGE, pair, strict=True)]


def _system(row: dict[str, Any], where: str) -> list[dict[str, str]]:
    system = _string(row, "system", where)
    return [{"role": "system", "content": system}] if system and system.strip() else []


def _string(row: dict[str, Any], key: str, where: str) -> str | None:
    """A field that must be text where it holds anything: a number would be lost, or be written as Python does."""
    value = row.get(key)
    if missing(value):
        return None
    if not isinstance(value, str):
        what = f"{key} must be text, not {type(value).__name__}; put it in quotes or remove it."
        raise BrokenRow(where, what, "a field that is no text")
    return value


def _side(side: Any, role: str, where: str) -> list[Any]:
    return _list(side, role, where) if isinstance(side, list) else [{"role": role, "content": side}]


def _list(value: Any, name: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BrokenRow(where, f"{name} must be a list, not {type(value).__name__}.", "malformed messages")
    return value


def _dicts(value: Any, name: str, where: str) -> list[dict[str, Any]] | None:
    """Tools or calls of tools: a list of objects, or that list as a string of JSON; None where there are none."""
    if missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    try:
        made = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise BrokenRow(where, f"{name} is a string that is not valid JSON.", f"malformed {name}") from None
    if made is None or (isinstance(made, dict) and not made):
        return None
    if not isinstance(made, list) or not all(isinstance(item, dict) for item in made):
        raise BrokenRow(where, f"{name} must be a list of objects, or that list as JSON.", f"malformed {name}")
    return made or None


def _refuse_depth(value: Any, name: str, where: str) -> None:
    if isinstance(value, dict | list) and _is_deeper(value, MOST_LEVELS):
        raise BrokenRow(where, f"{name} is nested more than {MOST_LEVELS} levels deep.", "nested too deeply")


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper(one, levels - 1) for one in inner)


def _from_sharegpt(turn: Any) -> Any:
    if not isinstance(turn, dict) or "from" not in turn:
        return turn
    sender = turn["from"]
    role = _SHAREGPT_ROLES.get(sender, sender) if isinstance(sender, str) else sender
    others = {key: value for key, value in turn.items() if key not in ("from", "value", "weight")}
    return {"role": role, "content": turn.get("value"), **others}


def _checked(messages: Any, where: str, answered: bool = True) -> dict[str, Any]:
    if not isinstance(messages, list) or not messages:
        what = "messages must be a list of role and content, and not empty."
        raise BrokenRow(where, what, "malformed messages")
    checked = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            role = message.get("role") if isinstance(message, dict) else message
            what = f"message {number} has the role {reprlib.repr(role)}; expected one of {', '.join(ROLES)}."
            raise BrokenRow(where, what, "unknown role")
        content = _plain(message.get("content"))
        if "tool_calls" in message:
            message = message | {"tool_calls": _dicts(message["tool_calls"], "tool_calls", where)}
        # None where a table's other rows have the key: the message itself does not.
        message = {key: value for key, value in message.items() if value is not None}
        if content is None and message["role"] == "assistant" and message.get("tool_calls"):
            content = ""
        if content is None:
            what = f"message {number} ({message['role']}) has no text in content."
            raise BrokenRow(where, what, "no text in a message")
        message["content"] = content
        if len(message) > 2:
            for key, value in message.items():
                _refuse_depth(value, key, where)
        checked.append(message)
    last = checked[-1]
    if not answered:
        if not any(message["content"].strip() for message in checked if message["role"] in ("user", "assistant")):
            raise BrokenRow(where, "asks nothing; there is nothing to compare.", "empty question")
        return {"messages": checked}
    if last["role"] != "assistant":
        what = f"the last message is the {last['role']}'s; it must be the assistant's answer."
        raise BrokenRow(where, what, "no answer at the end")
    if not last["content"].strip() and not last.get("tool_calls"):
        raise BrokenRow(where, "the assistant's answer is empty; there is nothing to learn from it.", "empty answer")
    return {"messages": checked}


def _plain(content: Any) -> str | None:
    """Content as a string: parts that are all text are joined; anything else that is no string is None."""
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        return "".join(part["text"] for part in content)
    return content if isinstance(content, str) else None
