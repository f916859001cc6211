"""The bibliography: complete entries, and the guide's references as they should be."""

import re
from pathlib import Path

import nbformat
import pytest
from pybtex.database import parse_file

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = parse_file(ROOT / "book/references.bib").entries
GUIDES = {  # key: title, authors, years in which it came out as a preprint and in print, number on arXiv
    "hu2022lora": (
        "LoRA: Low-Rank Adaptation of Large Language Models",
        "Hu Shen Wallis Allen-Zhu Li Wang Wang Chen",
        ("2021", "2022"),
        "2106.09685",
    ),
    "dettmers2023qlora": (
        "QLoRA: Efficient Finetuning of Quantized LLMs",
        "Dettmers Pagnoni Holtzman Zettlemoyer",
        ("2023",),
        "2305.14314",
    ),
    "zhang2023lorafa": (
        "LoRA-FA: Memory-efficient Low-rank Adaptation for Large Language Models Fine-tuning",
        "Zhang Zhang Shi Chu Li",
        ("2023",),
        "2308.03303",
    ),
    "kopiczko2024vera": (
        "VeRA: Vector-based Random Matrix Adaptation",
        "Kopiczko Blankevoort Asano",
        ("2023", "2024"),
        "2310.11454",
    ),
    "zi2023delta": (
        "Delta-LoRA: Fine-Tuning High-Rank Parameters with the Delta of Low-Rank Matrices",
        "Zi Qi Wang Wang Wong Zhang",
        ("2023",),
        "2309.02411",
    ),
    "hayou2024loraplus": (
        "LoRA+: Efficient Low Rank Adaptation of Large Models",
        "Hayou Ghosh Yu",
        ("2024",),
        "2402.12354",
    ),
}


@pytest.mark.parametrize("key", ENTRIES)
def test_every_entry_says_who_what_when_and_where(key):
    entry = ENTRIES[key]
    assert entry.persons.get("author") and entry.fields.get("title")
    assert re.fullmatch(r"(19|20)\d\d", entry.fields.get("year", ""))
    assert any(entry.fields.get(name) for name in ("url", "doi", "eprint"))
    if "arxiv.org" in entry.fields.get("url", ""):
        number = entry.fields["url"].rsplit("/", 1)[1]
        assert re.fullmatch(r"\d{4}\.\d{4,5}", number) and entry.fields.get("eprint", number) == number


@pytest.mark.parametrize("key", GUIDES)
def test_e14_2_the_guides_references_have_their_titles_authors_and_years(key):
    title, authors, years, number = GUIDES[key]
    entry = ENTRIES[key]
    assert re.sub(r"[{}]", "", entry.fields["title"]) == title
    assert [" ".join(person.last_names) for person in entry.persons["author"]] == authors.split()
    assert entry.fields["year"] in years and entry.fields["url"].endswith(number)


def test_e14_2_lora_fa_is_by_longteng_zhang_and_adalora_by_qingru():
    first = {key: ENTRIES[key].persons["author"][0].first_names for key in ("zhang2023lorafa", "zhang2023adalora")}
    assert first == {"zhang2023lorafa": ["Longteng"], "zhang2023adalora": ["Qingru"]}


def test_what_is_cited_is_there():
    texts = {path: path.read_text("utf8") for path in (ROOT / "book").glob("*.md")}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, nbformat.NO_CONVERT).cells
        texts[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for path, text in texts.items():
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text):
            assert {key.strip() for key in keys.split(",")} <= set(ENTRIES), path.name


def test_e14_2_the_conclusion_cites_all_six():
    cells = nbformat.read(ROOT / "notebooks/14_conclusion.ipynb", nbformat.NO_CONVERT).cells
    table = next(cell.source for cell in cells if cell.id == "references-errata")
    assert all(f"`{key}`" in table for key in GUIDES)
