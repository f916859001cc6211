"""Rules of the house that a program can see."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize("arguments", [("check", "."), ("format", "--check", "ftkit", "tests", "book")])
def test_ruff_has_nothing_to_say(arguments):
    done = subprocess.run([BIN / "ruff", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


every_notebook = pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)


@every_notebook
def test_a_reader_sees_each_code_cell_whole(path):
    for cell in nbformat.read(path, nbformat.NO_CONVERT).cells:
        if cell.cell_type == "code" and not set(cell.metadata.get("tags", [])) & {"remove-cell", "colab-install"}:
            lines = cell.source.splitlines()
            assert len(lines) <= 10 and max(map(len, lines), default=0) <= 86, cell.id


@every_notebook
def test_notebooks_are_stored_without_outputs(path):
    nb = nbformat.read(path, nbformat.NO_CONVERT)
    for cell in nb.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell.id
    assert len({cell.id for cell in nb.cells}) == len(nb.cells)
    assert nb.metadata.kernelspec.name == "python3" and "papermill" not in nb.metadata
    tags = [tag for cell in nb.cells for tag in cell.metadata.get("tags", [])]
    assert tags.count("parameters") == 1


def test_no_file_of_the_package_is_too_long_to_read():
    for path in (ROOT / "ftkit").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, path


def test_what_the_package_writes_as_text_does_not_depend_on_the_locale():
    """Where the locale is not UTF-8, an accent in somebody's row would end the work, or come back as two others."""
    for path in (ROOT / "ftkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            if name in ("read_text", "write_text", "fdopen", "TextIOWrapper"):
                assert "encoding" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"
