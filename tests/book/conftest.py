"""The built book in Chromium. Each page is loaded once a theme, and the tests of `test_pages.py` look at it."""

import pytest

from book.browser import chromium, open_page, pages, served


def pytest_collection_modifyitems() -> None:
    if not pages():
        pytest.exit("there is no book in _build/html: run `make book` first", returncode=1)


@pytest.fixture(scope="session")
def site():
    """The address of the served book."""
    with served() as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def windows(browser):
    """A browser window of 1280 by 900 for each theme."""
    size = {"width": 1280, "height": 900}
    return {theme: browser.new_context(viewport=size, color_scheme=theme) for theme in ("light", "dark")}


@pytest.fixture(scope="module")
def opened(request, windows, site):
    """The page and theme that the test is parametrised with, with all that folds unfolded."""
    name, theme = request.param
    view = open_page(windows[theme], site, name)
    view.page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    yield view
    view.page.close()
