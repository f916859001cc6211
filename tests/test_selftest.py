"""`ftkit selftest` passes here, and says so where something computes wrongly."""

import json
import signal
import sys

import pytest

from ftkit import selftest
from ftkit.cli import main
from ftkit.errors import MissingDependency


def test_all_checks_pass_on_this_machine(capsys):
    assert main(["selftest", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["failed"] == [] and [check["check"] for check in said["checks"]] == list(selftest.CHECKS)
    assert {check["outcome"] for check in said["checks"]} == {"ok"}
    assert "Paris" in said["checks"][-1]["detail"]


def test_a_failure_is_a_line_and_exit_code_2_and_the_others_run(monkeypatch, capsys):
    def broken() -> str:
        raise RuntimeError("no kernel\nfor this")

    def missing() -> str:
        raise MissingDependency("pip install it")

    monkeypatch.setattr(selftest, "CHECKS", {"one": broken, "two": missing, "three": selftest.libraries})
    assert main(["selftest"]) == 2
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].startswith("failed    one: RuntimeError: no kernel for this")
    assert lines[1].startswith("left out  two: pip install it") and lines[2].startswith("ok        three: Python")
    assert printed.err == "ftkit: 1 of 3 checks failed: one.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("run", [0, 1], ids=["in the whole run", "in the run that is stopped half-way"])
def test_a_signal_in_training_ends_the_self_test(number, run, monkeypatch, capsys):
    from ftkit.training.trainer import TokenTrainer

    steps, step = [], TokenTrainer.training_step

    def stopped(self, *arguments, **named):
        steps.append(self.state.global_step)
        if len(steps) == run * selftest.STEPS + 1:
            signal.raise_signal(number)
        return step(self, *arguments, **named)

    monkeypatch.setattr(TokenTrainer, "training_step", stopped)
    monkeypatch.setattr(selftest, "CHECKS", {"LoRA": selftest.lora, "after": selftest.libraries})
    assert main(["selftest"]) == 128 + number
    printed = capsys.readouterr()
    assert printed.err == f"ftkit: the self-test was stopped by {number.name} in its check 'LoRA'.\n"
    assert "after" not in printed.out


def test_wrong_4_bit_numbers_are_noticed(monkeypatch):
    import bitsandbytes.functional

    right = bitsandbytes.functional.dequantize_4bit
    assert selftest.run("4-bit numbers", selftest.four_bits).outcome == "ok"
    monkeypatch.setattr(bitsandbytes.functional, "dequantize_4bit", lambda *a: right(*a).roll(1, dims=1))
    assert "not the nearest" in selftest.run("4-bit numbers", selftest.four_bits).detail


@pytest.mark.parametrize("wrong", ["reloaded", "resumed"])
def test_a_reload_or_a_resume_that_changes_the_model_is_noticed(wrong, monkeypatch):
    import ftkit.models
    from ftkit.training.lora import LoRAFineTuner

    if wrong == "reloaded":
        right = ftkit.models.load
        monkeypatch.setattr(ftkit.models, "load", lambda name, **o: right("tiny-qwen3", seed=1, verbose=False))
    else:
        train = LoRAFineTuner.train

        def other_order(self, resume=None):
            self.config.seed += bool(resume)
            return train(self, resume)

        monkeypatch.setattr(LoRAFineTuner, "train", other_order)
        monkeypatch.setattr("ftkit.training.record.last_checkpoint", lambda output, run: None)
    assert f"a {wrong} " in selftest.run("LoRA", selftest.lora).detail


def test_without_bitsandbytes_all_else_works(monkeypatch):
    for name in ("bitsandbytes", "bitsandbytes.nn", "bitsandbytes.functional"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("peft.import_utils.is_bnb_available", lambda: False)
    outcomes = {name: selftest.run(name, check) for name, check in selftest.CHECKS.items() if name != "libraries"}
    left_out = {name for name, result in outcomes.items() if result.outcome == "left out"}
    assert left_out == {"4-bit numbers", "QLoRA"}
    assert all(outcomes[name].outcome == "ok" for name in outcomes.keys() - left_out), outcomes
