"""The book as a PDF: what stands where, what is left of the pages' markup, and that nothing is cut off."""

import re

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader

from book.browser import HTML
from book.pdf import contents, document, laid_out, write

# The first page, a chapter with formulas, tables, figures and exercises, and pages that they link to.
FEW = ["book/index", "notebooks/03_approaches", "book/calculator", "book/glossary", "book/references"]
# Parts that end to the right of the paper's text, but for those inside a picture or hidden from sight.
OUTSIDE = """() => [...document.querySelectorAll('body *')].filter(e => !e.closest('svg, mjx-assistive-mml')
    && e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.outerHTML.slice(0, 120))"""
# What TeX and Markdown leave on the page where they were not understood; code may hold it.
MARKUP = r"""() => {
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    while (walk.nextNode())
        if (!walk.currentNode.parentElement.closest('pre, code, style, mjx-container')
            && /\$\$|\\[a-z]+\{|\\\(/.test(walk.currentNode.data)) found.push(walk.currentNode.data);
    return found;
}"""


def headings(name: str) -> list[str]:
    article = BeautifulSoup((HTML / f"{name}.html").read_text("utf8"), "html.parser").select_one("article")
    return [heading.get_text().removesuffix("#") for heading in article.select("h1, h2")]


def text(page) -> str:
    """The words of a sheet: its running head, its number, then what stands on it."""
    return " ".join(page.extract_text().split())


@pytest.fixture(scope="module")
def few(browser, tmp_path_factory):
    """The PDF of `FEW`."""
    out = tmp_path_factory.mktemp("pdf") / "few.pdf"
    write(FEW, out, browser)
    assert [file.name for file in out.parent.iterdir()] == ["few.pdf"]
    return PdfReader(out)


@pytest.fixture(scope="module")
def whole(browser):
    """The whole book, laid out to be printed."""
    with laid_out(contents(), browser) as page:
        yield page


def test_the_bookmarks_are_the_chapters_with_their_sections(few):
    marks = []
    for entry in few.outline:
        if isinstance(entry, list):
            marks[-1] += [section.title for section in entry]
        else:
            marks.append([entry.title])
    assert marks == [headings(name) for name in FEW]


def test_bookmarks_and_contents_lead_to_the_sheet_with_the_heading(few):
    for entry in few.outline:
        if not isinstance(entry, list):
            chapter = entry.title
        for mark in entry if isinstance(entry, list) else [entry]:
            at = few.get_destination_page_number(mark)
            assert text(few.pages[at]).startswith(f"{chapter} {at + 1} ") and mark.title in text(few.pages[at])
            assert f"{mark.title} {at + 1}" in text(few.pages[1])


def test_every_link_within_the_book_has_a_place(few):
    places = set(few.named_destinations)
    links = [link.get_object() for page in few.pages for link in page.get("/Annots", [])]
    inner = [link["/Dest"] for link in links if "/Dest" in link]
    outer = [link["/A"]["/URI"] for link in links if "/A" in link]
    assert len(inner) > len(FEW) and set(inner) <= places
    assert outer and all(re.match(r"https?://(?!127\.|localhost)", address) for address in outer)


def test_solutions_are_there_and_what_paper_cannot_do_is_not(few):
    said = " ".join(text(page) for page in few.pages)
    assert "Solution" in said and "verdict" in said
    assert "colab" not in said.partition("Contents")[2].replace("Google Colab", "").lower()
    assert "Gradient checkpointing Loss in chunks" not in said and "Show code cell" not in said


def test_the_title_page_says_what_it_is(few):
    assert few.metadata.title in text(few.pages[0]) and few.metadata.author == "The ftkit authors"
    assert text(few.pages[1]).startswith("2 Contents")


def test_nothing_of_the_whole_book_is_cut_off_at_the_right(whole):
    assert whole.evaluate(OUTSIDE) == []


def test_no_markup_is_left_and_every_formula_is_set(whole):
    assert whole.evaluate(MARKUP) == []
    written = sum(document([name]).count('class="math notranslate') for name in contents())
    assert whole.locator("mjx-container").count() == written
    assert whole.locator("mjx-container [data-mml-node=merror]").count() == 0


def test_every_picture_is_loaded_and_the_pages_come_in_order(whole):
    assert whole.evaluate("() => [...document.images].filter(image => !image.naturalWidth).length") == 0
    ids = whole.eval_on_selector_all("article", "all => all.map(article => article.id)")
    assert ids == [name.replace("/", "-") for name in contents()]
    listed = whole.eval_on_selector_all("nav a.chapter span:first-child", "all => all.map(span => span.textContent)")
    assert listed == [headings(name)[0] for name in contents()]
