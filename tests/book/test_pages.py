"""Every page in Chromium, light and dark: clean, complete, readable and within its width."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from book.browser import HTML, open_page, pages

VIEWS = [(page, theme) for page in pages() for theme in ("light", "dark")]
every_view = pytest.mark.parametrize("opened", VIEWS, indirect=True, ids=[f"{p}-{t}" for p, t in VIEWS])
# Parts of the page that stick out of the window and that no box of their own holds.
LOOSE = """() => [...document.querySelectorAll('article.bd-article *')].filter(e => {
    const box = e.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= innerWidth + 1 || e.closest('mjx-assistive-mml')) return false;
    for (let p = e.parentElement; p.tagName !== 'ARTICLE'; p = p.parentElement)
        if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return false;
    return true;
}).slice(0, 3).map(e => e.outerHTML.slice(0, 120))"""
WIDE = """() => ['html', 'body', '.bd-main', '.bd-content', 'article.bd-article'].filter(s => {
    const e = document.querySelector(s);
    return e && e.scrollWidth > e.clientWidth + 1;
})"""


@every_view
def test_nothing_is_requested_elsewhere_and_nothing_goes_wrong(opened):
    assert not opened.problems


@every_view
def test_math_is_rendered(opened):
    written = len(re.findall(r'class="math notranslate', (HTML / opened.name).read_text("utf8")))
    assert opened.page.locator("mjx-container").count() == written
    # A syntax error becomes an `merror`, an unknown command red text.
    assert opened.page.locator("mjx-container [data-mml-node=merror], mjx-container [fill=red]").count() == 0


@every_view
def test_figures_load_and_are_described(opened):
    figures = opened.page.eval_on_selector_all(
        ".bd-article img", "all => all.map(i => ({src: i.src, alt: i.alt.trim(), width: i.naturalWidth}))"
    )
    for figure in figures:
        assert figure["width"] > 0, figure
        assert len(figure["alt"].split()) >= 4, figure
        assert not re.search(r"\.(svg|png|jpe?g)\b|^(notebook )?figure\b", figure["alt"], re.IGNORECASE), figure


@every_view
@pytest.mark.parametrize("size", [(390, 844), (1280, 900)], ids=["phone", "desk"])
def test_nothing_scrolls_sideways(opened, size):
    opened.page.set_viewport_size({"width": size[0], "height": size[1]})
    assert opened.page.evaluate(WIDE) == []
    assert opened.page.evaluate(LOOSE) == []


@every_view
def test_no_serious_accessibility_violation(opened):
    # `preload` would request stylesheets a second time, some at wrong addresses.
    violations = Axe().run(opened.page, options={"preload": False}).response["violations"]
    serious = [
        f"{violation['id']}: {node['html'][:160]} {node.get('failureSummary', '')}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
    assert not serious, "\n".join(serious)


@pytest.mark.parametrize("name", pages())
def test_pages_open_from_the_disk(windows, name):
    view = open_page(windows["light"], HTML.as_uri() + "/", name)
    view.page.close()
    assert not view.problems
