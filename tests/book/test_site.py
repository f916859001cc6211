"""The built files: links, order, buttons, and what must not be on a page."""

import re
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

from book.address import address
from book.browser import HTML, pages
from book.freshness import NOTEBOOKS, ROOT
from book.pdf import contents
from book.scripts import script

SOUP = {name: BeautifulSoup((HTML / name).read_text("utf8"), "html.parser") for name in pages()}
every_page = pytest.mark.parametrize("name", SOUP)


@every_page
def test_links_and_files_exist(name):
    broken = []
    for tag in SOUP[name].select("[href], [src]"):
        target = tag.get("href", tag.get("src"))
        parts = urlsplit(target)
        if parts.scheme in ("data", "mailto"):
            continue
        if parts.scheme or parts.netloc:
            # Readers may be sent elsewhere; the page itself may not be made of what is elsewhere.
            if tag.name in ("script", "img", "iframe") or (tag.name == "link" and tag.get("rel") == ["stylesheet"]):
                broken.append(target)
            continue
        file = (HTML / name).parent.joinpath(unquote(parts.path)).resolve() if parts.path else HTML / name
        if not file.is_file():
            broken.append(target)
        elif parts.fragment and file.suffix == ".html":
            soup = SOUP[file.relative_to(HTML).as_posix()]
            if not soup.find(id=unquote(parts.fragment)) and not soup.find(
                "a", attrs={"name": unquote(parts.fragment)}
            ):
                broken.append(target)
    assert not broken


def test_the_entry_leads_to_the_first_page():
    assert f"url={contents()[0]}.html" in (HTML / "index.html").read_text("utf8")


def test_previous_and_next_follow_the_contents():
    names = contents()
    for before, after in zip(names, names[1:], strict=False):
        forward, back = (
            SOUP[f"{before}.html"].select_one("a.right-next"),
            SOUP[f"{after}.html"].select_one("a.left-prev"),
        )
        assert (HTML / before).parent.joinpath(forward["href"]).resolve() == HTML / f"{after}.html"
        assert (HTML / after).parent.joinpath(back["href"]).resolve() == HTML / f"{before}.html"


def test_every_notebook_is_in_the_book():
    assert {f"notebooks/{path.stem}" for path in NOTEBOOKS.glob("*.ipynb")} <= set(contents())


@every_page
def test_colab_opens_the_notebooks_and_nothing_else(name):
    links = [a["href"] for a in SOUP[name].select("a[href*='colab.research.google.com']")]
    notebook = f"{name.removesuffix('.html')}.ipynb"
    if not (ROOT / notebook).exists():
        assert not links
        return
    slug = address().removeprefix("https://github.com/")
    assert set(links) == {f"https://colab.research.google.com/github/{slug}/blob/main/{notebook}"}


@pytest.mark.parametrize("docname", contents())
def test_source_buttons_go_to_the_repository(docname):
    links = [a["href"] for a in SOUP[f"{docname}.html"].select(".dropdown-source-buttons a")]
    suffix = ".ipynb" if docname.startswith("notebooks/") else ".md"
    assert {address(), f"{address()}/edit/main/{docname}{suffix}"} <= set(links)
    assert all(link.startswith(address()) for link in links)


@every_page
def test_no_traceback_and_no_injected_cell(name):
    text = SOUP[name].get_text()
    assert "Traceback (most recent call last)" not in text
    assert not SOUP[name].select(".tag_injected-parameters, .tag_papermill-error-cell-tag")


@every_page
def test_no_path_of_the_machine_that_built_the_book(name):
    assert str(ROOT) not in str(SOUP[name])


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_chapter_is_offered_as_a_notebook_and_as_a_script(path):
    page = f"notebooks/{path.stem}.html"
    links = {a.get_text().strip(): a["href"] for a in SOUP[page].select(".dropdown-download-buttons a")}
    files = {suffix: (HTML / page).parent.joinpath(link).resolve() for suffix, link in links.items()}
    assert {suffix: file.name for suffix, file in files.items()} == {s: path.stem + s for s in (".ipynb", ".py")}
    notebook = nbformat.read(files[".ipynb"], nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    text = files[".py"].read_text("utf8")
    compile(text, files[".py"].name, "exec")
    assert text == script(notebook, path.stem)


@every_page
def test_no_role_and_no_citation_is_left_unresolved(name):
    article = SOUP[name].select_one("article")
    if article is None:  # the search page and the empty index
        return
    code = "pre, code, script, .math"
    prose = " ".join(text for text in article.find_all(string=True) if not text.parent.css.closest(code))
    assert not re.search(r"\{(doc|cite|ref|eq|term|numref)(:\w+)?\}|\[\?\]|\]\(", prose)


def test_the_bibliography_has_what_is_cited_each_with_a_link():
    page = "book/references.html"
    entries = {entry["id"]: entry for entry in SOUP[page].select("div.citation")}
    cited = {a["href"].partition("#")[2] for soup in SOUP.values() for a in soup.select("a[href*='references.html#']")}
    assert entries and cited == set(entries)
    for entry in entries.values():
        assert entry.select("p a[href^=http]"), entry.get_text()


def test_the_glossary_is_in_order_and_its_terms_can_be_linked_to():
    terms = SOUP["book/glossary.html"].select("dl.glossary dt")
    names = [" ".join(term.find(string=True).split()) for term in terms]
    assert len(names) == len(set(names)) > 20 and all(term["id"].startswith("term-") for term in terms)
