"""The glossary: in order, each term once, and no acronym of the chapters without an entry."""

import json
import re

from book.freshness import NOTEBOOKS, ROOT

NAMES = {"BERT", "CPU", "GPT", "GPU", "JSON", "NVIDIA", "RTX", "TRL", "XXL"}
"""Names of products, and what every reader knows."""

TERMS = re.findall(r"^(\S.*)\n    \S", (ROOT / "book/glossary.md").read_text("utf8"), re.MULTILINE)


def prose() -> str:
    cells = [cell for path in NOTEBOOKS.glob("*.ipynb") for cell in json.loads(path.read_text("utf8"))["cells"]]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.DOTALL)


def test_terms_are_in_order_and_stand_once():
    assert TERMS == sorted(set(TERMS), key=str.casefold) and len(TERMS) > 80


def test_every_acronym_of_the_chapters_is_explained():
    explained = NAMES | set(re.findall(r"\w+", " ".join(TERMS)))
    assert set(re.findall(r"\b([A-Z]{3,})s?\b", prose())) - explained == set()
