import gzip
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data import load_data, readers
from ftkit.data.sources import SPLITS, Report, in_stretches, read, read_rows, to_messages, usable
from ftkit.errors import DataError

GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_formats_meet_in_one():
    turns = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    assert to_messages({"prompt": "q", "completion": "a"}) == turns
    assert to_messages({"instruction": "q", "output": "a"}) == turns
    assert to_messages({"instruction": "q", "input": "", "output": "a"}) == turns
    assert to_messages(turns) == turns


def test_e7_6_the_input_column_reaches_the_user_turn():
    row = to_messages({"instruction": "Translate.", "input": "chat", "output": "cat"})
    assert row["messages"][0]["content"] == "Translate.\n\nchat"


def test_json_array_and_lines_give_the_same_rows(tmp_path):
    lines = write(tmp_path / "a.jsonl", json.dumps(GOOD) + "\n\n" + json.dumps(GOOD) + "\n")
    array = write(tmp_path / "a.json", json.dumps([GOOD, GOOD]))
    assert read_rows(lines) == read_rows(array) == [GOOD, GOOD]


def test_line_separators_inside_a_string_do_not_cut_a_row(tmp_path):
    row = {"prompt": "a\u2028b\x85c", "completion": "d"}
    assert len(read_rows(write(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False)))) == 1


def test_a_byte_order_mark_is_no_error(tmp_path):
    assert read_rows(write(tmp_path / "a.jsonl", json.dumps(GOOD), "utf-8-sig")) == [GOOD]


def test_a_folder_gives_its_splits_and_a_file_gives_train(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.jsonl", json.dumps(GOOD))
    assert list(load_data(tmp_path)) == ["train", "test"]
    assert list(load_data(tmp_path / "test.jsonl")) == ["train"]


def test_the_shipped_task_loads_by_name():
    assert tuple(load_data("tickets")) == SPLITS


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", "", "empty"),
        ("a.json", "", "empty"),
        ("a.json", "[]", "empty"),
        ("a.jsonl", json.dumps(GOOD) + "\n{broken\n", "line 2, column 2: not valid JSON"),
        ("a.json", '[\n{"prompt": "a", "completion": "b"},\n{]', "line 3"),
        ("a.json", json.dumps({"rows": [GOOD]}), "It holds 'rows': save the array"),
        ("a.jsonl", json.dumps(GOOD) + "\n" + json.dumps({"body": "x"}), "line 2: has the fields 'body'"),
        ("a.jsonl", "[1]", "line 1: a row must be a JSON object"),
        ("a.jsonl", json.dumps({"messages": []}), "line 1: messages must be"),
        ("a.jsonl", json.dumps({"messages": [{"role": "bot", "content": "x"}]}), "role 'bot'"),
        ("a.jsonl", json.dumps({"messages": [{"role": "user", "content": "x"}]}), "last message is the user's"),
        ("a.jsonl", json.dumps({"prompt": "x", "completion": None}), "message 2 (assistant) has no text"),
        ("a.jsonl", json.dumps({"prompt": "x", "completion": " \n"}), "answer is empty"),
        ("a.csv", "prompt,completion", "empty"),
        ("a.csv", "prompt,completion\na,b\nc", "line 3: has 1 cells under 2 headings"),
        ("a.csv", "prompt;completion\na;b", "separates its cells by ';'"),
        ("a.txt", "a,b", "'.txt'"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, name, text, says):
    path = write(tmp_path / name, text)
    with pytest.raises(DataError) as error:
        load_data(path)
    assert says in str(error.value) and name in str(error.value)


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(DataError, match="not UTF-8 at byte 12"):
        load_data(path)


def test_a_missing_file_names_its_neighbours(tmp_path):
    write(tmp_path / "train.jsonl", "x")
    with pytest.raises(DataError, match="does not exist.*Did you mean 'train.jsonl'"):
        load_data(tmp_path / "trian.jsonl")
    with pytest.raises(DataError, match="Did you mean 'tickets'"):
        load_data("ticket")


def test_a_folder_without_splits_says_what_it_needs(tmp_path):
    with pytest.raises(DataError, match="holds none of train.jsonl"):
        load_data(tmp_path)


LINES = st.lists(
    st.sampled_from(
        [
            b'{"prompt": "a", "completion": "b"}',
            b'  {"text": "\xe2\x80\xa8 a line separator"}  ',
            b'{"instruction": "", "output": ""}',
            b'{"text": "unfinished',
            b"\xff\xfe no text at all",
            b"[1, 2]",
            b"",
            b" \r",
        ]
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(lines=LINES, bom=st.booleans(), ends=st.booleans(), size=st.integers(1, 5))
def test_a_file_read_in_stretches_is_the_file(lines, bom, ends, size):
    whole, apart = Report(), Report()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "STRETCH", size)
        path = Path(folder, "rows.jsonl")
        path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + b"\n".join(lines) + (b"\n" if ends else b""))
        expected = list(read(path, whole))
        parts = in_stretches(path)
        found = []
        for split, file, stretch in parts:
            counted = Report()
            rows = list(readers.read_file(file, stretch))
            found += [(split, *row) for row in usable(rows, counted)]
            assert counted.read <= size
            apart.add(counted.as_dict())
    assert found == expected and apart == whole


def test_what_is_not_plain_lines_is_not_read_in_stretches(tmp_path):
    (tmp_path / "rows.json").write_text('[{"text": "a"}]')
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    assert in_stretches(tmp_path / "rows.json") is None and in_stretches(tmp_path / "rows.jsonl.gz") is None
    assert in_stretches([{"text": "a"}]) is None and in_stretches("owner/name") is None
    assert {split for split, *_ in in_stretches("tickets")} == {"train", "validation", "test"}
