"""A run stopped anywhere goes on to the bit; a folder is never overwritten, a half checkpoint never taken for whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ftkit.errors import ConfigError
from ftkit.training import checkpoint
from ftkit.training.config import LoRAConfig
from ftkit.training.lora import LoRAFineTuner
from ftkit.training.record import CONFIG_FILE


def settings(folder, **changes):
    fast = {"lora_r": 4, "learning_rate": 1e-2, "batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 5}
    steps = {"eval_steps": 2, "save_steps": 2, "logging_steps": 3}
    return LoRAConfig(model_name="tiny-smollm", output_dir=str(folder), **{**fast, **steps, **changes})


def test_e8_7_twenty_kills_and_twenty_resumes_to_the_bit(tmp_path):
    harness = Path(__file__).with_name("kill_harness.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, str(harness), str(tmp_path), "20", "7"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert len(results) == 20 and not {name: wrong for name, wrong in results.items() if wrong}


@pytest.fixture
def run(rows, tmp_path):
    data = {"train": rows[:8], "validation": rows[8:]}
    LoRAFineTuner(settings(tmp_path / "run"), data).train()
    return tmp_path / "run", data


def test_an_existing_run_is_refused_and_a_complete_one_is_loaded(run):
    folder, data = run
    with pytest.raises(ConfigError, match="Go on with it by --resume"):
        LoRAFineTuner(settings(folder), data).train()
    first = json.loads((folder / "ftkit_run.json").read_text())
    again = LoRAFineTuner(settings(folder, resume=True), data)
    metrics = again.train()
    assert metrics["eval_loss"] == first["metrics"]["eval_loss"] and metrics["steps"] == 5
    with pytest.raises(ConfigError, match="no training stands at step 5"):
        again.save_checkpoint(5)


def test_other_settings_or_other_data_are_refused_when_a_run_is_resumed(run):
    folder, data = run
    with pytest.raises(ConfigError, match=r"has learning_rate=0.01, not 0.02"):
        LoRAFineTuner(settings(folder, learning_rate=0.02), data).train(resume=True)
    with pytest.raises(ConfigError, match="the data is not the one"):
        LoRAFineTuner(settings(folder), {**data, "train": data["train"][1:]}).train(resume=True)


def test_a_folder_that_holds_something_else_is_refused(rows, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ConfigError, match="holds no run"):
        LoRAFineTuner(settings(tmp_path), {"train": rows}).train(resume=True)
    assert (tmp_path / "mine").read_text() == "precious"


def test_the_configuration_in_the_folder_makes_the_same_run(run):
    folder, _ = run
    plain = yaml.safe_load((folder / CONFIG_FILE).read_text())
    assert LoRAConfig(**plain) == settings(folder)
    assert (folder / "loss.svg").read_text().lstrip().startswith("<?xml")


def test_best_and_last_are_kept_and_the_count_is_limited(tmp_path):
    for step in range(1, 8):
        checkpoint.path_of(tmp_path, step).mkdir()
    checkpoint.prune(tmp_path, 3, best=2)
    assert checkpoint.steps(tmp_path) == [2, 6, 7]
    checkpoint.prune(tmp_path, 1, best=2)
    assert checkpoint.steps(tmp_path) == [2, 7]


def test_nothing_pickled_is_in_a_checkpoint(run):
    folder, _ = run
    names = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert names <= {".json", ".jsonl", ".safetensors", ".yaml", ".svg", ".jinja", ".md"}
