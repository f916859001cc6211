"""Formats of rows: what each becomes, and what is passed through."""

import pytest

from ftkit.data.formats import FORMATS, BrokenRow, recognise, to_messages

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TOOL_TURNS = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "42", "tool_call_id": "1"},
    {"role": "assistant", "content": "It is 42."},
]


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("messages", {"messages": TURNS}),
        ("messages", {"messages": [TURNS[0], {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}),
        ("sharegpt", {"conversations": TURNS}),
        ("prompt/completion", {"prompt": "q", "completion": "a"}),
        ("prompt/completion", {"prompt": TURNS[:1], "completion": TURNS[1:]}),
        ("alpaca", {"instruction": "q", "output": "a"}),
        ("alpaca", {"instruction": "q", "input": None, "response": "a", "system": None}),
    ],
)
def test_one_exchange_in_every_format(kind, row):
    assert recognise(row) == kind and to_messages(row) == {"messages": TURNS}


def test_plain_text_stays_text():
    assert recognise({"text": "x"}) == "text" and to_messages({"text": "x", "id": 3}) == {"text": "x"}


def test_tool_turns_and_tools_are_passed_through():
    tools = [{"type": "function", "function": {"name": "f"}}]
    row = to_messages({"messages": TOOL_TURNS, "tools": tools})
    assert row["tools"] == tools
    assert row["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert row["messages"][2] == TOOL_TURNS[2]


def test_sharegpt_roles_and_system():
    row = {
        "system": "s",
        "conversations": [
            {"from": "human", "value": "q", "weight": 0},
            {"from": "function_call", "value": "{}"},
            {"from": "observation", "value": "42"},
            {"from": "gpt", "value": "a"},
        ],
    }
    assert [m["role"] for m in to_messages(row)["messages"]] == ["system", "user", "assistant", "tool", "assistant"]


def test_e7_14_none_is_no_text():
    row = {"instruction": "q", "output": "a", "system": None}
    assert to_messages(row)["messages"][0] == TURNS[0]
    with pytest.raises(BrokenRow, match="no text in content"):
        to_messages({"instruction": "q", "output": None})


def test_e7_11_named_columns_are_used_and_a_missing_one_is_named():
    columns = {"instruction": "question", "response": "solution"}
    assert to_messages({"question": "q", "solution": "a", "text": "no"}, columns=columns) == {"messages": TURNS}
    with pytest.raises(BrokenRow, match="no column 'solution'; it has 'question'"):
        to_messages({"question": "q"}, columns=columns)
    assert to_messages({"body": "x"}, columns={"text": "body"}) == {"text": "x"}


@pytest.mark.parametrize("image", [[{"type": "image"}], 3, {"text": "x"}])
def test_content_that_is_no_text_is_refused(image):
    with pytest.raises(BrokenRow, match="no text in content"):
        to_messages({"messages": [{"role": "user", "content": image}, TURNS[1]]})


NOTHING = [None, float("nan")]


@pytest.mark.parametrize("nothing", NOTHING)
def test_e7_14_what_is_none_is_no_part_of_a_question(nothing):
    row = {"instruction": nothing, "input": "What is 2+2?", "output": "4", "system": nothing}
    asked = [{"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "4"}]
    assert to_messages(row) == to_messages(row | {"instruction": ""}) == {"messages": asked}
    assert to_messages({"instruction": "q", "input": nothing, "output": "a"}) == {"messages": TURNS}
    assert to_messages({"instruction": "q", "output": "a", "response": nothing}) == {"messages": TURNS}


@pytest.mark.parametrize("key", ["instruction", "input", "system"])
@pytest.mark.parametrize("value", [21, 2.5, True, ["x"], {"x": 1}])
def test_a_field_that_is_no_text_is_said_and_not_lost(key, value):
    row = {"instruction": "Double it.", "input": "21", "output": "42", key: value}
    with pytest.raises(BrokenRow, match=f"row: {key} must be text, not {type(value).__name__}"):
        to_messages(row)
    with pytest.raises(BrokenRow, match=f"{key} must be text"):
        to_messages(row, columns={"instruction": "instruction", "response": "output", key: key})


ROWS = {
    "messages": {"messages": TURNS},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "prompt/completion": {"prompt": "q", "completion": "a"},
    "alpaca": {"instruction": "q", "output": "a"},
    "text": {"text": "x"},
}


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("kind", ROWS)
def test_keys_without_a_value_decide_no_format(kind, nothing):
    """A table of rows in all formats has all their keys in every row."""
    every = {key: nothing for row in ROWS.values() for key in row}
    assert recognise(every | ROWS[kind]) == kind and to_messages(every | ROWS[kind]) == to_messages(ROWS[kind])
    assert set(ROWS) | {"columns"} == set(FORMATS)


def test_where_nothing_has_a_value_the_reason_is_that_of_the_format():
    for row, says in (
        ({"messages": None}, "messages must be a list"),
        ({"text": None}, "the text is empty"),
        ({"prompt": None, "completion": "b"}, "message 1 .user. has no text"),
        ({"instruction": "a", "output": None}, "message 2 .assistant. has no text"),
    ):
        with pytest.raises(BrokenRow, match=says):
            to_messages(row)
