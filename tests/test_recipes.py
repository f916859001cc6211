import json
from pathlib import Path

import pytest

from ftkit import recipes
from ftkit.errors import ConfigError

TINY = {"max_steps": 2, "eval_steps": 2, "save_steps": 2, "max_seq_length": 1024}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path))
    return tmp_path


def test_a_run_is_made_once_and_then_read():
    folder = recipes.obtain("lora", "tiny-smollm", **TINY)
    made = (folder / recipes.RUN_FILE).stat().st_mtime_ns
    assert recipes.obtain("lora", "tiny-smollm", **TINY) == folder
    assert (folder / recipes.RUN_FILE).stat().st_mtime_ns == made
    assert json.loads((folder / recipes.RUN_FILE).read_text())["config"]["lora_r"] == 8


def test_the_full_run_sees_the_rows_of_the_lora_run():
    lora, full = (recipes.config(name, "tiny-smollm") for name in ("lora", "full"))
    for name in ("data_dir", "max_steps", "batch_size", "gradient_accumulation_steps", "max_seq_length", "seed"):
        assert getattr(lora, name) == getattr(full, name), name
    folder = recipes.obtain("full", "tiny-smollm", **TINY)
    assert (folder / "model.safetensors").is_file()
    assert (folder / "README.md").read_text().splitlines()[6:7] == ["# Model: tiny-smollm, fine-tuned"]


def test_the_qlora_run_is_the_lora_run_in_four_bits():
    lora, qlora = (vars(recipes.config(name, "tiny-smollm")) for name in ("lora", "qlora"))
    differing = {name for name in lora if lora[name] != qlora[name]}
    assert differing == {"output_dir", "project_name"}
    assert set(qlora) - set(lora) and qlora["load_in_4bit"]
    folder = recipes.obtain("qlora", "tiny-smollm", **TINY)
    assert json.loads((folder / "ftkit_base.json").read_text())["quantization"]["quant_type"] == "nf4"


def test_an_interrupted_run_is_made_again():
    folder = Path(recipes.config("lora", "tiny-smollm", **TINY).output_dir)
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    assert recipes.obtain("lora", "tiny-smollm", **TINY) == folder and (folder / recipes.RUN_FILE).is_file()


def test_settings_decide_the_folder():
    folders = {recipes.config("lora", m, **o).output_dir for m in ("tiny-smollm", "tiny-qwen3") for o in ({}, TINY)}
    assert len(folders) == 4


def test_an_unknown_recipe_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'lora'"):
        recipes.config("lorra")


def test_another_release_of_a_library_makes_another_run(monkeypatch):
    before, installed = recipes.config("qlora").output_dir, recipes.version
    for name in ("torch", "transformers", "peft", "bitsandbytes"):
        monkeypatch.setattr(recipes, "version", lambda asked, n=name: "0" if asked == n else installed(asked))
        assert recipes.config("qlora").output_dir != before, name
