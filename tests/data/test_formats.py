"""Formats of rows: what each becomes, and what is passed through."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.formats import FORMATS, BrokenRow, named_columns, recognise, to_messages
from ftkit.data.table import arrays
from ftkit.errors import ConfigError

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


def test_the_exchanges_before_an_instruction_are_turns():
    row = {"instruction": "And 3?", "output": "9", "system": "Square.", "history": [["1?", "1"], ["2?", "4"]]}
    made = [(message["role"], message["content"]) for message in to_messages(row)["messages"]]
    turns = [("user", "1?"), ("assistant", "1"), ("user", "2?"), ("assistant", "4"), ("user", "And 3?")]
    assert made == [("system", "Square."), *turns, ("assistant", "9")]
    for nothing in (None, []):
        assert to_messages({"instruction": "q", "output": "a", "history": nothing}) == {"messages": TURNS}
    for wrong in ("1? 1", [["1?"]], [{"user": "1?"}], [["1?", None]], 7):
        with pytest.raises(BrokenRow, match="history must be a list of pairs|no text in content"):
            to_messages({**row, "history": wrong})


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


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"x": None}}}]


@pytest.mark.parametrize("kind", [kind for kind in ROWS if kind != "text"])
def test_tools_as_a_string_of_json_are_tools(kind):
    for tools in (TOOLS, json.dumps(TOOLS)):
        assert to_messages(ROWS[kind] | {"tools": tools})["tools"] == TOOLS
    for none in (None, [], "[]", "null", "", " ", {}, float("nan")):
        assert "tools" not in to_messages(ROWS[kind] | {"tools": none})
    for odd, says in (
        ("search", "not valid JSON"),
        (["f"], "list of objects"),
        (TOOLS[0], "list of objects"),
        (3, "list"),
    ):
        with pytest.raises(BrokenRow, match=f"tools .*{says}"):
            to_messages(ROWS[kind] | {"tools": odd})


def test_calls_as_a_string_of_json_are_calls():
    calls = [CALL]
    row = {"messages": [TURNS[0], {"role": "assistant", "content": "", "tool_calls": json.dumps(calls)}]}
    assert to_messages(row)["messages"][1]["tool_calls"] == calls
    row["messages"][1]["tool_calls"] = "f(x)"
    with pytest.raises(BrokenRow, match="tool_calls is a string that is not valid JSON"):
        to_messages(row)


@pytest.mark.parametrize("levels", [99, 101, 700])
def test_what_is_nested_too_deeply_to_be_written_again_is_refused(levels):
    nested = json.loads('{"a": ' * levels + "1" + "}" * levels)
    for row in ({"messages": TURNS, "tools": [nested]}, {"messages": [TURNS[0], TURNS[1] | {"x": nested}]}):
        if levels < 100:
            assert arrays([to_messages(row)])
        else:
            with pytest.raises(BrokenRow, match="nested more than 100 levels deep"):
                to_messages(row)


CELLS = st.recursive(
    st.sampled_from([None, True, 3, float("nan"), "", "x", "user", "human", "gpt", "assistant", "[]", "{"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["role", "content", "from", "value", "text", "tool_calls"]), inner, max_size=4),
    ),
    max_leaves=12,
)
KEYS = [
    "messages",
    "conversations",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "system",
    "text",
    "tools",
]


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.dictionaries(st.sampled_from(KEYS), CELLS, max_size=5), CELLS), st.booleans())
def test_whatever_a_row_holds_it_is_messages_or_a_broken_row(row, answered):
    try:
        made = to_messages(row, "a.jsonl, line 1", answered=answered)
    except BrokenRow as error:
        assert str(error).startswith("a.jsonl, line 1: ") and error.reason and recognise(row) in (None, *FORMATS)
        return
    contents = [made["text"]] if "text" in made else [message["content"] for message in made["messages"]]
    assert contents and all(isinstance(content, str) for content in contents)
    assert arrays([made])  # it can be written


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS[:1]},
        {"conversations": [{"from": "human", "value": "q"}]},
        {"prompt": "q"},
        {"prompt": TURNS[:1], "completion": " "},
        {"prompt": "q", "completion": None},
        {"instruction": "q"},
        {"instruction": "q", "input": "", "output": ""},
    ],
)
def test_a_row_that_is_asked_and_not_trained_on_needs_no_answer(row):
    assert to_messages(row, answered=False) == {"messages": TURNS[:1]}
    with pytest.raises(BrokenRow):
        to_messages(row)


def test_a_row_that_is_asked_must_ask_something():
    for row in ({"prompt": " "}, {"instruction": None, "output": ""}, {"question": "q"}, {"messages": []}):
        with pytest.raises(BrokenRow):
            to_messages(row, answered=False)
    for row in ROWS.values():
        assert to_messages(row, answered=False) == to_messages(row)


def test_e7_6_the_input_column_is_asked_beside_named_columns():
    row = {"instruction": "Translate.", "input": "chat", "output": "cat"}
    columns = named_columns("text", "instruction", "output", None)
    assert to_messages(row, columns=columns) == to_messages(row)
    assert to_messages(row | {"input": None}, columns=columns)["messages"][0]["content"] == "Translate."
    columns = named_columns("text", "input", "output", None)  # then it is the question itself
    assert to_messages(row, columns=columns)["messages"][0]["content"] == "chat"


def test_a_column_that_would_not_be_used_is_refused():
    for names, says in (
        (("text", None, None, "system"), "the system column 'system' is named without"),
        (("text", "q", None, None), "named together"),
        (("body", "q", "a", None), "name either the text column 'body' or"),
    ):
        with pytest.raises(ConfigError, match=says):
            named_columns(*names)
