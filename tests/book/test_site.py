"""The built files: links, order, buttons, and what must not be on a page."""

from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

from book.address import address
from book.browser import HTML, pages
from book.freshness import NOTEBOOKS, ROOT

SOUP = {name: BeautifulSoup((HTML / name).read_text("utf8"), "html.parser") for name in pages()}
every_page = pytest.mark.parametrize("name", SOUP)


def chapters() -> list[str]:
    """The pages in the order of the table of contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


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
    assert f"url={chapters()[0]}.html" in (HTML / "index.html").read_text("utf8")


def test_previous_and_next_follow_the_contents():
    names = chapters()
    for before, after in zip(names, names[1:], strict=False):
        forward, back = (
            SOUP[f"{before}.html"].select_one("a.right-next"),
            SOUP[f"{after}.html"].select_one("a.left-prev"),
        )
        assert (HTML / before).parent.joinpath(forward["href"]).resolve() == HTML / f"{after}.html"
        assert (HTML / after).parent.joinpath(back["href"]).resolve() == HTML / f"{before}.html"


def test_every_notebook_is_in_the_book():
    assert {f"notebooks/{path.stem}" for path in NOTEBOOKS.glob("*.ipynb")} <= set(chapters())


@every_page
def test_colab_opens_the_notebooks_and_nothing_else(name):
    links = [a["href"] for a in SOUP[name].select("a[href*='colab.research.google.com']")]
    notebook = f"{name.removesuffix('.html')}.ipynb"
    if not (ROOT / notebook).exists():
        assert not links
        return
    slug = address().removeprefix("https://github.com/")
    assert set(links) == {f"https://colab.research.google.com/github/{slug}/blob/main/{notebook}"}


@pytest.mark.parametrize("docname", chapters())
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
