"""The built book as one PDF: `python -m book.pdf` writes _build/book.pdf from the pages that `make book` built.

The articles of all pages, in the order of the table of contents, become one document with a title page and contents,
and Chromium prints it: twice, because only a printed document says on which page a section stands. Links between
pages become links within the document, headings its bookmarks.

Paper cannot be unfolded or scrolled. So what is folded on a page stands open, solutions right after their exercises;
long lines wrap; tables and formulas that are wider than the text are scaled down to it. What works in a browser or a
notebook only is left out: the calculator's form and the cells that install ftkit on Colab.
"""

import io
import json
import os
import posixpath
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from html import escape
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page

from book.browser import HTML, chromium, open_page, pages, served
from book.execute import say
from book.freshness import ROOT

OUT = ROOT / "_build/book.pdf"
STYLE = ROOT / "book/pdf.css"
LEFT_OUT = "a.headerlink, script, form, .tag_colab-install, #calculator-answer, #calculator-table"
WIDTH = 658  # CSS pixels between the margins of pdf.css: 210 mm - 2 * 18 mm
TIMEOUT = 600_000  # milliseconds that one step may take
# Scale down what is wider than its place.
FIT = """() => {
    for (const part of document.querySelectorAll('article table, article mjx-container')) {
        const place = part.parentElement.closest('div, dd, td, li, p');
        const ratio = place.clientWidth / Math.max(part.scrollWidth, part.getBoundingClientRect().width);
        if (ratio < 1) part.style.zoom = 0.99 * ratio;
    }
}"""
ENTRIES = "all => all.map(a => [a.hash.slice(1), a.firstElementChild.textContent, a.className])"
NUMBER = "(all, numbers) => all.forEach(a => a.querySelector('.number').textContent = numbers[a.hash.slice(1)])"


def contents() -> list[str]:
    """The names of the book's pages (paths without suffix), in the order of _toc.yml."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


@contextmanager
def laid_out(names: list[str], browser: Browser) -> Iterator[Page]:
    """The document of the built pages `names` in `browser`, as wide as the text on paper, with its formulas set.

    Raises:
        RuntimeError: it did not load without errors, e.g. a picture is missing.
    """
    build = HTML.parent
    with TemporaryDirectory(prefix=".pdf-", dir=build) as folder, served(build) as base:
        source = Path(folder, "book.html")
        source.write_text(document(names), "utf8")
        size = {"width": WIDTH, "height": 900}
        with browser.new_context(viewport=size, color_scheme="light") as window:
            window.set_default_timeout(TIMEOUT)
            view = open_page(window, base, source.relative_to(build).as_posix())
            if view.problems:
                raise RuntimeError("the pages do not load: " + "; ".join(view.problems))
            view.page.emulate_media(media="print")
            view.page.evaluate(FIT)
            yield view.page


def write(names: list[str], out: Path, browser: Browser) -> None:
    """Print the built pages `names` to the PDF `out`; a file that is already there is replaced by a whole one only."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import Fit

    def printed(why: str) -> tuple[PdfReader, dict[str, int]]:
        """The PDF, and the page that each linked place is on, counted from 0."""
        reader = PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True, print_background=True, tagged=True)))
        say(f"pdf: printed {why}: {len(reader.pages)} sheets")
        places = reader.named_destinations.items()
        return reader, {name.removeprefix("/"): reader.get_destination_page_number(place) for name, place in places}

    say(f"pdf: {len(names)} pages of the book ...")
    with laid_out(names, browser) as page:
        links = page.locator("nav a")
        _, sheets = printed("to learn the numbers of its pages")
        links.evaluate_all(NUMBER, {place: sheet + 1 for place, sheet in sheets.items()})
        reader, sheets = printed("with the numbers in the contents")
        entries = links.evaluate_all(ENTRIES)
    writer = PdfWriter(clone_from=reader)
    chapter = None
    # Chromium's own bookmarks repeat words of headings that are broken into lines.
    for place, text, level in entries:
        parent = chapter if level == "section" else None
        at = Fit.xyz(top=reader.named_destinations[f"/{place}"].top)
        item = writer.add_outline_item(title=text, page_number=sheets[place], parent=parent, fit=at, is_open=False)
        chapter = parent or item
    writer.add_metadata({"/Author": _config()["author"], "/Creator": "ftkit"})
    writer.page_mode = "/UseOutlines"
    beside = out.with_name(f".{out.name}")
    writer.write(beside)
    os.replace(beside, out)


def document(names: list[str]) -> str:
    """The built pages `names` as one HTML document, to stand in a folder beside `HTML`."""
    soups = {name: BeautifulSoup((HTML / f"{name}.html").read_text("utf8"), "html.parser") for name in names}
    head = soups[names[0]].head
    taken = head.select("link[rel=stylesheet], link[rel=icon]")
    taken += [script for script in head.select("script") if "mathjax" in str(script).lower()]
    for tag in taken:
        _relocate(tag, names[0], ())
    articles = {name: _article(name, soup, soups) for name, soup in soups.items()}
    heads = [_running_head(name, article.h1.get_text()) for name, article in articles.items()]
    return "\n".join(
        [
            '<!doctype html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">',
            f"<title>{escape(_config()['title'])}</title>",
            *map(str, taken),
            f"<style>{STYLE.read_text('utf8')}",
            *heads,
            "</style></head><body>",
            _title_page(),
            _contents(articles),
            '<main class="bd-content">',  # the name that book/_static/custom.css knows
            *map(str, articles.values()),
            "</main></body></html>",
        ]
    )


def _article(name: str, soup: BeautifulSoup, among: Container[str]) -> Tag:
    """The article of page `name`, unfolded, with the ids and links that it has in the document of all pages `among`."""
    article = soup.select_one("article.bd-article")
    for part in article.select(LEFT_OUT):
        part.decompose()
    for folded in article.select(".cell > details"):
        folded.summary.decompose()
        if "tag_solution" in folded.parent["class"]:
            folded.insert_before(BeautifulSoup("<p><strong>Solution</strong></p>", "html.parser"))
        folded.unwrap()
    for folded in article.select("details"):
        folded["open"] = ""
    for part in article.select("[id]"):
        part["id"] = _id(name, part["id"])
    for part in article.select("[href], [src]"):
        _relocate(part, name, among)
    article["id"], article["style"] = _id(name), f"page: {_id(name)}"
    return article


def _relocate(tag: Tag, name: str, among: Container[str]) -> None:
    """Point a tag of page `name` that has a `href` or `src` to the place in the document or the file that it means."""
    key = "href" if tag.has_attr("href") else "src"
    parts = urlsplit(tag.get(key, ""))
    if parts.scheme or not (parts.path or parts.fragment):
        return
    path = unquote(parts.path) or posixpath.basename(f"{name}.html")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
    if (page := path.removesuffix(".html")) in among:
        tag[key] = f"#{_id(page, unquote(parts.fragment))}"
    elif tag.name == "a":
        del tag[key]  # a page or file that is not in the document
    else:
        tag[key] = f"../html/{path}"


def _id(name: str, fragment: str = "") -> str:
    """What `fragment` of page `name`, or the page, is called in the document: a name that CSS takes too."""
    return "--".join(filter(None, [name.replace("/", "-"), fragment]))


def _config() -> dict:
    return yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))


def _running_head(name: str, title: str) -> str:
    """The rule that puts the title of a page of the book at the top of all its sheets."""
    return f"@page {_id(name)} {{ @top-right {{ content: {json.dumps(title, ensure_ascii=False)} }} }}"


def _title_page() -> str:
    config = _config()
    return f"""<header class="title"><h1>{escape(config["title"])}</h1>
<p>{escape(config["author"])}<br>ftkit {version("ftkit")}</p>
<p>Printed from the book's pages. What is folded there stands open here, solutions right after their exercises. The
cells that install ftkit on Colab are left out, and the memory calculator, which needs a browser.</p></header>"""


def _contents(articles: dict[str, Tag]) -> str:
    """Links to all chapters and their sections, each with room for a page number."""
    lines = []
    for article in articles.values():
        for heading in article.select("h1, h2"):
            place = article["id"] if heading.name == "h1" else heading.find_parent("section")["id"]
            level = {"h1": "chapter", "h2": "section"}[heading.name]
            text = f"<span>{escape(heading.get_text())}</span>"
            lines.append(f'<a class="{level}" href="#{place}">{text}<span class="number"></span></a>')
    return "\n".join(['<nav><p class="heading">Contents</p>', *lines, "</nav>"])


def main() -> int:
    if missing := [f"{name}.html" for name in contents() if f"{name}.html" not in pages()]:
        print(f"there is no {missing[0]} in {HTML.relative_to(ROOT)}: run `make book` first", file=sys.stderr)
        return 2
    with chromium() as browser:
        write(contents(), OUT, browser)
    print(f"[ftkit] pdf: {OUT.relative_to(ROOT)} ({OUT.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
