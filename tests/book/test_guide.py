"""What book/guide.yml says stands on the built pages."""

import re

import pytest
from bs4 import BeautifulSoup

from book import guide
from book.browser import HTML


def words(page: str) -> str:
    soup = BeautifulSoup((HTML / f"{page}.html").read_text("utf8"), "html.parser")
    alts = " ".join(image.get("alt", "") for image in soup.select("article img"))
    return " ".join(f"{soup.select_one('article').get_text(' ')} {alts}".split()).lower()


def test_every_chapter_of_the_guide_is_there_or_said_to_be_missing():
    here = {int(page[10:12]) for page in guide.pages() if guide.CHAPTER.match(page)}
    said = re.search(r"chapters? ([\d and]+) (?:is|are) not written yet", words("book/index"))
    missing = {int(number) for number in re.findall(r"\d+", said[1])} if said else set()
    assert here | missing == set(range(1, 15)) and not here & missing


@pytest.mark.parametrize(
    "entry", [e for e in guide.entries() if any(g.startswith("page ") for g in e["guard"])], ids=lambda e: e["id"]
)
def test_the_page_says_it(entry):
    text = words(entry["place"].partition("#")[0])
    for guard in entry["guard"]:
        if guard.startswith("page "):
            assert " ".join(guard.removeprefix("page ").split()).lower() in text


@pytest.mark.parametrize(("page", "kind"), [("errata", "E"), ("coverage", "G")])
def test_the_lists_are_complete(page, kind):
    text = words(f"book/{page}")
    assert not [entry["id"] for entry in guide.entries(kind) if entry["id"].lower() not in text]
