"""Kill runs at random instants, resume each in another process, and print what ended otherwise than it should.

    python kill_and_resume.py FOLDER

Every run is a child forked from this process, in which all is imported. An instant is a call of a function of ftkit,
counted from the run's start: in the midst of an accumulation, of an evaluation, of the writing of a checkpoint.
"""

import errno
import json
import os
import random
import shutil
import signal
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from ftkit.errors import Interrupted, TrainingError
from ftkit.training.config import FullFineTuningConfig, LoRAConfig
from ftkit.training.full import FullFineTuner
from ftkit.training.lora import LoRAFineTuner

WORDS = "red green blue black white".split()
ROWS = [
    {"messages": [{"role": "user", "content": f"{w} {v}?"}, {"role": "assistant", "content": f"{v} {w}." * (i + 1)}]}
    for i, w in enumerate(WORDS)
    for v in WORDS
]
# 19 rows in batches of 2 with accumulation 2: the last group of an epoch is incomplete. 3, 4 and 5 are coprime.
COMMON = {
    "model_name": "tiny-smollm",
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": 13,
    "save_steps": 3,
    "eval_steps": 4,
    "logging_steps": 5,
    "save_total_limit": 2,
    "learning_rate": 1e-2,
}
KINDS = {
    "lora": (LoRAFineTuner, LoRAConfig, {"lora_r": 4, "lora_dropout": 0.1}),
    "delta-lora": (LoRAFineTuner, LoRAConfig, {"lora_r": 4, "method": "delta-lora", "delta_lora_start_step": 2}),
    "adalora": (LoRAFineTuner, LoRAConfig, {"lora_r": 2, "method": "adalora"}),
    "full": (FullFineTuner, FullFineTuningConfig, {"use_gradient_checkpointing": True}),
}
KILLS = {"lora": 11, "delta-lora": 3, "adalora": 3, "full": 3}
COMPARED = ("*.safetensors", "log.jsonl", "checkpoint-*/*.safetensors", "checkpoint-*/log.jsonl")


class Instants:
    """Counts the calls of ftkit's functions, and does `action` at the one numbered `at`."""

    def __init__(self, at: int | None = None, action=None) -> None:
        self.at, self.action, self.count = at, action, 0

    def __call__(self, frame, event, argument):
        if event == "call" and "/ftkit/" in frame.f_code.co_filename:
            self.count += 1
            if self.count == self.at:
                self.action()


def train(kind: str, folder: Path, resume: bool) -> None:
    tuner, config, settings = KINDS[kind]
    data = {"train": ROWS[:19], "validation": ROWS[19:]}
    tuner(config(output_dir=str(folder), **COMMON, **settings), data).train(resume=resume)


def in_child(work) -> int:
    """Run `work` in a forked process; its exit code, 128 and more when a signal ended it."""
    sys.stdout.flush()
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        with open(os.devnull, "w") as null, redirect_stdout(null), redirect_stderr(null):
            work()
        code = 0
    except Interrupted:
        code = 3
    except TrainingError:
        code = 4
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(folder: Path) -> dict[str, bytes]:
    """What must be the same to the bit: weights, optimizer and random numbers, and the log."""
    return {str(path.relative_to(folder)): path.read_bytes() for pattern in COMPARED for path in folder.glob(pattern)}


def killed(number: int):
    return lambda: os.kill(os.getpid(), number)


def disk_full() -> None:
    """From here on nothing can be written into a checkpoint."""

    def refuse(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    for module in ("ftkit.training.checkpoint", "ftkit.methods.adapter"):
        sys.modules[module].save_file = refuse


def main(root: Path) -> None:
    torch.set_num_threads(1)
    draw, wrong, kills, lengths = random.Random(0), [], 0, {}
    for kind, times in KILLS.items():
        whole, instants = root / f"{kind}-whole", Instants()
        counted = root / f"{kind}.count"

        def run_whole(kind=kind, whole=whole, instants=instants, counted=counted):
            sys.setprofile(instants)
            train(kind, whole, resume=False)
            sys.setprofile(None)
            counted.write_text(str(instants.count))

        if code := in_child(run_whole):
            wrong.append(f"{kind}: the whole run ended with {code}")
            continue
        expected, lengths[kind] = ended(whole), int(counted.read_text())
        attempts = [("SIGKILL", killed(signal.SIGKILL), -signal.SIGKILL)] * times
        attempts += [("SIGTERM", killed(signal.SIGTERM), 3), ("a full disk", disk_full, 4)]
        for number, (name, action, code) in enumerate(attempts):
            # What comes before the first step, while rows are encoded, ends the process like any other.
            share = draw.random() if name == "SIGKILL" else draw.uniform(0.75, 0.9)
            at, folder = int(share * lengths[kind]) + 1, root / f"{kind}-{number}"

            def run_killed(kind=kind, folder=folder, at=at, action=action):
                sys.setprofile(Instants(at, action))
                train(kind, folder, resume=False)

            what = f"{kind}, {name} at call {at} of {lengths[kind]}"
            if (got := in_child(run_killed)) != code:
                wrong.append(f"{what}: ended with {got}, not {code}")
            kills += name == "SIGKILL"
            if got := in_child(lambda kind=kind, folder=folder: train(kind, folder, resume=True)):
                wrong.append(f"{what}: the resumed run ended with {got}")
            elif (found := ended(folder)) != expected:
                names = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
                wrong.append(f"{what}: other than the whole run: {', '.join(names)}")
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"kills": kills, "wrong": wrong, "files": len(expected), "instants": lengths}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
