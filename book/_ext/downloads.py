"""Each notebook's page offers the notebook, without outputs, and the same as a plain script."""

import sys
from pathlib import Path

import nbformat
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from book.scripts import script  # noqa: E402

BUTTON = {
    "type": "link",
    "text": ".py",
    "icon": "fab fa-python",
    "tooltip": "Download as a script",
    "label": "download-script-button",
}


def offer_script(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Write the script beside the page's source and put a button for it after that of the source."""
    if context.get("page_source_suffix") != ".ipynb":
        return
    (group,) = (button for button in context["header_buttons"] if button["label"] == "download-buttons")
    (at,) = (i for i, button in enumerate(group["buttons"]) if button["label"] == "download-source-button")
    group["buttons"][at]["tooltip"] = "Download the notebook, without outputs"
    path = Path(app.env.doc2path(pagename))
    target = Path(app.outdir, "_sources", pagename).with_suffix(".py")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(script(nbformat.read(path, nbformat.NO_CONVERT), path.stem), "utf8")
    url = f"{context['pathto']('_sources', 1)}/{pagename}.py"
    group["buttons"].insert(at + 1, BUTTON | {"url": url})


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", offer_script, priority=600)  # after the theme's buttons, which come at 501
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
