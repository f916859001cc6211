"""Kills training runs and resumes them; run as a program of its own, with one thread, so that it may fork.

Every run is a forked child that sees only its settings and the folder: nothing is carried over but what is on the disk.
Prints a JSON object: kind of kill to the list of what differed from the uninterrupted run (empty: nothing did).
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

torch.set_num_threads(1)

from safetensors.torch import load_file  # noqa: E402

from ftkit.errors import Interrupted  # noqa: E402
from ftkit.training import checkpoint, trainer  # noqa: E402
from ftkit.training.config import LoRAConfig  # noqa: E402
from ftkit.training.lora import LoRAFineTuner  # noqa: E402

WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen".split()
DATA = {
    "train": [
        {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": " ".join(WORDS[: i % 5 + 1])}]}
        for i, a in enumerate(WORDS)
    ],
    "validation": [{"messages": [{"role": "user", "content": "six"}, {"role": "assistant", "content": "seven"}]}],
}


def settings(folder: Path, **changes) -> LoRAConfig:
    """Dropout on; 13 rows in groups of 2 x 2, so that every epoch ends in an incomplete group; 3, 2 and 5 coprime."""
    common = {"lora_r": 4, "lora_dropout": 0.1, "learning_rate": 1e-2, "batch_size": 2, "save_total_limit": 2}
    steps = {"gradient_accumulation_steps": 2, "num_epochs": 3, "save_steps": 3, "logging_steps": 2, "eval_steps": 5}
    return LoRAConfig(model_name="tiny-smollm", output_dir=str(folder), **{**common, **steps, **changes})


def fork(work) -> int:
    """The child's process id; its output is dropped."""
    if child := os.fork():
        return child
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    code = 1
    try:
        work()
        code = 0
    except Interrupted:
        code = 3
    finally:
        os._exit(code)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(config: LoRAConfig, hook=None):
    def work():
        if hook:
            hook()
        LoRAFineTuner(config, DATA).train()

    return fork(work)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(owner, name: str, number: int, action=die) -> None:
    """Do `action` instead of the call of `owner.name` with this number, counted from 1."""
    original, calls = getattr(owner, name), iter(range(1, 10**6))

    def counted(*args, **kwargs):
        return action(*args, **kwargs) if next(calls) == number else original(*args, **kwargs)

    setattr(owner, name, counted)


def terminated(self, *args, original=trainer.TokenTrainer.training_step, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    return original(self, *args, **kwargs)


def full_disk(*_, **__):
    raise OSError(28, "No space left on device")


HOOKS = {
    "mid-accumulation": lambda: on_call(trainer.TokenTrainer, "training_step", 14),
    "first step": lambda: on_call(trainer.TokenTrainer, "training_step", 1),
    "end of a step": lambda: on_call(trainer.TokenTrainer, "end_step", 5),
    "evaluation": lambda: on_call(trainer.TokenTrainer, "evaluate", 2),
    "save: model": lambda: on_call(trainer.TokenTrainer, "_save", 2),
    "save: state": lambda: on_call(checkpoint, "write_state", 2),
    "save: before the name": lambda: on_call(os, "fsync", 12),
    "rotation": lambda: on_call(checkpoint.shutil, "rmtree", 8),
    "last save": lambda: on_call(checkpoint, "write_state", 4),
    "disk full": lambda: on_call(checkpoint, "write_state", 2, full_disk),
    "SIGTERM": lambda: on_call(trainer.TokenTrainer, "training_step", 7, terminated),
}
ENDS = {"disk full": 1, "SIGTERM": 3}


def contents(folder: Path) -> dict[str, object]:
    """What must be equal to the bit: result, log, and the last checkpoint's weights, optimizer and generators."""
    last = checkpoint.path_of(folder, checkpoint.steps(folder)[-1])
    state = json.loads((last / checkpoint.STATE_FILE).read_text())
    return {
        "adapter": load_file(folder / "adapter_model.safetensors"),
        "weights": load_file(last / "adapter_state.safetensors"),
        "state": load_file(last / checkpoint.TENSORS_FILE),
        "scheduler": dict(state["dict"])["scheduler"],
        "log": (folder / trainer.LOG_FILE).read_text(),
    }


def differences(one: dict, two: dict) -> list[str]:
    wrong = []
    for part, value in one.items():
        if not isinstance(value, dict) or part == "scheduler":
            wrong += [part] * (value != two[part])
        else:
            equal = value.keys() == two[part].keys() and all(torch.equal(t, two[part][k]) for k, t in value.items())
            wrong += [part] * (not equal)
    return wrong


def main(folder: Path, number: int, seed: int) -> None:
    started = time.perf_counter()
    assert wait(train(settings(folder / "whole"))) == 0
    seconds, expected = time.perf_counter() - started, contents(folder / "whole")
    assert len(expected["log"].splitlines()) > 12
    results, draw = {}, random.Random(seed)

    def resumed(name: str, run: Path) -> None:
        ended = wait(train(settings(run, resume=True)))
        results[name] = differences(expected, contents(run)) if ended == 0 else [f"exit code {ended}"]

    for name, hook in HOOKS.items():
        run = folder / name.replace(":", "")
        ended = wait(train(settings(run), hook))
        if ended != ENDS.get(name, -signal.SIGKILL):
            results[name] = [f"the run was not stopped: {ended}"]
            continue
        resumed(name, run)
    for i in range(number - len(HOOKS)):
        run = folder / f"random {i}"
        child = train(settings(run))
        time.sleep(draw.uniform(0.1, 0.95) * seconds)
        os.kill(child, signal.SIGKILL)
        wait(child)
        resumed(run.name, run)
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
