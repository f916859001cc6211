"""What the guide says, item by item: where the book has it, and what holds it true (`book/guide.yml`).

An entry has an `id` (G: an item of the guide; E: an error of it), `guide` (what the guide says), `right` (errors only:
what is right), `place` (a page of the book) and `guard`, a list of what fails when the place no longer keeps to it:

* `tests/FILE.py::NAME`: a test;
* `cell NOTEBOOK#ID`: a code cell with an assertion, which runs whenever the book is built;
* `page TEXT`: words that the built page must hold (prose, names, references).
"""

import ast
import json
import re
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "book/guide.yml"
CHAPTER = re.compile(r"notebooks/(\d\d)_")


def entries(kind: str = "") -> list[dict]:
    """The entries in the order of the file; of one kind (`G` or `E`) where it is given."""
    return [entry for entry in yaml.safe_load(FILE.read_text("utf8")) if entry["id"].startswith(kind)]


def pages() -> set[str]:
    """The pages of the table of contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    return {toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])}


def problem(guard: str) -> str | None:
    """Why `guard` guards nothing; None when it is there. Words on a page are looked for in the built book."""
    if guard.startswith("page "):
        return None if guard.removeprefix("page ").strip() else "no words are given"
    if guard.startswith("cell "):
        name, _, cell = guard.removeprefix("cell ").partition("#")
        if not (ROOT / f"{name}.ipynb").is_file():
            return f"there is no notebook {name}"
        source = _cells(name).get(cell)
        return None if source and "assert" in source else f"{name} has no code cell {cell} with an assertion"
    file, _, name = guard.partition("::")
    if not (ROOT / file).is_file():
        return f"there is no file {file}"
    return None if name in _tests(file) else f"{file} has no test {name}"


@cache
def _cells(name: str) -> dict[str, str]:
    nb = json.loads((ROOT / f"{name}.ipynb").read_text("utf8"))
    return {cell["id"]: "".join(cell["source"]) for cell in nb["cells"] if cell["cell_type"] == "code"}


@cache
def _tests(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def table(kind: str) -> str:
    """MyST text: a section for each chapter, and in it a definition list of its entries."""
    by_page: dict[str, list[dict]] = {}
    for entry in entries(kind):
        by_page.setdefault(entry["place"].partition("#")[0], []).append(entry)
    parts = []
    for page, found in sorted(by_page.items(), key=lambda item: (CHAPTER.match(item[0]) is None, item[0])):
        parts.append(f"## {{doc}}`/{page}`\n")
        parts.extend(_section(entry) for entry in found)
    return "\n".join(parts)


def _section(entry: dict) -> str:
    shown = [f"`{guard}`" for guard in entry["guard"] if not guard.startswith("page ")]
    held = f"Held by {', '.join(shown)}." if shown else "Held by a check of this page."
    said = f"({entry['id'].lower().replace('.', '-')})=\n{entry['id']}\n: {entry['guide']}"
    return said + (f"\n\n: **Right:** {entry['right']}" if "right" in entry else "") + f"\n\n: {held}\n"
