"""Photograph a page of the built book for the README: `python -m book.picture [PAGE]`."""

import argparse
import os
import sys

from book.browser import HTML, chromium, open_page, pages, served
from book.freshness import ROOT

OUT = ROOT / "book/_static/page.png"
PAGE = "notebooks/09_lora_in_practice.html"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m book.picture", description="Write book/_static/page.png.")
    parser.add_argument("page", nargs="?", default=PAGE, help=f"path below _build/html (default: {PAGE})")
    parser.add_argument(
        "--at", metavar="SELECTOR", default="article h1", help="element to show at the top (default: the title)"
    )
    args = parser.parse_args(argv)
    if args.page not in pages():
        parser.error(f"there is no {args.page} in {HTML.relative_to(ROOT)}: run `make book` first")
    with served() as base, chromium() as browser:
        window = browser.new_context(viewport={"width": 1280, "height": 800})
        page = open_page(window, base, args.page).page
        page.locator(args.at).first.evaluate(
            "e => scrollTo({top: e.getBoundingClientRect().top + scrollY - 70, behavior: 'instant'})"
        )
        beside = OUT.with_name(".page.png")
        beside.write_bytes(_reduced(page.screenshot()))
        os.replace(beside, OUT)
    print(f"[ftkit] picture: {OUT.relative_to(ROOT)} ({OUT.stat().st_size / 1000:.0f} kB)")
    return 0


def _reduced(png: bytes) -> bytes:
    """The picture in 256 colours: a page of text needs no more, and a third of the bytes do."""
    from io import BytesIO

    from PIL import Image

    out = BytesIO()
    Image.open(BytesIO(png)).convert("RGB").quantize(256).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
