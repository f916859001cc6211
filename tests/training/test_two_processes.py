"""Two processes train as one does with twice the accumulation, and count no row twice."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from ftkit.training.config import LoRAConfig
from ftkit.training.lora import LoRAFineTuner

words = "red green blue black white".split()
rows = [
    {"messages": [{"role": "user", "content": f"{w} {v}?"}, {"role": "assistant", "content": f"{v} {w}. " * (i + 1)}]}
    for i, w in enumerate(words)
    for v in words
]
settings = dict(lora_r=4, batch_size=2, max_steps=6, save_steps=3, eval_steps=3, learning_rate=1e-2)
config = LoRAConfig(
    model_name="tiny-smollm", output_dir=sys.argv[1], gradient_accumulation_steps=int(sys.argv[2]), **settings
)
LoRAFineTuner(config, {"train": rows[:16], "validation": rows[16:21]}).train()
"""


def test_e8_1_e8_5_two_processes_are_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    runs = {"two": [*torchrun, script, tmp_path / "two", "1"], "one": [sys.executable, script, tmp_path / "one", "2"]}
    for command in runs.values():
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
    logs = {name: [json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in runs}
    for two, one in zip(logs["two"], logs["one"], strict=True):
        assert two["step"] == one["step"]
        if "loss" in one:
            assert two["tokens"] == one["tokens"] and two["learning_rate"] == one["learning_rate"]
            assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
        else:  # 5 rows on 2 processes, two at a time: one process runs out, and no row is counted twice
            assert two["eval_tokens"] == one["eval_tokens"]
            assert two["eval_loss"] == pytest.approx(one["eval_loss"], abs=1e-5)
    # The schedule counts optimizer steps, not those of a process: it is near its end at the last one.
    rates = [entry["learning_rate"] for entry in logs["two"] if "loss" in entry]
    assert rates[0] < max(rates) and rates[-1] < 0.2 * max(rates)
