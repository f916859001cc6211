"""Two processes train as one does with twice the accumulation, count no row twice, stop together and go on together."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys
from transformers import TrainerCallback
from ftkit import LoRAConfig, LoRAFineTuner, QLoRAConfig, QLoRAFineTuner

kind, model, output, accumulation, stop = sys.argv[1:]
words = "red green blue black white".split()
rows = [
    {"messages": [{"role": "user", "content": f"{w} {v}?"}, {"role": "assistant", "content": f"{v} {w}. " * (i + 1)}]}
    for i, w in enumerate(words)
    for v in words
]
settings = dict(lora_r=4, batch_size=2, max_steps=6, save_steps=3, eval_steps=3, learning_rate=1e-2)
Config, Tuner = {"lora": (LoRAConfig, LoRAFineTuner), "qlora": (QLoRAConfig, QLoRAFineTuner)}[kind]
config = Config(model_name=model, output_dir=output, gradient_accumulation_steps=int(accumulation), **settings)


class Stop(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == int(stop) - 1 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)


tuner = Tuner(config, {"train": rows[:16], "validation": rows[16:23]})
tuner._prepare()
tuner.trainer.add_callback(Stop())
tuner.train(resume=os.path.exists(output))
"""


def run(tmp_path, kind, model, *, processes, name, accumulation, stop=0):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    start = [*torchrun, "--nproc-per-node", str(processes)] if processes > 1 else [sys.executable]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*start, str(script), kind, model, str(tmp_path / name), str(accumulation), str(stop)]
    return subprocess.run(command, capture_output=True, text=True, env=env)


@pytest.mark.parametrize(("kind", "model"), [("lora", "tiny-smollm"), ("qlora", "tiny-qwen3-moe")])
def test_e8_1_e8_5_two_processes_are_one(tmp_path, kind, model):
    if kind == "qlora":  # SIGTERM reaches one of the two in step 5, of epochs of four: both end after it, and go on
        stopped = run(tmp_path, kind, model, processes=2, name="two", accumulation=1, stop=5)
        assert stopped.returncode and "stopped by SIGTERM after step 5 of 6" in stopped.stderr, stopped.stderr[-3000:]
    for processes, name, accumulation in ((2, "two", 1), (1, "one", 2)):
        done = run(tmp_path, kind, model, processes=processes, name=name, accumulation=accumulation)
        assert done.returncode == 0, done.stderr[-3000:]
    logs = {name: [json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("two", "one")}
    for two, one in zip(logs["two"], logs["one"], strict=True):
        assert two["step"] == one["step"]
        if "loss" in one:
            assert two["tokens"] == one["tokens"] and two["learning_rate"] == one["learning_rate"]
            assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
        else:  # 7 rows on 2 processes: none is counted twice
            assert two["eval_tokens"] == one["eval_tokens"]
            assert two["eval_loss"] == pytest.approx(one["eval_loss"], abs=1e-5)
    # The schedule counts optimizer steps, not those of a process: it is near its end at the last one.
    rates = [entry["learning_rate"] for entry in logs["two"] if "loss" in entry]
    assert rates[0] < max(rates) and rates[-1] < 0.2 * max(rates)
