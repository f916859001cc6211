"""Arrays of rows in every layout: a broken row costs no other, and what could not be read is said with its line."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.json_arrays import elements
from ftkit.data.sources import Report, read, to_messages, usable

WORD = "word"
"""Breaks are made in the middle of these."""


def turn(role: str, content, **other) -> dict:
    return {"role": role, "content": content, **other}


def rows_of(kind: str, i: int) -> dict:
    part = {"type": "text", "text": f"part {WORD}"}
    call = {"type": "function", "function": {"name": "f", "arguments": {"text": WORD, "list": [{"a": WORD}, {"b": 1}]}}}
    return {
        "messages": {"messages": [turn("user", f"{i} {WORD}"), turn("assistant", WORD)] * 2},
        "parts": {"messages": [turn("user", [{"type": "text", "text": f"{i}"}, part]), turn("assistant", WORD)]},
        "calls": {"messages": [turn("user", f"{i} {WORD}"), turn("assistant", "", tool_calls=[call])], "tools": [call]},
        "sharegpt": {"conversations": [{"from": "human", "value": f"{i} {WORD}"}, {"from": "gpt", "value": WORD}]},
        "alpaca": {"instruction": f"{i} {WORD}", "input": "{} [ ], { }", "output": f"{WORD} {{"},
        "text": {"text": f"{i} {WORD} {{ {{}}"},
    }[kind]


KINDS = ("messages", "parts", "calls", "sharegpt", "alpaca", "text")
LINES = {"json.dump, 1": 1, "json.dump, 2": 2, "json.dump, 4": 4, "tabs": "\t", "a row a line": None}
LAYOUTS = {
    "one line": ("[", ", ", "]", None),
    "no spaces": ("[", ",", "]", None),
    "first row behind the bracket": ("[", ",\n", "]", None),
    "commas first": ("[", "\n,", "]\n", None),
    "brackets together": ("[ ", ", ", " ]", 2),
    "json.dump, 0": ("[\n", ",\n", "\n]", 0),
}


def in_lines(rows: list[str], indent) -> str:
    before = indent if isinstance(indent, str) else " " * (indent or 0)
    return "[\n" + ",\n".join(before + row.replace("\n", "\n" + before) for row in rows) + "\n]"


def broken(row: str, how: str, at: int) -> str:
    places = [i for i in range(len(row)) if row.startswith(WORD, i)]
    middle = places[at % len(places)] + 2
    brackets = [i for i, char in enumerate(row) if char in "}]" and row[i - 1] not in "{ ["]
    return {
        "a quote": row[:middle] + '"' + row[middle:],
        "JSON in it": row[:middle] + '{"a": "x", "b": [1]}, ' + row[middle:],
        "the end is missing": row[:middle],
        "Python's quotes": row.replace('"', "'"),
        "its last brackets are missing": row.rstrip("]} \n\t"),
        "a bracket is missing": "".join(char for i, char in enumerate(row) if i != brackets[at % len(brackets)]),
    }[how]


BREAKS = (
    "a quote",
    "JSON in it",
    "the end is missing",
    "Python's quotes",
    "a bracket is missing",
    "its last brackets are missing",
)


def read_text(folder, text: str) -> tuple[list, Report]:
    path, report = folder / "rows.json", Report()
    path.write_text(text)
    return list(read(path, report)), report


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(BREAKS + (None,) * 5), st.integers(0, 9)), max_size=9),
    st.sampled_from(list(LINES)),
)
def test_where_rows_have_lines_of_their_own_each_is_read_or_reported(folder, made, layout):
    good = [rows_of(kind, i) for i, (kind, _, _) in enumerate(made)]
    texts = [json.dumps(row, indent=LINES[layout]) for row in good]
    texts = [text if how is None else broken(text, how, at) for text, (_, how, at) in zip(texts, made, strict=True)]
    found, report = read_text(folder, in_lines(texts, LINES[layout]))
    whole = [row for row, (_, how, _) in zip(good, made, strict=True) if how is None]
    assert [row for *_, row in found] == [to_messages(row) for row in whole]
    assert report.read == len(made) == report.kept + sum(report.dropped.values())
    assert set(report.dropped) <= {"not valid JSON"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("arrays")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", BREAKS)
def test_in_every_layout_one_broken_row_costs_no_other(folder, layout, how):
    begin, between, end, indent = LAYOUTS[layout]
    rng = random.Random(layout + how)
    for _ in range(40):
        good = [rows_of(rng.choice(KINDS), i) for i in range(rng.randint(1, 6))]
        texts, bad = [json.dumps(row, indent=indent) for row in good], rng.randrange(len(good))
        texts[bad] = broken(texts[bad], how, rng.randrange(9))
        found, report = read_text(folder, begin + between.join(texts) + end)
        kept = [row for *_, row in found]
        assert [row for row in kept if row == to_messages(good[bad])] == []
        assert kept == [to_messages(row) for i, row in enumerate(good) if i != bad]
        assert report.dropped["not valid JSON"] >= 1 and report.read == report.kept + report.dropped.total()


def test_a_quote_in_the_second_of_a_thousand_rows_costs_one(tmp_path):
    rows = [{"messages": [turn("user", f"question {i}"), turn("assistant", f"answer {i}")]} for i in range(1000)]
    text = json.dumps(rows, indent=2).replace('"question 1"', '"question "1"')
    found, report = read_text(tmp_path, text)
    assert [row for *_, row in found] == [rows[0], *rows[2:]] and report.read == 1000
    assert "rows.json, line 18, column 31: not valid JSON" in report.examples["not valid JSON"][0]
    assert "reading goes on at line 26, column 3." in report.examples["not valid JSON"][0]


@pytest.mark.parametrize("between", ["", "\n", " , ", "\n\n"])
def test_arrays_one_behind_the_other_are_all_read(tmp_path, between):
    rows = [{"text": f"row {i}"} for i in range(6)]
    text = between.join(json.dumps(rows[i : i + 2], indent=indent) for i, indent in ((0, None), (2, 2), (4, 0)))
    found, report = read_text(tmp_path, text)
    assert [row for *_, row in found] == rows and not report.dropped


def test_what_stands_behind_an_array_is_said_and_rows_in_it_are_read(tmp_path):
    found, report = read_text(tmp_path, '[{"text": "a"}]\noops\n[{"text": "b"},\n{"text": "c"}]')
    assert [row["text"] for *_, row in found] == ["a", "b", "c"]
    assert "line 2, column 1: not valid JSON (Something behind" in report.examples["not valid JSON"][0]
    _, report = read_text(tmp_path, '[{"text": "a"}] the end')
    assert report.read == 2 and "nothing behind it was read" in report.examples["not valid JSON"][0]


@pytest.mark.parametrize("odd", ["[" * 100_000, '{"text": "b", "n": ' + "1" * 5000 + "}", '{"text": "\udcff"}'])
def test_an_element_that_cannot_be_read_ends_nothing(tmp_path, odd):
    path, report = tmp_path / "rows.json", Report()
    path.write_bytes(f'[{{"text": "a"}},\n{odd},\n{{"text": "c"}}]'.encode(errors="surrogateescape"))
    assert [where[-6:] for _, where, _ in read(path, report)] == ["line 1", "line 3"]
    assert report.read == 3 and report.dropped.total() == 1
    with pytest.raises(ValueError, match="line 2.*(nested too deeply|more digits|not UTF-8)"):
        list(read(path, Report(), strict=True))


def test_rows_longer_than_the_pieces_that_are_looked_at_are_whole(tmp_path):
    """Beyond 4 KiB and 64 KiB, with whatever stands where a piece ends."""
    for length in (*range(4050, 4110), *range(65490, 65550, 7), 300_000):
        row = {"text": "x" * (length - 30), "n": -12345678901234567890, "more": ["\u00e9", True, None]}
        assert [row for _, row in elements(tmp_path, json.dumps([row, row]), sound=True)] == [row, row]
        again = json.dumps([row, row]).replace('"more"', "more", 1)
        report = Report()
        assert len(list(usable(elements(tmp_path, again, sound=True), report))) == 1 and report.read == 2
