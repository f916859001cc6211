"""The README's code does what it says: its Python block and its commands, on a tiny model."""

import re
import shlex
from pathlib import Path

import pytest

from ftkit import selftest
from ftkit.cli import main

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
TINY = {
    "embedded": "tiny-smollm",
    "max_steps=52": "max_steps=2",
    "--max-steps 52": "--max-steps 2",
    "tokens 64": "tokens 4",
}


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    for old, new in TINY.items():
        found = [block.replace(old, new) for block in found]
    return found


def test_the_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python")
    exec(block, {})
    assert (tmp_path / "run/adapter_model.safetensors").is_file() and (tmp_path / "merged/config.json").is_file()


def test_the_commands_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(selftest, "CHECKS", {"libraries": selftest.libraries})  # tests/test_selftest.py runs them all
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("ftkit ")]
    assert len(commands) == 8
    for command in commands:
        assert main([*shlex.split(command.replace("--num-samples 48", "--num-samples 4"))[1:]]) == 0, command
    assert all((tmp_path / name / "config.json").is_file() for name in ("merged", "merged4"))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)", README))))
def test_every_target_named_exists(target):
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_picture_exists():
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README):
        assert (Path(__file__).resolve().parents[1] / picture).is_file()
