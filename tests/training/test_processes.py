"""Two processes do what one does: the same loss, gradient, schedule and evaluation."""

import json
import os
import socket
import subprocess
import sys

import pytest

from ftkit.training.config import LoRAConfig
from ftkit.training.lora import LoRAFineTuner

SCRIPT = """
import json, sys
from ftkit.training.config import LoRAConfig
from ftkit.training.lora import LoRAFineTuner
settings, data = json.load(open(sys.argv[1]))
tuner = LoRAFineTuner(LoRAConfig(**settings), data)
tuner.train()
assert tuner.trainer.args.world_size == 2
"""


def free_port() -> str:
    with socket.socket() as opened:  # torchrun's own search (--standalone) asks for the machine's name, which may hang
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def test_e8_1_e8_5_two_processes_are_one(rows, tmp_path):
    data = {"train": rows, "validation": rows[:5]}  # five rows do not go evenly into two processes
    common = {"model_name": "tiny-smollm", "lora_r": 4, "learning_rate": 1e-2, "num_epochs": 1}
    steps = {
        "save_steps": 2,
        "eval_steps": 2,
        "logging_steps": 1,
        "group_by_length": True,
        "gradient_accumulation_steps": 2,
    }
    settings = {**common, **steps, "output_dir": str(tmp_path / "two"), "batch_size": 2}
    (tmp_path / "run.json").write_text(json.dumps([settings, data]))
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    done = subprocess.run(
        [*command, str(tmp_path / "run.py"), str(tmp_path / "run.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    log = [json.loads(line) for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    one = LoRAFineTuner(LoRAConfig(**{**settings, "output_dir": str(tmp_path / "one"), "batch_size": 4}), data)
    one.train()
    assert len(log) == len(one.history)
    for theirs, ours in zip(log, one.history, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
