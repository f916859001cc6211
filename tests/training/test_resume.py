"""A run that was stopped anywhere ends as if it had never been stopped; half a checkpoint is no checkpoint."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ftkit.errors import ConfigError, Interrupted, TrainingError
from ftkit.training import checkpoint as checkpoints
from ftkit.training import record
from ftkit.training.callbacks import SavePoints
from ftkit.training.config import RUN_FILE, FullFineTuningConfig, LoRAConfig
from ftkit.training.full import FullFineTuner
from ftkit.training.lora import LoRAFineTuner
from ftkit.training.record import fingerprint, identity
from ftkit.training.trainer import TokenTrainer

SETTINGS = {
    "model_name": "tiny-smollm",
    "lora_r": 4,
    "lora_dropout": 0.1,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 8,
    "save_steps": 2,
    "eval_steps": 2,
    "learning_rate": 1e-2,
    "save_total_limit": 4,
}


@pytest.fixture(scope="module")
def data():
    words = "red green blue black white".split()
    rows = [
        {"messages": [{"role": "user", "content": f"{w} {v}?"}, {"role": "assistant", "content": f"{v} {w}."}]}
        for w in words
        for v in words
    ]
    return {"train": rows[:17], "validation": rows[17:]}


def run(folder, data, resume=False, **changes):
    tuner = LoRAFineTuner(LoRAConfig(output_dir=str(folder), **SETTINGS | changes), data)
    tuner.train(resume=resume)
    return tuner


def recorded(folder):
    return json.loads((folder / RUN_FILE).read_text())


def stopped_after(folder, data, step, monkeypatch, **changes):
    """A run that SIGTERM stops after `step`."""
    end = SavePoints.on_step_end

    def stop(self, args, state, control, **kwargs):
        self.trainer.interrupted = state.global_step == step
        return end(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=f"after step {step} of .*--resume"):
        patch.setattr(SavePoints, "on_step_end", stop)
        run(folder, data, **changes)


def test_e8_7_twenty_kills_at_random_instants_are_twenty_identical_resumes(tmp_path):
    """SIGKILL, SIGTERM and a full disk, with dropout, accumulation and coprime intervals, each in another process."""
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == [] and found["kills"] == 20


def test_e8_7_an_existing_run_is_refused_without_resume_and_a_whole_one_is_read_with_it(data, tmp_path, capsys):
    first = run(tmp_path / "run", data)
    with pytest.raises(ConfigError, match="holds a run. Go on with it by --resume"):
        run(tmp_path / "run", data)
    before = (tmp_path / "run/log.jsonl").read_bytes()
    times = {k: v for k, v in recorded(tmp_path / "run")["metrics"].items() if k.endswith("_runtime")}
    again = run(tmp_path / "run", data, resume=True)
    assert (tmp_path / "run/log.jsonl").read_bytes() == before
    assert len(times) == 2 and recorded(tmp_path / "run")["metrics"].items() >= times.items()
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_folder_that_is_no_run_is_refused_even_with_resume(data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no run"):
        run(tmp_path, data, resume=True)


def test_a_run_is_resumed_with_its_own_settings_and_its_own_data(data, tmp_path, monkeypatch):
    stopped_after(tmp_path / "run", data, 3, monkeypatch)
    with pytest.raises(ConfigError, match="learning_rate=0.01, not learning_rate=0.02"):
        run(tmp_path / "run", data, resume=True, learning_rate=0.02)
    with pytest.raises(ConfigError, match="has lora_r=4, lora_alpha=8, not lora_r=2, lora_alpha=4; a run"):
        run(tmp_path / "run", data, resume=True, lora_r=2)
    other = {"train": data["train"][::-1], "validation": data["validation"]}
    with pytest.raises(ConfigError, match="the data is not the one"):
        run(tmp_path / "run", other, resume=True)
    ids = [{"input_ids": [5, 6, 7], "labels": [-100, 6, label]} for label in (7, -100)]
    assert fingerprint({"train": ids[:1]}) != fingerprint({"train": ids[1:]})  # the same text, trained otherwise
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="trained by 1 processes, not 2"):
        patch.setattr(record, "identity", lambda *given: identity(*given[:2], 2))
        run(tmp_path / "run", data, resume=True)
    assert run(tmp_path / "run", data, resume=True).trainer.state.global_step == 8


@pytest.fixture
def heard():
    """Signals that a shell in the background tells its programs to ignore are listened to."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_signal_saves_the_step_and_a_second_ctrl_c_ends_at_once(data, tmp_path, monkeypatch, number):
    end = TokenTrainer.end_step

    def asked(times):
        def ask(self):
            end(self)
            if self.state.global_step == 3:
                for _ in range(times):
                    os.kill(os.getpid(), number)

        return ask

    before = signal.getsignal(number)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=f"{number.name} after step 3") as error:
        patch.setattr(TokenTrainer, "end_step", asked(1))
        run(tmp_path / "run", data)
    assert error.value.number == number and checkpoints.steps(tmp_path / "run") == [2, 3]
    assert signal.getsignal(number) is before
    with monkeypatch.context() as patch:
        patch.setattr(TokenTrainer, "end_step", asked(2))
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Interrupted):
            run(tmp_path / "other", data)
    assert run(tmp_path / "run", data, resume=True).trainer.state.global_step == 8


def test_what_nohup_ignores_stops_no_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr(TokenTrainer, "end_step", lambda self: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(tmp_path / "run", data, max_steps=2).trainer.state.global_step == 2
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_half_written_checkpoint_is_not_taken_for_a_whole_one(data, tmp_path, monkeypatch):
    stopped_after(tmp_path / "run", data, 4, monkeypatch)
    half = tmp_path / "run/.checkpoint-6"  # the name that a checkpoint has until it is whole
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    assert checkpoints.steps(tmp_path / "run")[-1] == 4
    assert run(tmp_path / "run", data, resume=True).trainer.state.global_step == 8


def test_nothing_pickled_is_written_and_the_folder_repeats_the_run(data, tmp_path):
    tuner = run(tmp_path / "run", data)
    files = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert {"config.yaml", "log.jsonl", "loss.svg", RUN_FILE, "adapter_model.safetensors"} <= files
    record = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert {"config", "versions", "data_sha256", "seed", "metrics"} <= set(record)
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log == tuner.history and [e["step"] for e in log if "loss" in e] == list(range(1, 9))
    for entry in log:
        if "loss" in entry:
            assert entry["loss"] == pytest.approx(entry["nll"] / entry["tokens"])


def test_the_configuration_in_the_folder_makes_the_same_run(data, tmp_path):
    from ftkit.arguments import parse

    first = run(tmp_path / "run", data)
    again = parse(LoRAConfig, "train lora", ["--config", str(tmp_path / "run/config.yaml"), "--output-dir", "x"])
    first.config.output_dir = "x"
    assert again == first.config


def test_the_best_checkpoint_is_the_result_and_the_number_kept_is_limited(data, tmp_path):
    # A rate so high that the best comes early.
    tuner = run(tmp_path / "run", data, learning_rate=1.0, max_steps=20, save_total_limit=2)
    evaluated = {e["step"]: e["eval_loss"] for e in tuner.history if "eval_loss" in e}
    best = min(evaluated, key=evaluated.get)
    assert best < 20 and checkpoints.steps(tmp_path / "run") == [best, 20]
    assert tuner.evaluate()["eval_loss"] == pytest.approx(evaluated[best], abs=1e-6)


def test_a_validation_loss_that_is_no_number_is_never_the_best(data, tmp_path, monkeypatch):
    record = TokenTrainer.record

    def broken(self, entry):
        record(self, entry | ({"eval_loss": math.nan} if entry["step"] in (2, 8) else {}))

    with monkeypatch.context() as patch:
        patch.setattr(TokenTrainer, "record", broken)
        tuner = run(tmp_path / "run", data)
    evaluated = {e["step"]: e["eval_loss"] for e in tuner.history if "eval_loss" in e}
    best = min((4, 6), key=evaluated.get)
    assert tuner.trainer.best_step() == best
    assert tuner.evaluate()["eval_loss"] == pytest.approx(evaluated[best], abs=1e-6)


def test_early_stopping_ends_the_run_and_a_resume_does_not_go_on(data, tmp_path):
    settings = {"learning_rate": 1.0, "max_steps": 40, "early_stopping_patience": 2}
    tuner = run(tmp_path / "run", data, **settings)
    losses = [e["eval_loss"] for e in tuner.history if "eval_loss" in e]
    assert len(losses) - 1 - losses.index(min(losses)) == 2 and tuner.trainer.state.global_step < 40
    assert run(tmp_path / "run", data, resume=True, **settings).history == tuner.history


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_counted_and_stops_the_run_at_the_limit(data, tmp_path, what, monkeypatch):
    tuner = LoRAFineTuner(LoRAConfig(output_dir=str(tmp_path / "run"), max_nonfinite_steps=1, **SETTINGS), data)
    tuner.load_model_and_tokenizer()
    weight = next(p for n, p in tuner.model.named_parameters() if "lora_B" in n)
    seen = []

    def at(step):
        return tuner.trainer.state.global_step + 1 == step

    if what == "gradient":
        weight.register_hook(lambda g: g * float("inf") if at(3) or at(5) else g)
    else:
        head = tuner.model.get_base_model().lm_head
        head.register_forward_hook(
            lambda m, i, out: out * float("nan") if tuner.model.training and (at(3) or at(5)) else out
        )
    before = SavePoints.on_step_end

    def remember(self, args, state, control, **kwargs):
        seen.append(weight.detach().clone())
        return before(self, args, state, control, **kwargs)

    monkeypatch.setattr(SavePoints, "on_step_end", remember)
    with pytest.raises(
        TrainingError, match=rf"the {what} of step 5 is not finite, and 1 steps before .* rows, .* are \d+"
    ):
        tuner.train()
    assert torch.equal(seen[1], seen[2]) and not torch.equal(seen[2], seen[3])
    skipped = [entry for entry in tuner.history if "skipped" in entry]
    assert [(e["step"], e["skipped"]) for e in skipped] == [(3, what)]
    assert all(0 <= row < 17 for e in skipped for row in e["rows"]) and len(skipped[0]["rows"]) == 4


def test_a_run_goes_on_in_the_object_that_was_stopped(data, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", data)
    tuner, end = LoRAFineTuner(LoRAConfig(output_dir=str(tmp_path / "run"), **SETTINGS), data), SavePoints.on_step_end

    def stop(self, args, state, control, **kwargs):
        self.trainer.interrupted |= state.global_step == 3
        return end(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(SavePoints, "on_step_end", stop)
        tuner.train()
    tuner.train(resume=True)
    assert tuner.history == whole.history


def test_a_validation_loss_that_is_no_number_is_not_the_lowest(data, tmp_path, monkeypatch):
    tuner = run(tmp_path / "run", data)
    losses = [entry for entry in tuner.history if "eval_loss" in entry]
    for order in (losses, losses[::-1]):
        monkeypatch.setattr(tuner.trainer, "records", [dict(entry) for entry in order])
        best = min(tuner.trainer.records, key=lambda entry: entry["eval_loss"])
        assert tuner.trainer.best_step() == best["step"]
        other = next(entry for entry in tuner.trainer.records if entry is not best)
        other["eval_loss"] = float("nan")
        assert tuner.trainer.best_step() == best["step"]
        for entry in tuner.trainer.records:
            entry["eval_loss"] = 1.0
        assert tuner.trainer.best_step() == min(entry["step"] for entry in losses)  # the earliest of equals
    last = tuner.trainer.state.global_step
    diverged = [entry | {"eval_loss": float("nan")} if entry["step"] == last else entry for entry in losses]
    monkeypatch.setattr(tuner.trainer, "records", diverged)
    assert tuner._best(tmp_path / "run")["eval_loss"] == min(e["eval_loss"] for e in losses if e["step"] != last)


def test_the_loss_scale_of_float16_finds_its_size_and_leaves_no_trace(rows, tmp_path):
    """The scaler is a GPU's; here torch's own for a CPU stands in, with a scale that is far too large at first."""
    from accelerate.state import AcceleratorState

    config = LoRAConfig(
        model_name="tiny-smollm",
        method="adalora",
        torch_dtype="float16",
        lora_r=2,
        learning_rate=1e-2,
        batch_size=4,
        gradient_accumulation_steps=1,
        max_steps=12,
        max_nonfinite_steps=0,
        output_dir=str(tmp_path / "run"),
    )
    tuner = LoRAFineTuner(config, {"train": rows})
    tuner._prepare()
    accelerator = tuner.trainer.accelerator
    accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=2.0**22), True
    try:
        AcceleratorState._shared_state["_mixed_precision"] = "fp16"
        tuner.train()
    finally:
        AcceleratorState._shared_state["_mixed_precision"] = "no"
    skipped = {entry["step"]: entry["skipped"] for entry in tuner.history if "skipped" in entry}
    assert skipped[1] == "scale" and set(skipped.values()) == {"scale"} and len(skipped) < 9
    allocator = tuner.model.base_model.rankallocator
    for scores in (allocator.ipt, allocator.exp_avg_ipt, allocator.exp_avg_unc):
        assert all(score.isfinite().all() for score in scores.values())
    assert tuner.adapter.ranks() == tuner.adapter.budget(12)


def test_the_full_model_resumes_too_and_is_a_folder_that_transformers_loads(data, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    settings = {k: v for k, v in SETTINGS.items() if not k.startswith("lora")}

    def full(folder, resume=False):
        tuner = FullFineTuner(FullFineTuningConfig(output_dir=str(folder), **settings), data)
        tuner.train(resume=resume)
        return tuner

    whole = full(tmp_path / "whole")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, whole.model(ids).logits)
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight  # still tied


def test_a_model_whose_logits_are_scaled_is_refused_before_the_run_begins(data, tmp_path, monkeypatch):
    from transformers import LlamaConfig

    monkeypatch.setattr(LlamaConfig, "logits_scaling", 8.0, raising=False)
    with pytest.raises(ConfigError, match="cannot be trained by ftkit: logits_scaling=8.0"):
        run(tmp_path / "run", data)
    assert not (tmp_path / "run").exists()
