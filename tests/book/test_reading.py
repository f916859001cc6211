"""What a reader does with the book: searches it, copies code, changes the theme, reads on a phone."""

import re

import pytest
from bs4 import BeautifulSoup

from book.browser import HTML, open_page, pages
from book.pdf import contents

CHAPTER = next(f"{name}.html" for name in contents() if name.startswith("notebooks/"))
HEADINGS, TEXTS = {}, {}
for name in pages():
    article = BeautifulSoup((HTML / name).read_text("utf8"), "html.parser").select_one("article")
    if article is not None:  # all but the search page and the index
        HEADINGS[name] = " ".join(heading.get_text() for heading in article.select("h1, h2, h3")).lower()
        TEXTS[name] = article.get_text().lower()


@pytest.fixture
def window(browser):
    """A window of its own, which remembers nothing of others, and may use the clipboard."""
    context = browser.new_context(color_scheme="light", permissions=["clipboard-read", "clipboard-write"])
    yield context
    context.close()


def results(page) -> tuple[str, list[str]]:
    """What the search page says when it is through, and the addresses it lists. They come one by one."""
    page.wait_for_function("() => /finished|did not match/.test(document.querySelector('.search-summary')?.innerText)")
    found = page.eval_on_selector_all("#search-results > ul > li > a", "all => all.map(a => a.getAttribute('href'))")
    page.wait_for_load_state("networkidle")  # each result is fetched, to show a few words of it
    return page.inner_text(".search-summary"), found


@pytest.mark.parametrize(
    ("word", "stem"), [("adamw", "adamw"), ("memory", "memor"), ("lora", "lora"), ("glossary", "glossar")]
)
def test_search_finds_the_pages_with_a_word_and_those_that_have_it_in_a_heading_first(windows, site, word, stem):
    view = open_page(windows["light"], site, f"search.html?q={word}")
    summary, found = results(view.page)
    view.page.close()
    assert not view.problems and f"found {len(found)} page" in summary
    # A term of the glossary comes before all pages.
    ranked = list(dict.fromkeys(re.split("[#?]", link)[0] for link in found if "#term-" not in link))
    headed = {name for name, text in HEADINGS.items() if re.search(rf"\b{word}\b", text)}
    assert headed and headed <= set(ranked)
    assert all(stem in TEXTS[name] for name in ranked)
    without = [place for place, name in enumerate(ranked) if stem not in HEADINGS[name]]
    assert all(ranked.index(name) < min(without, default=len(ranked)) for name in headed)


def test_search_by_the_button_and_a_word_that_is_nowhere(windows, site):
    view = open_page(windows["light"], site, "book/index.html")
    view.page.locator("button.search-button__button:visible").first.click()
    box = view.page.locator("input[type=search]:visible").first
    box.fill("zyzzyva")
    box.press("Enter")
    summary, found = results(view.page)
    view.page.close()
    assert "did not match any" in summary and found == [] and not view.problems


def test_every_cell_can_be_copied_and_what_is_copied_is_its_code(window, site):
    page = open_page(window, site, CHAPTER).page
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    cells = page.locator("div.cell_input div.highlight").all()
    assert cells
    for cell in cells:
        cell.hover()
        cell.locator("button.copybtn").click()
        copied = page.evaluate("() => navigator.clipboard.readText()")
        assert copied.strip() == cell.locator("pre").inner_text().strip()


def test_the_theme_is_chosen_by_a_button_and_remembered(window, site):
    page = open_page(window, site, CHAPTER).page
    paper = "() => getComputedStyle(document.body).backgroundColor"
    seen = {}
    for _ in range(3):  # light, dark, the system's
        page.locator("button.theme-switch-button:visible").first.click()
        seen[page.locator("html").get_attribute("data-mode")] = page.evaluate(paper)
    assert set(seen) == {"light", "dark", "auto"} and seen["light"] == seen["auto"] != seen["dark"]
    while page.locator("html").get_attribute("data-mode") != "dark":
        page.locator("button.theme-switch-button:visible").first.click()
    assert open_page(window, site, "book/glossary.html").page.evaluate(paper) == seen["dark"]


def test_a_phone_reaches_every_page_from_the_menu(browser, site):
    phone = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = open_page(phone, site, CHAPTER).page
    links = page.locator("nav.bd-links a.reference.internal")
    assert links.first.bounding_box()["x"] + links.first.bounding_box()["width"] <= 0  # beside the screen
    page.locator("button.primary-toggle:visible").tap()
    page.wait_for_function("e => e.getBoundingClientRect().left >= 0", arg=links.first.element_handle())
    reached = {address.partition("#")[0] for address in links.evaluate_all("all => all.map(a => a.href)")}
    assert {f"{site}{name}.html" for name in contents()[1:]} <= reached | {f"{site}{CHAPTER}"}
    links.filter(has_text="Glossary").tap()
    page.wait_for_url("**/book/glossary.html")
    phone.close()
