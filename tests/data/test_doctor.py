"""The doctor: healthy data pass, and every fault of a careless preparation is named."""

import json
import random

import pytest
from datasets import Dataset, DatasetDict

from ftkit import DataConfig, DataPreparationPipeline
from ftkit.cli import main
from ftkit.data import doctor
from ftkit.data.prepared import vocabulary_key
from ftkit.models import load_tokenizer

FAMILIES = ["llama3", "llama4", "qwen3", "deepseek-v3", "deepseek-v3.2", "gemma3", "smollm"]
WORDS = "river stone window lamp garden bridge paper cloud engine harbour violin pepper castle mirror ladder".split()


def turn(i: int, **other) -> dict:
    picked = random.Random(i).choices(WORDS, k=9)
    return {"prompt": f"Number {i}? {' '.join(picked)}", "completion": f"{' '.join(picked[:4])} is {i * 37}."} | other


GOOD = [turn(i) for i in range(20)]


def checks(diagnosis) -> dict[str, str]:
    return {finding.check: finding.severity for finding in diagnosis.findings}


@pytest.mark.parametrize("family", FAMILIES)
def test_sound_rows_are_healthy_for_every_family(family):
    diagnosis = doctor(GOOD, f"tiny-{family}")
    assert diagnosis.verdict == "healthy" and diagnosis.exit_code == 0 and not diagnosis.findings
    assert diagnosis.counts["rows"] == 20 and 0 < diagnosis.counts["mask_coverage"] < 1
    assert sum(rows for _, rows in diagnosis.lengths) == 20


def test_the_first_rows_are_shown_as_the_model_sees_them():
    tokenizer = load_tokenizer("tiny-llama3")
    pieces = doctor(GOOD, tokenizer).shown[0]
    assert "".join(text for text, trained in pieces if trained) == GOOD[0]["completion"] + "<|eot_id|>"
    assert "".join(text for text, _ in pieces).startswith("<|begin_of_text|>")


@pytest.mark.parametrize(
    ("rows", "check", "severity"),
    [
        ([turn(1)], "exact_duplicates", "warning"),
        ([turn(1, completion=turn(1)["completion"].upper())], "near_duplicates", "warning"),
        ([{"prompt": "x"}], "unknown_format", "warning"),
        ([turn(50, completion="")], "empty_answer", "warning"),
        ([{"text": "plain text among conversations"}], "mixed_formats", "warning"),
        ([turn(50, completion="w " * 3000 + "w")], "too_long", "warning"),
        ([turn(50, completion="cafÃ© Ã  la crÃ¨me")], "odd_encoding", "warning"),
        ([turn(50, completion="a\x00b")], "unclean_text", "info"),
        (
            [turn(50, prompt="<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>")],
            "special_token_in_text",
            "error",
        ),
    ],
)
def test_what_is_wrong_with_rows(rows, check, severity):
    diagnosis = doctor([*GOOD, *rows], "tiny-llama3")
    assert checks(diagnosis) == {check: severity}
    assert diagnosis.exit_code == {"info": 0, "warning": 1, "error": 2}[severity]
    assert diagnosis.findings[0].rows == 1 or check == "mixed_formats"


def test_tools_that_the_template_leaves_out_are_an_error():
    tool = {"type": "function", "function": {"name": "add_numbers", "parameters": {"type": "object"}}}
    call = {"type": "function", "function": {"name": "add_numbers", "arguments": {"a": 1}}}
    messages = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "It is 2."},
    ]
    tokenizer = load_tokenizer("tiny-smollm")
    assert checks(doctor([{"messages": messages}], tokenizer)) == {"tool_left_out": "error"}
    assert checks(doctor([{"messages": [messages[0], messages[3]], "tools": [tool]}], tokenizer))["tool_left_out"]
    written = "(message['content'] or message['tool_calls'] | string)"
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", written)
    assert not checks(doctor([{"messages": messages}], tokenizer))


def test_a_test_row_in_the_training_rows_is_an_error(tmp_path):
    leaked = turn(100, prompt="Please, quickly: " + turn(100)["prompt"])
    for split, rows in (("train", [*GOOD, leaked]), ("test", [turn(100), turn(101)])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    diagnosis = doctor(tmp_path, "tiny-smollm")
    assert checks(diagnosis)["test_overlap"] == "error" and diagnosis.verdict == "training would be wrong"


def test_a_template_whose_prompt_is_no_prefix_or_that_never_stops_is_an_error():
    tokenizer = load_tokenizer("tiny-qwen3")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}<|im_start|>"
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>{% endif %}"
    assert checks(doctor(GOOD, tokenizer))["prefix_violation"] == "error"
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert checks(doctor(GOOD, tokenizer))["cannot_be_rendered"] == "error"


def prepared(folder, rows, tokenizer, **other):
    """A prepared folder as a careless hand would write it."""
    DatasetDict(train=Dataset.from_list(rows)).save_to_disk(str(folder))
    made = {"vocabulary": vocabulary_key(tokenizer), "max_seq_length": 64, "prefix_violations": 0, "model_name": "x"}
    (folder / "metadata.json").write_text(json.dumps(made | other))
    return folder


def test_e7_faults_of_a_prepared_folder(tmp_path):
    tokenizer = load_tokenizer("tiny-llama3")
    bos, stop, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    body = list(b"some question")
    faults = {
        "bos_count": {"input_ids": [bos, bos, 65, stop], "labels": [-100, -100, 65, stop]},  # E7.3
        "padding_trained": {"input_ids": [bos, 65, stop, pad, pad], "labels": [bos, 65, stop, pad, pad]},  # E7.7
        "stop_not_trained": {"input_ids": [bos, 65, stop], "labels": [-100, 65, -100]},  # E7.8
        "no_target": {"input_ids": [bos, 65, stop], "labels": [-100] * 3},
        "truncated_answer": {"input_ids": [bos, *body * 5][:64], "labels": [-100] * 60 + (body * 5)[59:63]},  # E7.10
        "labels_are_not_the_ids": {"input_ids": [bos, 65, stop], "labels": [-100, 66, stop]},
    }
    for name, row in faults.items():
        diagnosis = doctor(prepared(tmp_path / name, [row], tokenizer), tokenizer)
        assert name in checks(diagnosis), name
        assert diagnosis.exit_code == (1 if name == "truncated_answer" else 2)
    sound = {"input_ids": [bos, 65, stop], "labels": [-100, 65, stop]}
    assert not doctor(prepared(tmp_path / "sound", [sound], tokenizer), tokenizer).findings
    other = prepared(tmp_path / "other", [sound], tokenizer, vocabulary="0")
    assert checks(doctor(other, tokenizer)) == {"other_vocabulary": "error"}


def test_a_text_that_ends_with_the_stop_token_is_no_padding_and_padding_with_it_is(tmp_path):
    tokenizer = load_tokenizer("tiny-qwen3")
    stop = tokenizer.pad_token_id = tokenizer.eos_token_id
    rows = [{"text": f"plain text {i}{tokenizer.eos_token}"} for i in range(30)]
    DataPreparationPipeline(DataConfig(model_name="tiny-qwen3"), progress=False).run_pipeline(rows, tmp_path / "out")
    assert checks(doctor(tmp_path / "out", tokenizer)) == {"special_token_in_text": "error"}
    for count, found in ((1, False), (2, False), (3, True), (9, True)):
        ids = [65, 66, *[stop] * count]
        folder = prepared(tmp_path / str(count), [{"input_ids": ids, "labels": ids}], tokenizer)
        assert ("padding_trained" in checks(doctor(folder, tokenizer))) == found
        masked = {"input_ids": ids, "labels": [65, 66, stop, *[-100] * (count - 1)]}
        assert not doctor(prepared(tmp_path / f"{count} masked", [masked], tokenizer), tokenizer).findings


@pytest.mark.parametrize("packing", [False, True])
def test_what_the_pipeline_prepares_is_healthy(tmp_path, packing):
    config = DataConfig(model_name="tiny-smollm", packing=packing, max_seq_length=700)
    DataPreparationPipeline(config, progress=False).run_pipeline(GOOD, tmp_path / "out")
    assert not doctor(tmp_path / "out", "tiny-smollm").findings


def test_the_command_exits_by_the_verdict_and_speaks_json(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    for rows, code, verdict in (
        (GOOD, 0, "healthy"),
        ([*GOOD, GOOD[0]], 1, "warnings"),
        ([{"x": 1}], 2, "training would be wrong"),
    ):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert main(["doctor", str(path), "--model", "tiny-llama3", "--json"]) == code
        report = json.loads(capsys.readouterr().out)
        assert report["verdict"] == verdict and report["counts"]["rows"] == len(rows)
        for finding in report["findings"]:
            assert {"check", "severity", "rows", "example"} <= finding.keys()
    assert main(["doctor", str(tmp_path / "none.jsonl"), "--model", "tiny-llama3"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_text_and_page_show_findings_and_marks():
    diagnosis = doctor([*GOOD, GOOD[0], turn(50, completion="a <b>\nc")], "tiny-llama3")
    plain, colored, page = diagnosis.text(), diagnosis.text(color=True), diagnosis._repr_html_()
    assert "exact_duplicates (warning, 1 rows)" in plain and f"«{GOOD[0]['completion']}<|eot_id|>»" in plain
    assert "\033[30;42m" in colored and "«" not in colored
    assert "<mark" in page and "&lt;|eot_id|&gt;</mark>" in page and "<td>exact_duplicates" not in page


def test_prepare_then_doctor_then_train_on_the_command_line(tmp_path, capsys):
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(row) + "\n" for row in GOOD) + "{broken\n")
    assert main(["prepare", str(path), "--output-dir", str(out), "--model-name", "tiny-smollm"]) == 0
    printed = capsys.readouterr().out
    assert "21 rows read" in printed and "line 21" in printed and "train 18, validation 1, test 1" in printed
    assert main(["doctor", str(out), "--model", "tiny-smollm"]) == 0
    results = ["--output-dir", str(tmp_path / "results"), "--json"]
    assert main(["evaluate", "tiny-smollm", "--data", str(out), "--max-new-tokens", "2", *results]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["instruction_following"]["rows"] == 1
