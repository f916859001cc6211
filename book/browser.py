"""The built book in Chromium: served on this machine, with every other machine out of reach."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from book.freshness import ROOT

HTML = ROOT / "_build/html"
# Chromium's own traffic off, and no name resolved; no sandbox: containers run as root, who cannot have one. (Refusing
# requests with playwright's `route` would also turn the cache off, and each page loads MathJax.)
FLAGS = [
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class View:
    """A loaded page, and what went wrong while it was loading and since."""

    name: str
    page: Page
    problems: list[str] = field(default_factory=list)


def pages() -> list[str]:
    """The book's pages, as paths relative to `HTML`; empty when there is no book.

    Without `index.html`, which only sends the reader on to the first page.
    """
    found = {p.relative_to(HTML).as_posix() for p in HTML.rglob("*.html") if "_static" not in p.parts}
    return sorted(found - {"index.html"})


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that the environment variable CHROMIUM names; Debian's by default."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or "/usr/bin/chromium", args=FLAGS
        )
        yield browser
        browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@contextmanager
def served(folder: Path = HTML) -> Iterator[str]:
    """The address, ending in a slash, of the book (or of another folder) while it is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def open_page(context: BrowserContext, base: str, name: str) -> View:
    """Load page `name` under `base` and wait until its math and fonts are there."""
    page = context.new_page()
    view = View(name, page)

    def request(sent) -> None:
        if not sent.url.startswith((base, "data:", "blob:")):
            view.problems.append(f"request to {sent.url}")

    def console(message) -> None:
        if message.type in ("error", "warning"):
            view.problems.append(f"console {message.type}: {message.text}")

    def response(reply) -> None:
        if reply.status >= 400:
            view.problems.append(f"{reply.status}: {reply.url}")

    page.on("request", request)
    page.on("requestfailed", lambda sent: view.problems.append(f"request failed: {sent.url}"))
    page.on("response", response)
    page.on("console", console)
    page.on("pageerror", lambda error: view.problems.append(f"page error: {error}"))
    page.goto(base + name, wait_until="load")
    page.wait_for_load_state("networkidle")
    page.evaluate("() => Promise.all([document.fonts.ready, window.MathJax?.startup?.promise])")
    return view
