"""The command line as a user meets it: what it prints, and that a mistake is one sentence and exit code 2."""

import errno
import io
import json
import subprocess
import sys

import pytest

from ftkit import __version__
from ftkit.cli import COMMANDS, main
from ftkit.data.chat import encode_prompt
from ftkit.fields import field_docs
from ftkit.terminal import _write

TRAIN = ["train", "lora", "--model-name", "tiny-smollm", "--lora-r", "4", "--max-steps", "2", "--logging-steps", "1"]


@pytest.fixture
def data(tmp_path, rows):
    folder = tmp_path / "data"
    folder.mkdir()
    for split, chosen in (("train", rows[:8]), ("test", rows[8:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return folder


def fails(capsys, *arguments) -> str:
    """Exit code 2, nothing on stdout after the fault, and one line on stderr without a traceback."""
    assert main(list(map(str, arguments))) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("ftkit: ") and "Traceback" not in error
    return error


def test_train_evaluate_and_merge(data, tmp_path, capsys):
    run, merged = tmp_path / "run", tmp_path / "merged"
    assert main([*TRAIN, "--data-dir", str(data), "--output-dir", str(run)]) == 0
    assert "2 steps in" in capsys.readouterr().out
    base = ["--baseline", "tiny-smollm", "--data", str(data), "--max-new-tokens", "4", "--general-texts", "2"]
    base += ["--output-dir", str(tmp_path / "report")]
    assert main(["evaluate", str(run), *base, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["instruction_following"]["rows"] == 4 and report["seen_in_training"] == 0
    assert {"comparison", "forgetting", "baseline"} <= set(report) and report["model"] == str(run)
    assert json.loads((tmp_path / "report/evaluation_results.json").read_text()) == report
    assert main(["evaluate", str(run), *base, "--tasks", "ftkit_facts", "--num-samples", "2"]) == 0
    shown = capsys.readouterr().out
    assert "an interval that holds 0 shows no difference" in shown and "acc,none" in shown and "on 2 rows" in shown
    assert "ftkit_facts" in (tmp_path / "report/report.html").read_text()
    assert main(["merge", str(run), "--output-dir", str(merged)]) == 0
    assert (merged / "model.safetensors").is_file()


def test_train_qlora_and_merge_onto_each_base(data, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "qlora", *TRAIN[2:], "--data-dir", str(data), "--output-dir", str(run)]) == 0
    said = capsys.readouterr().out
    assert "of the base's weights are in 4 bits" in said and "2 steps in" in said
    assert main(["merge", str(run), "--output-dir", str(tmp_path / "exact"), "--num-prompts", "2"]) == 0
    shown = capsys.readouterr().out
    assert "onto the dequantized base" in shown and "on 2 prompts" in shown
    assert all(target in shown for target in ("* dequantized", "original", "requantized"))
    onto = ["merge", str(run), "--output-dir", str(tmp_path / "other"), "--onto", "original", "--json"]
    assert main(onto) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert receipt["onto"] == "original" and receipt["changes"]["dequantized"]["max_logit"] < 1e-4
    assert receipt == json.loads((tmp_path / "other" / "merge_receipt.json").read_text())
    assert "onto must be one of" in fails(capsys, *onto[:3], tmp_path / "third", "--onto", "exact")


def test_train_full_from_a_file_and_flags(data, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(f"model_name: tiny-smollm\nmax_steps: 9\nlearning_rate: 1e-3\ndata_dir: {data}\n")
    command = ["train", "full", "--config", str(file), "--max-steps", "2", "--output-dir", str(tmp_path / "run")]
    assert main(command) == 0
    assert "2 steps in" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "--resume" in fails(capsys, *command)  # it is never overwritten
    assert main([*command, "--resume"]) == 0


def test_a_model_that_does_not_exist_is_named_with_near_matches(data, tmp_path, capsys):
    error = fails(capsys, *TRAIN, "--model-name", "tiny-lama3", "--data-dir", data, "--output-dir", tmp_path / "o")
    assert "tiny-lama3" in error and "'tiny-llama3'" in error
    assert not (tmp_path / "o").exists()


def test_data_that_is_missing_empty_or_broken(data, tmp_path, capsys):
    out = ["--output-dir", tmp_path / "o"]
    assert "does not exist" in fails(capsys, *TRAIN, "--data-dir", tmp_path / "nowhere.jsonl", *out)
    (data / "train.jsonl").write_text("")
    assert "train.jsonl is empty" in fails(capsys, *TRAIN, "--data-dir", data, *out)
    (data / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    assert "train.jsonl, line 2, column" in fails(capsys, *TRAIN, "--data-dir", data, *out)


def test_a_configuration_that_contradicts_itself(capsys):
    error = fails(capsys, "train", "lora", "--attn-implementation", "flash_attention_2", "--no-use-flash-attention")
    assert "contradicts use_flash_attention=False" in error


def test_evaluate_and_merge_say_what_they_miss(data, tmp_path, capsys):
    assert "no split 'validation'" in fails(capsys, "evaluate", "tiny-smollm", "--data", data, "--split", "validation")
    assert "num_samples must be above 0" in fails(capsys, "evaluate", "tiny-smollm", "--num-samples", "0")
    (data / "test.jsonl").unlink()  # a folder without test rows is not evaluated on those it was trained on
    assert "no split 'test'" in fails(capsys, "evaluate", "tiny-smollm", "--data", data)
    assert "holds no adapter" in fails(capsys, "merge", data, "--output-dir", tmp_path / "m")


def test_memory_answers_as_text_and_as_json(capsys):
    assert main(["memory", "llama-3-70b", "--method", "lora", "--rank", "64", "--gpu", "A100-80"]) == 0
    text = capsys.readouterr().out
    assert "828,375,040 trained" in text and "does not fit on one A100-80" in text
    run = ["--method", "qlora", "--rank", "64", "--batch-size", "4", "--sequence-length", "2048", "--gpu", "T4"]
    assert main(["memory", "llama-3-70b", *run, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["total_parameters"] == 70_553_706_496 and answer["trainable_parameters"] == 828_375_040
    assert sum(answer["components"].values()) == answer["total_bytes"]
    assert answer["lower_bytes"] <= answer["total_bytes"] <= answer["upper_bytes"]
    assert answer["gpu"]["fits"] == "no"


def test_memory_over_several_gpus_says_that_the_trainers_do_not_share(capsys):
    said = "FSDP, which ftkit's trainers do not do"
    assert main(["memory", "llama-3-70b", "--gpu", "A100-80"]) == 0
    assert said not in capsys.readouterr().out
    assert main(["memory", "llama-3-70b", "--shards", "8", "--gpu", "A100-80"]) == 0
    assert f"8 GPUs share it by {said}" in capsys.readouterr().out
    assert main(["memory", "deepseek-v3", "--method", "full"]) == 0
    assert f"raise shards, which needs {said}" in capsys.readouterr().out


def test_memory_names_what_it_does_not_know(capsys):
    assert "'llama-3-70b'" in fails(capsys, "memory", "lama-3-70b")
    assert "'T4'" in fails(capsys, "memory", "llama-3-8b", "--gpu", "T5")
    assert "'qlora'" in fails(capsys, "memory", "llama-3-8b", "--method", "qlra")


def test_memory_takes_under_a_second_and_loads_no_torch():
    code = "import sys, time; t = time.perf_counter(); from ftkit.cli import main; main(['memory', 'deepseek-v3.2']);"
    code += "print(time.perf_counter() - t, {'torch', 'transformers'} & set(sys.modules))"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    ends = [run.stdout.strip().splitlines()[-1].split(" ", 1) for run in runs]
    assert min(float(seconds) for seconds, _ in ends) < 1 and all(loaded == "set()" for _, loaded in ends)


def test_an_unknown_command_is_named_with_near_matches(capsys):
    assert "Did you mean 'train lora'" in fails(capsys, "train", "lroa")


def test_a_wrong_flag_is_named_with_near_matches(capsys):
    assert "no option '--lora-rr'. Did you mean '--lora-r'" in fails(capsys, "train", "lora", "--lora-rr", 3)
    assert "argument --lora-r: must be a whole number, not 'x'" in fails(capsys, "train", "lora", "--lora-r", "x")
    assert "required: MODEL" in fails(capsys, "memory")
    assert "required: --output-dir" in fails(capsys, "merge", "run")
    assert "no use for 'more'" in fails(capsys, "memory", "llama-3-8b", "more")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_is_the_text_beside_the_field(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([*command.split(), "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert exit.value.code == 0
    assert all(" ".join(text.split()[:4]) in shown for text in field_docs(COMMANDS[command][0]).values())


def test_the_installed_command_runs_without_torch_for_its_help():
    code = "import sys; sys.argv = ['ftkit']; from ftkit.cli import main; main(); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "train lora" in out and out.strip().endswith("False")


def test_a_chat_reads_turns_from_a_pipe_and_remembers_them(monkeypatch, capsys):
    asked = []

    def encoded(tokenizer, messages, tools=None):
        asked.append([(message["role"], message["content"]) for message in messages])
        return encode_prompt(tokenizer, messages, tools)

    monkeypatch.setattr("ftkit.evaluation.stream.encode_prompt", encoded)
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\n two \n/new\nthree\n"))
    assert main(["chat", "tiny-qwen3", "--system", "Be brief.", "--max-new-tokens", "5"]) == 0
    first, second, third = asked
    assert first == [("system", "Be brief."), ("user", "one")]
    assert second[:2] == first and second[2][0] == "assistant" and second[3] == ("user", "two")
    assert third == [first[0], ("user", "three")]
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_chat_says_what_it_cannot_do(monkeypatch, capsys):
    assert "top_p means nothing" in fails(capsys, "chat", "tiny-qwen3", "--top-p", "0.5")
    assert "'tiny-qwen3'" in fails(capsys, "chat", "tiny-qwen33")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    assert "the input is not UTF-8" in fails(capsys, "chat", "tiny-qwen3")
    monkeypatch.setattr("sys.stdin", io.StringIO("long " * 500))
    assert "more than the 2,048 that the model takes" in fails(capsys, "chat", "tiny-qwen3")


def test_a_chat_shows_no_control_characters(capsys):
    _write("a\x1b[2Jb\x07\x9b\n\u200dc\té")
    assert capsys.readouterr().out == "a[2Jb\n\u200dc\té"


def test_the_package_is_a_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ftkit", "train", "lorra"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and done.stderr.startswith("ftkit: there is no command 'train lorra'")


@pytest.mark.parametrize(
    "refusal", [OSError(errno.EACCES, "Permission denied", "out"), Exception("No space left on device (os error 28)")]
)
def test_a_disk_that_refuses_is_one_sentence_and_every_other_error_a_traceback(monkeypatch, capsys, refusal):
    def run(options):
        raise error

    monkeypatch.setitem(COMMANDS, "doctor", (COMMANDS["doctor"][0], run))
    error = refusal
    assert "make room, or name a folder that may be written" in fails(capsys, "doctor", "rows.jsonl")
    for error in (FileNotFoundError(errno.ENOENT, "No such file"), ValueError("a bug")):
        with pytest.raises(type(error)):
            main(["doctor", "rows.jsonl"])


def test_a_reader_that_has_seen_enough_is_no_error():
    call = "from ftkit.cli import main; raise SystemExit(main(['memory', 'llama-3-8b']))"
    with subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"ftkit {__version__}\n"
