"""Files and tables as rows: every format gives the same ones, and a broken row costs no other."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data import load_data, readers
from ftkit.data.sources import Report, read
from ftkit.errors import DataError

ROWS = [
    {"instruction": "Say\nhi.", "input": "", "output": 'def f():\n    return "é"'},
    {"instruction": "हिन्दी में?", "input": "日本語\u2028| a | b |", "output": "ठीक है, धन्यवाद"},
    {"instruction": "Comma, \"quote\" and ';'", "input": "x", "output": "  indented"},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def messages(data):
    return [[m["content"] for m in row["messages"]] for row in data["train"]]


def contents(name: str) -> bytes:
    if ".csv" in name.lower():
        return pd.DataFrame(ROWS).to_csv(index=False).encode()
    if name.startswith("array"):
        return json.dumps(ROWS, ensure_ascii=False, indent=1).encode()
    return LINES.encode()


@pytest.mark.parametrize("name", ["a.jsonl", "lines.json", "array.json", "a.csv", "A.JSON", "b.JSONL"])
@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_every_text_format_gives_the_same_rows(tmp_path, name, compression):
    path = tmp_path / (name + compression)
    with pa.output_stream(str(path), compression={"": None, ".gz": "gzip", ".zst": "zstd"}[compression]) as out:
        out.write(contents(name))
    assert messages(load_data(path)) == messages(load_data(ROWS))


def test_tables_give_the_same_rows(tmp_path):
    frame = pd.DataFrame(ROWS)
    frame.to_parquet(tmp_path / "a.parquet")
    for source in (tmp_path / "a.parquet", frame, Dataset.from_list(ROWS), DatasetDict(train=Dataset.from_list(ROWS))):
        assert messages(load_data(source)) == messages(load_data(ROWS))


def test_e7_11_a_dataframe_s_index_is_no_column_and_nan_is_nothing():
    frame = pd.DataFrame([*ROWS, {"instruction": "a", "output": "b"}], index=list("abcd"))
    row = load_data(frame)["train"][3]
    assert [m["content"] for m in row["messages"]] == ["a", "b"]


def test_e7_11_a_nested_file_is_no_row_and_names_where_its_rows_are(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": 1, "data": ROWS}))
    with pytest.raises(DataError, match="It holds 'version', 'data': save the array"):
        load_data(path)


def test_a_folder_takes_any_format_and_one_file_a_split(tmp_path):
    (tmp_path / "train.csv").write_bytes(contents("a.csv"))
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    data = load_data(tmp_path)
    assert list(data) == ["train", "test"] and data["train"] == data["test"]
    (tmp_path / "train.jsonl").write_text(LINES)
    with pytest.raises(DataError, match="train.csv and train.jsonl: keep one"):
        load_data(tmp_path)


def test_a_split_under_another_name_is_not_passed_over(tmp_path):
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text(LINES)
    with pytest.raises(DataError, match="dev.jsonl would not be read; name it validation.jsonl"):
        load_data(tmp_path)
    (tmp_path / "validation.jsonl").write_text(LINES)  # then dev.jsonl is something else
    assert list(load_data(tmp_path)) == ["train", "validation"]


def test_the_parts_of_a_split_are_read_in_order(tmp_path):
    for i, line in enumerate(LINES.strip().split("\n")):
        (tmp_path / f"train-{i:05d}-of-00003.jsonl").write_text(line)
    (tmp_path / "training.jsonl").write_text("no part of it")
    assert messages(load_data(tmp_path)) == messages(load_data(ROWS))
    (tmp_path / "train.jsonl").write_text(LINES)
    with pytest.raises(DataError, match="keep one file a split, or its parts"):
        load_data(tmp_path)


def test_a_hub_name_without_a_hub_is_one_sentence():
    with pytest.raises(DataError, match="neither a file nor a folder, and the hub did not give it"):
        load_data("some-owner/no-such-data")


def test_a_split_of_another_name_is_not_lost_in_silence():
    with pytest.raises(DataError, match="has the splits train, dev; dev would be lost"):
        load_data(DatasetDict(train=Dataset.from_list(ROWS), dev=Dataset.from_list(ROWS)))


def test_a_type_that_holds_no_rows_is_refused():
    with pytest.raises(DataError, match="from a int"):
        load_data(3)


BROKEN_LINES = b"".join(
    [
        LINES.splitlines(keepends=True)[0].encode(),
        b'{"instruction": \n',
        b'{"instruction": "\xff", "output": "x"}\n',
        b'["not", "an", "object"]\n',
        b'{"body": "x"}\n',
        b'{"instruction": "a", "output": null}\n',
        b'{"instruction": "a", "output": "  "}\n',
        b"\n",
        LINES.split("\n")[1].encode(),
    ]
)


def test_a_broken_row_is_reported_with_file_and_line_and_costs_no_other(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(BROKEN_LINES)
    report = Report()
    rows = list(read(path, report))
    assert [where for _, where, _ in rows] == [f"{path}, line 1", f"{path}, line 9"]
    assert report.read == 8 == report.kept + sum(report.dropped.values()) and report.kept == 2
    assert dict(report.dropped) == {
        "not valid JSON": 1,
        "not UTF-8": 1,
        "not an object": 1,
        "unknown format": 1,
        "no text in a message": 1,
        "empty answer": 1,
    }
    assert f"{path}, line 2, column" in report.examples["not valid JSON"][0]
    assert "line 5" in report.examples["unknown format"][0]
    with pytest.raises(DataError, match="line 2"):
        list(read(path, Report(), strict=True))


LINES_AND_FATES = {
    json.dumps(ROWS[0]): None,
    '{"text": "plain"}': None,
    '{"instruction": ': "not valid JSON",
    "[1]": "not an object",
    '{"body": "x"}': "unknown format",
    '{"prompt": "a", "completion": " "}': "empty answer",
    '{"prompt": null, "completion": "b"}': "no text in a message",
    '{"messages": [{"role": "user", "content": "x"}]}': "no answer at the end",
    '{"messages": [{"role": "bot", "content": "x"}]}': "unknown role",
}


@settings(max_examples=1000, deadline=None)
@given(lines=st.lists(st.sampled_from(list(LINES_AND_FATES)), max_size=15))
def test_every_row_that_is_read_is_kept_or_dropped_for_its_reason(lines, folder):
    path = folder / "rows.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    report = Report()
    rows = list(read(path, report))
    fates = Counter(LINES_AND_FATES[line] for line in lines)
    assert report.read == len(lines) == report.kept + sum(report.dropped.values())
    assert report.kept == len(rows) == sum(report.formats.values()) == fates.pop(None, 0)
    assert report.dropped == fates
    places = [f"{path}, line {i}" for i, line in enumerate(lines, start=1) if LINES_AND_FATES[line] is None]
    assert [where for _, where, _ in rows] == places


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


def test_behind_a_broken_element_of_an_array_the_rest_is_read(tmp_path):
    path = tmp_path / "a.json"
    good = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    path.write_text(f'[\n{good[0]},\n{{"instruction": oops}},\n{good[1]},\n{good[2]}\n]')
    report = Report()
    assert len(list(read(path, report))) == 3 and report.dropped == {"not valid JSON": 1}
    assert "line 3, column" in report.examples["not valid JSON"][0]
    path.write_text(f"[{good[0]},\n{good[1]}")
    report = Report()
    assert len(list(read(path, report))) == 2 and "not closed" in report.examples["not valid JSON"][0]


def test_broken_rows_of_a_csv_are_reported(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt,completion\n"two\nlines",b\nc\n\xe9,d\ne,f\n')
    report = Report()
    rows = [row["messages"][0]["content"] for _, _, row in read(path, report)]
    assert rows == ["two\nlines", "e"] and report.dropped == {"wrong number of cells": 1, "not UTF-8": 1}
    assert "line 4" in report.examples["wrong number of cells"][0]


def test_a_long_cell_of_a_csv_stays_one_row(tmp_path):
    long = "a document, line by line\n" * 8000
    path = tmp_path / "a.csv"
    path.write_text(f'prompt,completion\nlong,"{long}"\nshort,b\n')
    contents = [[m["content"] for m in row["messages"]] for row in load_data(path)["train"]]
    assert contents == [["long", long], ["short", "b"]]


def read_csv(path: Path, text: str) -> tuple[list[list[str]], Report]:
    path.write_text(text)
    report = Report()
    return [[m["content"] for m in row["messages"]] for _, _, row in read(path, report)], report


SOUND = st.sampled_from(["q,a\n", '"two\nlines",b\n', '"a, ""b""",c\n', '"x"y,z\n', "\n", 'in,the "middle"\n'])


@settings(max_examples=300, deadline=None)
@given(
    before=st.lists(SOUND, max_size=6),
    unclosed=st.sampled_from(['open,"b\n', '"open,b\n', 'a,"\n']),
    behind=st.lists(st.sampled_from(["q,a\n", "c,d\n", "\n"]), max_size=8),
)
def test_a_quote_that_is_never_closed_costs_its_own_row(before, unclosed, behind, folder):
    header = "prompt,completion\n"
    expected = [rows for some in (before, behind) for rows in read_csv(folder / "a.csv", header + "".join(some))[0]]
    rows, report = read_csv(folder / "a.csv", header + "".join([*before, unclosed, *behind]))
    assert rows == expected and report.dropped == {"a quote that is not closed": 1}
    assert report.read == len(rows) + 1
    line = 2 + sum(text.count("\n") for text in before)
    assert f"a.csv, line {line}: a quote opens" in report.examples["a quote that is not closed"][0]


def test_rows_behind_a_quote_that_is_not_closed_keep_their_line(tmp_path):
    (tmp_path / "a.csv").write_text('prompt,completion\na,"b\n\nc,d\ne,f')
    assert [where[-6:] for _, where, _ in read(tmp_path / "a.csv", Report())] == ["line 4", "line 5"]


def test_the_lines_of_a_text_that_was_cut_off_are_no_rows(tmp_path):
    text = "".join(f"a line of prose, one\nand one without\nand, as it is, two {i}\n" for i in range(9))
    rows, report = read_csv(tmp_path / "a.csv", f'prompt,completion\nq,a\nq,"{text}')
    assert rows == [["q", "a"]] and report.read == 2
    assert "to line 29 are no rows" in report.examples["a quote that is not closed"][0]
    with pytest.raises(DataError, match="line 1: a quote opens in the headings"):
        read_csv(tmp_path / "a.csv", '"prompt,completion\nq,a\n')


def test_a_quote_that_is_not_closed_in_a_large_file_is_found_before_the_memory_is_full(tmp_path, monkeypatch):
    before = csv.field_size_limit(100)
    monkeypatch.setattr(readers, "LONGEST_CELL", 100)
    try:
        lines = [f"q{i},a{i}\n" for i in range(500)]
        rows, report = read_csv(tmp_path / "a.csv", "prompt,completion\n" + 'a,"b\n' + "".join(lines))
    finally:
        csv.field_size_limit(before)
    assert rows == [[f"q{i}", f"a{i}"] for i in range(500)] and report.dropped.total() == 1


def test_a_row_of_several_lines_with_other_cells_says_to_which_line(tmp_path):
    _, report = read_csv(tmp_path / "a.csv", 'prompt,completion\na,"b\nc,d\ne,"f",g\nh,i\n')
    assert "line 2: has, to line 4, 3 cells under 2 headings" in report.examples["wrong number of cells"][0]


JSON_LINES = st.lists(
    st.sampled_from(
        [
            b'{"prompt": "a", "completion": "b"}',
            b'  {"text": "\xe2\x80\xa8 a line separator"}  ',
            b'{"text": "unfinished',
            b'{"text": "\xff"}',
            b'{"text": "a number", "n": ' + b"1" * 5000 + b"}",
            b'{"text": ' + b"[" * 100_000,
            b'{"body": "x"}',
            b"{broken",
            b"",
            b"[1, 2]",
        ]
    ),
    max_size=9,
)


@settings(max_examples=300, deadline=None)
@given(lines=JSON_LINES, bom=st.booleans())
def test_lines_are_the_same_rows_under_either_ending(lines, bom, folder):
    """A .json file of lines, whichever of them are broken."""
    full = [line for line in lines if line]
    if not full or full[0].startswith(b"[") or not any(b'"}' in line and b"body" not in line for line in full):
        return  # an array, or nothing that could be read
    found = []
    for name in ("a.json", "a.jsonl"):
        (folder / name).write_bytes((b"\xef\xbb\xbf" if bom else b"") + b"\n".join(lines))
        report = Report()
        rows = [(where.rpartition(",")[2], row) for _, where, row in read(folder / name, report)]
        found.append((rows, report.read, report.dropped))
    assert found[0] == found[1]


def test_one_object_that_is_broken_is_no_file_of_lines(tmp_path):
    path = tmp_path / "a.json"
    for text, says in (
        (json.dumps({"rows": ROWS}, indent=1)[:-1], "line 19, column 1: not valid JSON"),
        ('{"text": ' + "[" * 100_000, "a.json: nested too deeply"),
        ('{"n": ' + "1" * 5000 + "}", "a.json: holds a number of more digits"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=says):
            load_data(path)
    path.write_bytes(json.dumps(ROWS).encode("utf-16"))
    with pytest.raises(DataError, match="not UTF-8 at byte 0; save it as UTF-8"):
        load_data(path)


def test_a_text_of_a_table_that_is_no_utf8_costs_its_row(tmp_path):
    offsets, values = pa.py_buffer(b"".join(i.to_bytes(4, "little") for i in (0, 1, 2, 3))), pa.py_buffer(b"a\xffc")
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), 3, [None, offsets, values])})
    pq.write_table(table, tmp_path / "a.parquet")
    for source in (tmp_path / "a.parquet", Dataset(table)):
        report = Report()
        found = [(where[-5:], row["text"]) for _, where, row in read(source, report)]
        assert found == [("row 1", "a"), ("row 3", "c")] and report.dropped == {"not UTF-8": 1}
        assert "row 2: not UTF-8; save it" in report.examples["not UTF-8"][0]


CALLS = [{"type": "function", "function": {"name": "f", "arguments": {key: [1], "null": None}}} for key in "xy"]
TOOL_ROWS = [
    {
        "messages": [{"role": "user", "content": key}, {"role": "assistant", "content": "", "tool_calls": [call]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {key: {"type": "number"}}}}],
    }
    for key, call in zip("xy", CALLS, strict=True)
]


def test_a_row_of_a_table_has_no_tool_s_keys_of_another_row(tmp_path):
    """In a table nothing tells a key that other rows have from one that was written as null; in JSON it stays."""
    frame = pd.DataFrame(TOOL_ROWS)
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(TOOL_ROWS))
    assert load_data(tmp_path / "a.json")["train"] == load_data(TOOL_ROWS)["train"] == TOOL_ROWS
    bare = json.loads(json.dumps(TOOL_ROWS).replace(', "null": null', ""))
    tables = tmp_path / "a.parquet", pd.read_parquet(tmp_path / "a.parquet"), Dataset.from_list(TOOL_ROWS), frame
    for source in tables:
        assert load_data(source)["train"] == bare
    assert TOOL_ROWS[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]["null"] is None  # not the caller's


def test_lists_and_missing_cells_of_a_dataframe_are_those_of_its_file(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": turns, "text": None}, {"messages": None, "text": "x"}, {"messages": turns[:1], "text": None}]
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    frames = pd.read_parquet(tmp_path / "a.parquet"), pd.read_parquet(tmp_path / "a.parquet", dtype_backend="pyarrow")
    for source in (tmp_path / "a.parquet", *frames, pd.DataFrame(rows).convert_dtypes(), rows):
        report = Report()
        assert [row for *_, row in read(source, report)] == [{"messages": turns}, {"text": "x"}]
        assert "row 3" in report.examples["no answer at the end"][0]


def test_formats_are_counted():
    report = Report()
    list(read([ROWS[0], {"text": "plain"}, {"prompt": "a", "completion": "b"}], report))
    assert report.formats == {"alpaca": 1, "text": 1, "prompt/completion": 1} and "3 rows read" in str(report)


def test_the_account_gives_each_reason_one_line():
    report = Report(read=2, kept=1, formats=Counter(text=2))
    report.drop("repetitive", "Go on.\nand on\n  and on")
    assert str(report) == "2 rows read (2 text), 0 kept, 1 left out\n  1 repetitive: Go on. and on and on"
    assert str(Report()) == "0 rows read, 0 kept"
