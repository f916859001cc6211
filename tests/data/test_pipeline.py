"""The pipeline: each fault of a careless preparation, by its number, and what must hold of the whole."""

import json
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset

from ftkit import DataConfig, DataPreparationPipeline
from ftkit.cli import main
from ftkit.data import load_data
from ftkit.data.duplicates import contaminated
from ftkit.data.prepared import metadata, prepared_rows
from ftkit.data.sources import is_prepared
from ftkit.data.table import arrays, restore, rows_of, write
from ftkit.errors import ConfigError, DataError
from ftkit.models.families import stop_token_ids

FAMILIES = ["llama3", "llama4", "qwen3", "qwen3-moe", "deepseek-v3", "deepseek-v3.2", "gemma3", "smollm"]
WORDS = (
    "river stone window lamp garden bridge paper cloud engine harbour violin pepper castle mirror ladder forest anchor "
    "candle desert pillow rocket basket helmet island jacket kettle lemon magnet needle orange pencil quartz ribbon"
).split()


def alpaca(i: int, **other) -> dict:
    picked = [WORDS[(i * 7 + k * k + i * k) % len(WORDS)] for k in range(9)]
    row = {"instruction": f"Tell me about number {i}: {' '.join(picked)}", "output": f"{' '.join(picked[::-1])} {i}."}
    return row | other


def pipeline(model="tiny-llama3", **settings) -> DataPreparationPipeline:
    settings = {"near_duplicate_threshold": None, "num_proc": 1} | settings
    return DataPreparationPipeline(DataConfig(model_name=model, **settings), progress=False)


def prepare(tmp_path, rows, model="tiny-llama3", columns=None, **settings):
    made = pipeline(model, **settings)
    return made, made.run_pipeline(rows, tmp_path / "out", **(columns or {}))


def targets(row) -> list[int]:
    return [label for label in row["labels"] if label != -100]


@pytest.mark.parametrize("family", FAMILIES)
def test_e7_1_e7_2_e7_3_every_family_is_rendered_by_its_own_template_with_one_bos(tmp_path, family):
    made, splits = prepare(tmp_path, [alpaca(i) for i in range(30)], f"tiny-{family}")
    tokenizer = made.tokenizer
    uses_bos = tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    for row in splits["train"]:
        messages = restore(row)["messages"]
        text = tokenizer.decode(row["input_ids"])
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        assert whole.startswith(text) and whole[len(text) :].strip() == ""
        if uses_bos:
            assert row["input_ids"].count(tokenizer.bos_token_id) == 1


def test_e7_4_code_comes_through_the_whole_pipeline(tmp_path):
    code = "if x:\n    y = 1\n\n\treturn [y]"
    made, splits = prepare(tmp_path, [alpaca(i, output=f"{code}  # {i}") for i in range(10)])
    for row in splits["train"]:
        assert made.tokenizer.decode(targets(row)[:-1]).startswith(code)
    assert made.clean_text(code) == code


def test_e7_5_the_filter_sees_the_text_and_not_the_template(tmp_path):
    good = ["4", "巴黎", "x = [1, 2]\nprint(x)", "हाँ, बिल्कुल", "| a | b |\n|---|---|\n| 1 | 2 |", '{"a": 1}']
    bad = ["ha " * 200, "caf\ufffd \ufffd\ufffd" * 20]
    made, splits = prepare(tmp_path, [alpaca(i, output=text) for i, text in enumerate([*good, *bad])])
    assert made.report.kept == len(good)
    assert made.report.dropped == {"repetitive": 1, "wrong encoding": 1} and made.report.examples["repetitive"]
    off, _ = pipeline(quality_filter=False), None
    table = off.quality_filter(off.load_data([alpaca(i, output=text) for i, text in enumerate(bad)]))
    assert len(table) == 2


def test_e7_6_the_input_column_is_trained_on(tmp_path):
    rows = [alpaca(i, input=f"context {i}") for i in range(6)]
    made, columns = pipeline(), {"instruction_column": "instruction", "response_column": "output"}
    _, splits = prepare(tmp_path, rows, columns={"instruction_col": "instruction", "response_col": "output"})
    for table in (
        made.load_data(pd.DataFrame(rows)),
        made.load_data(pd.DataFrame(rows), **columns),
        made.process_instruction_dataset(Dataset.from_list(rows), "instruction", "output"),
        splits["train"],
    ):
        assert len(table) and all("\n\ncontext" in row["messages"][0]["content"] for row in table)


@pytest.mark.parametrize("family", FAMILIES)
def test_e7_7_e7_8_prompts_are_masked_and_the_stop_token_is_trained(tmp_path, family):
    made, splits = prepare(tmp_path, [alpaca(i) for i in range(12)], f"tiny-{family}")
    stops = stop_token_ids(made.tokenizer)
    for row in splits["train"]:
        trained = targets(row)
        assert trained[-1] in stops and made.tokenizer.decode(trained[:-1]) == row["messages"][-1]["content"]
        assert row["labels"] == [-100] * (len(row["labels"]) - len(trained)) + trained


def test_e7_9_rows_are_as_long_as_they_are(tmp_path):
    _, splits = prepare(tmp_path, [alpaca(i) for i in range(12)])
    assert len({len(row["input_ids"]) for row in splits["train"]}) > 1
    assert all(row["labels"][-1] != -100 for row in splits["train"])


@pytest.mark.parametrize("too_long", ["drop", "truncate"])
def test_e7_10_a_row_that_does_not_fit_is_counted_and_none_is_left_without_a_target(tmp_path, too_long):
    rows = [alpaca(0), alpaca(1, output="word " * 40), alpaca(2, instruction="word " * 60), *map(alpaca, range(3, 9))]
    made, splits = prepare(tmp_path, rows, max_seq_length=260, too_long=too_long)
    kept = [row for split in splits.values() for row in split]
    assert all(len(row["input_ids"]) <= 260 and targets(row) for row in kept)
    reasons = {"drop": {"longer than max_seq_length": 2}, "truncate": {"the prompt alone fills max_seq_length": 1}}
    assert made.report.dropped == reasons[too_long] and made.report.kept == len(kept)


def test_e7_11_columns_are_found_or_named_and_a_format_is_never_guessed(tmp_path):
    rows = [alpaca(i) for i in range(10)]
    made, _ = prepare(tmp_path, Dataset.from_list(rows))
    assert made.report.formats == {"alpaca": 10}
    renamed = [{"q": row["instruction"], "a": row["output"]} for row in rows]
    with pytest.raises(DataError, match="10 unknown format: row 1: has the fields 'q', 'a'"):
        pipeline().load_data(renamed)
    table = pipeline().load_data(renamed, instruction_column="q", response_column="a")
    assert table[0]["messages"][0]["content"] == rows[0]["instruction"]
    assert pipeline().load_data([{"body": "x y"}], text_column="body")[0]["text"] == "x y"
    with pytest.raises(ConfigError, match="named together"):
        pipeline().load_data(renamed, instruction_column="q")


def test_e7_12_near_duplicates_go_and_the_odd_cases_are_no_error():
    made = pipeline(near_duplicate_threshold=0.8)
    base = alpaca(1)
    near = {key: f"  {value.upper()}" for key, value in base.items()}
    table = made.deduplicate(made.load_data([base, base, near, alpaca(2), alpaca(3, output="\ud800 x")]))
    assert len(table) == 3 and made.report.dropped == {"exact duplicate": 1, "near-duplicate": 1}
    empty = table.select([])
    assert len(made.deduplicate(empty)) == 0
    with pytest.raises(DataError, match="no column 'body'"):
        made.deduplicate(Dataset.from_list([{"title": "x"}]), "body")
    keep = pipeline(deduplicate=False)
    assert len(keep.deduplicate(keep.load_data([base, base]))) == 2


def test_e7_12_same_prompt_and_similar_rows_stay_on_one_side():
    rows = [alpaca(i // 3, output=f"answer {'abc'[i % 3] * 9} of {i // 3}") for i in range(90)]
    made = pipeline(train_split=0.5, val_split=0.25, test_split=0.25)
    splits = made.create_splits(made.deduplicate(made.load_data(rows)))
    prompts = [{row["messages"][0]["content"] for row in split} for split in splits.values()]
    assert all(prompts) and not (prompts[0] & prompts[1] or prompts[0] & prompts[2] or prompts[1] & prompts[2])
    near = [row for i in range(40) for row in (alpaca(i), {k: v + "!" for k, v in alpaca(i).items()})]
    made = pipeline(deduplicate=False, near_duplicate_threshold=0.8, train_split=0.5, val_split=0.25, test_split=0.25)
    splits = made.create_splits(made.deduplicate(made.load_data(near)))
    numbers = [{row["messages"][0]["content"].split(":")[0] for row in split} for split in splits.values()]
    assert sum(map(len, numbers)) == 40


def test_e7_13_all_three_shares_count_and_small_data_is_split(tmp_path):
    _, splits = prepare(tmp_path, [alpaca(i) for i in range(12)])
    assert [len(split) for split in splits.values()] == [10, 1, 1]
    with pytest.raises(ConfigError, match="add up to 1"):
        DataConfig(train_split=0.5, val_split=0.1, test_split=0.1)


def test_e7_14_none_is_neither_an_answer_nor_a_system_prompt(tmp_path):
    rows = [alpaca(i, system=None) for i in range(8)] + [alpaca(9, output=None), alpaca(10, output="\u200b")]
    made, splits = prepare(tmp_path, rows, columns={"instruction_col": "instruction", "response_col": "output"})
    assert made.report.dropped == {"no text in a message": 1, "empty answer": 1}
    assert not any("None" in made.tokenizer.decode(row["input_ids"]) for row in splits["train"])
    with pytest.raises(DataError, match="no text in content"):
        made.format_instruction("x", None)
    assert "None" not in made.format_instruction("x", "y")


def test_e7_15_the_family_is_the_model_type_and_the_template_the_tokenizer_s(tmp_path):
    # A folder whose name says Llama and whose model is Qwen's.
    from ftkit.models import load

    model, tokenizer = load("tiny-qwen3", verbose=False)
    folder = tmp_path / "DeepSeek-R1-Distill-Llama"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    made = pipeline(str(folder))
    assert made.model_family == "Qwen 3" and made.format_instruction("a", "b").startswith("<|im_start|>user\na")


def test_the_counts_add_up_and_broken_rows_are_named(tmp_path):
    lines = [json.dumps(alpaca(i % 12)) for i in range(15)] + ['{"instruction": ', json.dumps({"x": 1})]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    made, splits = prepare(tmp_path, path)
    report = made.report
    assert report.read == 17 == report.kept + sum(report.dropped.values())
    assert report.kept == sum(map(len, splits.values())) == 12
    assert f"{path}, line 16" in report.examples["not valid JSON"][0]
    saved = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert saved["rows"]["read"] == 17 and saved["rows"]["dropped"]["exact duplicate"] == 3
    assert [saved[f"{name}_size"] for name in ("train", "val", "test")] == [len(split) for split in splits.values()]
    assert saved["model_family"] == "Llama" and saved["max_seq_length"] == 2048
    with pytest.raises(DataError, match="line 16"):
        pipeline(on_error="raise").load_data(path)


def test_the_report_shows_an_example_of_each_reason_in_one_short_line(tmp_path):
    folder = tmp_path / ("long" * 15)
    folder.mkdir()
    path = folder / "rows.jsonl"
    odd = alpaca(3, output="\x1b[31m red\nha \u202e" * 60)
    lines = [json.dumps(row) for row in (*map(alpaca, range(6)), odd, alpaca(1))]
    path.write_text("\n".join([*lines, "{broken"]), encoding="utf-8")
    made, _ = prepare(tmp_path, path)
    _, *shown = str(made.report).splitlines()
    assert len(shown) == len(made.report.dropped) == 3
    assert all(line.isprintable() and len(line) < 120 for line in shown)
    assert any("1 not valid JSON: rows.jsonl, line 9" in line for line in shown)
    assert any("1 repetitive: Tell me about number 3" in line and line.endswith("…") for line in shown)


def test_the_same_seed_prepares_the_same_and_another_does_not(tmp_path):
    made = [
        pipeline(seed=seed, near_duplicate_threshold=0.8).run_pipeline([alpaca(i) for i in range(40)], tmp_path / name)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    ids = [[row["input_ids"] for row in splits["train"]] for splits in made]
    assert ids[0] == ids[1] != ids[2]


def test_a_source_with_splits_keeps_them_and_its_test_rows_leave_the_training_rows(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    test = [alpaca(i) for i in range(100, 106)]
    leaked = {"instruction": f"Please answer: {test[0]['instruction']} and be brief", "output": "Something else here."}
    for split, rows in (("train", [*map(alpaca, range(20)), test[1], leaked]), ("test", test)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made, splits = prepare(tmp_path, folder)
    assert [len(split) for split in splits.values()] == [20, 0, 6]
    assert made.report.dropped == {"exact duplicate": 1, "overlaps a held-out row": 1}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_rows_are_not_trained_on_where_no_training_row_is_left(tmp_path, split):
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"instruction": "a", "output": ""}\n')
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(alpaca(i)) + "\n" for i in range(20)))
    with pytest.raises(DataError, match="no training row is left"):
        prepare(tmp_path, folder)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="file/out cannot be written"):
        pipeline().run_pipeline(tmp_path / "no such source.jsonl", tmp_path / "file" / "out")


def test_rows_of_a_foreign_test_set_are_left_out_of_every_split(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(alpaca(3)) + "\n")
    made, splits = prepare(tmp_path, [alpaca(i) for i in range(12)], decontaminate=str(path))
    texts = [row["messages"][0]["content"] for split in splits.values() for row in split]
    assert made.report.dropped == {"overlaps the test set": 1}
    assert not contaminated(texts, [alpaca(3)["instruction"]]).any()
    # of a folder with a test split, the rows of that alone are test rows
    folder = tmp_path / "others"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(alpaca(5)) + "\n")
    path.rename(folder / "test.jsonl")
    made = pipeline(decontaminate=str(folder))
    made.decontaminate(made.load_data([alpaca(i) for i in range(12)]))
    assert made.report.dropped == {"overlaps the test set": 1}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("test.jsonl", '{"question": "q", "answer": "a"}', "test.jsonl, line 1: has the fields 'question', 'answer'"),
        ("test.jsonl", '{"prompt": "q"}\n{"prompt": ', "must be whole: .*test.jsonl, line 2, column 11: not valid"),
        ("test.jsonl", "", "test.jsonl holds no test rows"),
        ("validation.jsonl", '{"prompt": "q"}', "holds no test rows to decontaminate from; give a file or a folder"),
        ("none", "", "test.jsonl does not exist"),
    ],
)
def test_a_test_set_that_cannot_be_used_is_said_before_anything_is_read(tmp_path, name, text, says):
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / name).write_text(text)
    source = folder if name.startswith("validation") else folder / "test.jsonl"
    with pytest.raises(DataError, match=says):
        prepare(tmp_path, tmp_path / "no such source.jsonl", decontaminate=str(source))
    made = pipeline(decontaminate=str(source))
    with pytest.raises(DataError, match=says):
        made.decontaminate(made.load_data([alpaca(1)]))


def test_a_test_set_of_prompts_alone_keeps_them_out(tmp_path):
    path = tmp_path / "test.jsonl"
    prompts = [alpaca(i)["instruction"] for i in range(5)]
    turn = {"role": "user", "content": prompts[2]}
    rows = (
        {"prompt": prompts[0]},
        {"instruction": prompts[1]},
        {"messages": [turn]},
        {"prompt": prompts[3], "completion": ""},
    )
    path.write_text("\n".join(map(json.dumps, rows)))
    made, splits = prepare(tmp_path, [alpaca(i) for i in range(12)], decontaminate=str(path))
    assert made.report.dropped == {"overlaps the test set": 4} and made.report.kept == 8
    assert all(row["messages"][0]["content"] not in prompts[:4] for split in splits.values() for row in split)


def test_calls_of_tools_tell_rows_apart(tmp_path):
    def row(**arguments):
        call = {"type": "function", "function": {"name": "search", "arguments": arguments}}
        asked = {"role": "user", "content": "Do as the picture says."}
        return {"messages": [asked, {"role": "assistant", "content": "", "tool_calls": [call]}]}

    rows = [row(city="Rome", days=3), row(city="Lima", days=9), row(color="red"), row(city="Rome", days=3)]
    made = pipeline(near_duplicate_threshold=0.8)
    assert len(made.deduplicate(made.load_data(rows))) == 3 and made.report.dropped == {"exact duplicate": 1}
    repeated = row(text="ha " * 200)
    _, report = made.quality_filter(made.load_data([repeated])), made.report
    assert report.dropped["repetitive"] == 1


def test_rows_whose_tools_a_template_refuses_are_counted(tmp_path):
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
    rows = [alpaca(i) for i in range(8)] + [alpaca(20) | {"tools": json.dumps(tools)}, alpaca(21) | {"tools": "f(x)"}]
    made, splits = prepare(tmp_path, rows)
    assert made.report.dropped == {"malformed tools": 1} and made.report.kept == 9
    for fault in ("none + 1", "[1]|sum('x')", "'x'|int + 'y'", "raise_exception('no')"):
        made = pipeline("tiny-qwen3")
        template = made.tokenizer.chat_template
        made.tokenizer.chat_template = "{% if tools %}{{ " + fault + " }}{% endif %}" + template
        made.tokenize_dataset(made.load_data([alpaca(1), alpaca(2) | {"tools": tools}]))
        assert made.report.kept == 1 and "the chat template refuses the conversation" in next(iter(made.report.dropped))


def test_nothing_half_written_is_left_and_nothing_is_overwritten(tmp_path, monkeypatch):
    made = pipeline()
    monkeypatch.setattr(made, "metadata", lambda splits: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made.run_pipeline([alpaca(i) for i in range(6)], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    pipeline().run_pipeline([alpaca(i) for i in range(6)], tmp_path / "out")
    with pytest.raises(ConfigError, match="is not empty"):
        pipeline().run_pipeline([alpaca(i) for i in range(6)], tmp_path / "out")


def test_a_folder_that_cannot_be_replaced_is_refused_before_the_work_and_a_link_is_followed(tmp_path, monkeypatch):
    rows = [alpaca(i) for i in range(6)]
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    pipeline().run_pipeline(rows, tmp_path / "link")
    assert is_prepared(tmp_path / "real") and (tmp_path / "link").is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    never = pipeline()
    monkeypatch.setattr(never, "load_data", None)
    with pytest.raises(ConfigError, match="working folder or a mount point.*name a folder in it"):
        never.run_pipeline(rows, ".")
    monkeypatch.setattr(type(tmp_path), "is_mount", lambda path: path.name == "volume")
    (tmp_path / "volume").mkdir()
    with pytest.raises(ConfigError, match="working folder or a mount point"):
        never.run_pipeline(rows, tmp_path / "volume")
    pipeline().run_pipeline(rows, "inside")


PREPARE_SLOWLY = """
import sys
from datasets import DatasetDict
from ftkit.cli import main

save = DatasetDict.save_to_disk

def save_and_wait(self, folder, **options):
    save(self, folder, **options)
    print("written", flush=True)
    sys.stdin.read()  # until somebody ends this process

DatasetDict.save_to_disk = save_and_wait
main(sys.argv[1:])
"""


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_taken_for_whole(tmp_path, capsys):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out"
    rows.write_text("".join(json.dumps(alpaca(i)) + "\n" for i in range(20)))
    command = ["prepare", str(rows), "--output-dir", str(out), "--model-name", "tiny-llama3"]
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE_SLOWLY, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "written\n"
    process.kill()
    process.communicate()
    left = [path for path in tmp_path.iterdir() if path != rows]
    assert left and not out.exists() and not any(map(is_prepared, left))
    for path in left:
        with pytest.raises(DataError):
            load_data(path)
    assert main(command) == 0 and is_prepared(out)
    assert len(load_data(out)["train"]) == metadata(out)["train_size"] > 0


def test_what_a_trainer_gets_of_a_prepared_folder_stays_on_disk_and_reads_like_a_list(tmp_path):
    made, splits = prepare(tmp_path, [alpaca(i) for i in range(20)])
    rows = prepared_rows(load_data(tmp_path / "out")["train"], made.tokenizer, tmp_path / "out")
    assert isinstance(rows, Dataset) and rows.cache_files
    listed = [{name: row[name] for name in ("input_ids", "labels")} for row in splits["train"]]
    assert len(rows) == len(listed) and list(rows) == listed and rows[-1] == listed[-1]
    assert prepared_rows(listed, made.tokenizer, None) == listed


def test_e7_9_rows_of_like_length_can_be_batched_together(tmp_path):
    from transformers.trainer_pt_utils import LengthGroupedSampler

    made, _ = prepare(tmp_path, [alpaca(i, output="word " * (i * 7 % 40) + str(i)) for i in range(240)])
    rows = prepared_rows(load_data(tmp_path / "out")["train"], made.tokenizer, tmp_path / "out")
    order = list(LengthGroupedSampler(4, dataset=rows, generator=torch.Generator().manual_seed(0)))
    assert sorted(order) == list(range(len(rows)))
    lengths = [len(row["input_ids"]) for row in rows]

    def padding(order) -> int:
        batches = [[lengths[i] for i in order[at : at + 4]] for at in range(0, len(order), 4)]
        return sum(max(batch) - length for batch in batches for length in batch)

    assert padding(order) < padding(range(len(rows))) / 2


def test_packed_rows_hold_the_same_targets(tmp_path):
    rows = [alpaca(i) for i in range(30)]
    _, plain = prepare(tmp_path, rows)
    made = pipeline(packing=True, max_seq_length=900)
    packed = made.run_pipeline(rows, tmp_path / "packed")
    assert len(packed["train"]) < len(plain["train"]) / 2
    flat = [sorted(token for row in splits["train"] for token in targets(row)) for splits in (plain, packed)]
    assert flat[0] == flat[1] and all(len(row["input_ids"]) <= 900 for row in packed["train"])
    again = made.run_pipeline(rows[:15], tmp_path / "fewer")  # the same pipeline, other rows: nothing remembered
    assert sum(map(len, again["train"]["input_ids"])) < sum(map(len, packed["train"]["input_ids"]))
    never = pipeline("tiny-deepseek-v3.2", packing=True)
    never.load_data = None
    with pytest.raises(ConfigError, match="not known to keep"):
        never.run_pipeline(rows, tmp_path / "other")


def test_turns_of_their_own_stay_on_one_side_and_nothing_is_lost(tmp_path):
    turns = [
        [{"role": "user", "content": f"{i} first"}, {"role": "assistant", "content": f"a{i}"}] * 2 for i in range(30)
    ]
    made, splits = prepare(tmp_path, [{"messages": messages} for messages in turns], "tiny-qwen3", train_on="all")
    sides = [{row["messages"][0]["content"] for row in split} for split in splits.values()]
    assert sum(map(len, sides)) == 30 and sum(map(len, splits.values())) == 60 and made.mismatches == 0


def test_the_table_gives_back_what_it_was_given(tmp_path):
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": [1, None]}}}
    row = {
        "messages": [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "é"}],
        "tools": [call],
    }
    rows = [{"text": "x"}, row, {"text": "y"}, {"messages": row["messages"][1:]}]
    table = pa.table(arrays(rows))
    assert rows_of(table) == rows and rows_of(table.slice(1, 2)) == rows[1:3]
    for count in (0, 3, 2000, 2001):  # the table is written in stretches of a thousand
        written = write(tmp_path / f"{count}.arrow", (("train", str(i), rows[i % 4]) for i in range(count)))
        assert [restore(cells) for cells in written] == [rows[i % 4] for i in range(count)]
        assert written["where"][:] == list(map(str, range(count)))


def test_a_prepared_folder_trains_packed_or_not_and_only_its_own_vocabulary(tmp_path, capsys):
    from ftkit import LoRAConfig, LoRAFineTuner

    for packing in (False, True):
        folder = tmp_path / f"data{packing}"
        pipeline("tiny-smollm", packing=packing).run_pipeline([alpaca(i) for i in range(30)], folder)
        assert list(load_data(folder)) == ["train", "validation", "test"]
        config = LoRAConfig(model_name="tiny-smollm", data_dir=str(folder), lora_r=2, max_steps=1, batch_size=2,
                            gradient_accumulation_steps=1, output_dir=str(tmp_path / f"run{packing}"))  # fmt: skip
        assert LoRAFineTuner(config).train()["steps"] == 1
    config = LoRAConfig(model_name="tiny-llama3", data_dir=str(folder), output_dir=str(tmp_path / "other"))
    tuner = LoRAFineTuner(config)
    tuner.load_model_and_tokenizer()
    with pytest.raises(DataError, match="was prepared for tiny-smollm"):
        tuner.load_data()


@pytest.mark.parametrize("near", [None, 0.8])
def test_many_processes_prepare_what_one_does(tmp_path, monkeypatch, near):
    """Rows, splits, and what is said of those left out, whichever process reads, cleans, compares or encodes them."""
    for name in ("pipeline._ROWS_A_PROCESS", "pipeline._BATCH", "readers.STRETCH", "table._SCAN"):
        monkeypatch.setattr(f"ftkit.data.{name}", 7)
    lines = [json.dumps(alpaca(i % 50)) for i in range(60)]
    lines[13], lines[29], lines[44] = "{", "[]", json.dumps({"instruction": "a", "output": "\u200b"})
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    made = [pipeline(num_proc=n, near_duplicate_threshold=near) for n in (1, 2, 3)]
    one, *others = [each.run_pipeline(path, tmp_path / str(each.config.num_proc)) for each in made]
    assert one["train"].num_rows > 20 and made[0].report.dropped["not valid JSON"] == 1
    for splits, each in zip(others, made[1:], strict=True):
        assert {split: rows[:] for split, rows in splits.items()} == {split: rows[:] for split, rows in one.items()}
        assert each.report == made[0].report


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_broken_row_is_the_error_when_that_is_asked(tmp_path, monkeypatch, processes):
    for name in ("pipeline._ROWS_A_PROCESS", "readers.STRETCH"):
        monkeypatch.setattr(f"ftkit.data.{name}", 5)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(alpaca(0))] * 17 + ["{", "[]"]))
    with pytest.raises(DataError, match="rows.jsonl, line 18, column 2: not valid JSON"):
        pipeline(num_proc=processes, on_error="raise").load_data(path)
