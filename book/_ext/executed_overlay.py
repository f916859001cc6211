"""Give every notebook's page the outputs of its executed copy, and clean up what Jupyter Book adds.

Text, code and tags come from the source, outputs from `_build/executed/<docname>.ipynb`. A copy that is missing, stale
or made with overridden parameters is a warning, which the build turns into an error. So is a figure without a
description: a cell gives one with `display(fig, metadata={"image/svg+xml": {"alt": "..."}})`.
"""

import json
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from book.freshness import EXECUTED, code_cells, is_injected, problem  # noqa: E402

log = logging.getLogger(__name__)


def show_executed(app: Sphinx, docname: str, source: list[str]) -> None:
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".ipynb":
        return
    executed = EXECUTED / path.name
    app.env.note_dependency(str(executed))
    if why := problem(path, executed):
        log.warning("the notebook %s: run `make book`", why, type="executed", location=docname)
        return
    nb = json.loads(source[0])
    nb["cells"] = [cell for cell in nb["cells"] if not is_injected(cell)]
    for cell, ran in zip(code_cells(nb), code_cells(json.loads(executed.read_text("utf8"))), strict=True):
        cell["outputs"], cell["execution_count"] = ran["outputs"], ran["execution_count"]
        describe_figure(app, docname, cell)
    source[0] = json.dumps(nb)


def describe_figure(app: Sphinx, docname: str, cell: dict) -> None:
    """Move a figure's description from its output to the cell, where MyST-NB looks for it."""
    given = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt")
    alts = [
        output["metadata"].get(mime, {}).get("alt", given)
        for output in cell["outputs"]
        for mime in output.get("data", {})
        if mime in ("image/svg+xml", "image/png")
    ]
    if not alts:
        return
    if not all(alts) or len(set(alts)) > 1:
        first = "".join(cell["source"]).strip().splitlines()[0]
        what = "has no description" if not all(alts) else "is not the only one of its cell, and MyST-NB knows one text"
        log.warning("a figure of the cell %r %s", first, what, type="executed", location=docname)
        return
    options = app.config.nb_render_image_options | {"alt": alts[0]}
    cell["metadata"].setdefault("mystnb", {})["image"] = options


def tidy_page(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Take off the page what is not in use or not allowed there.

    Jupyter Book 1 adds sphinx-thebe's scripts to every page, twice: a console error for a feature not in use. Sphinx
    gives the entries of the bibliography a role that ARIA has withdrawn and that a list may not contain.
    """

    def keep(file) -> bool:
        name = str(getattr(file, "filename", file) or "")
        body = getattr(file, "attributes", {}).get("body") or ""
        return "thebe" not in name.lower() and "THEBE_JS_URL" not in body

    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if keep(file)]
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def drop_thebe(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Remove the configuration that sphinx-thebe appends to the document."""
    for node in list(doctree.findall(nodes.raw)):
        if "x-thebe-config" in node.astext() or "kernelName =" in node.astext():
            node.parent.remove(node)


def setup(app: Sphinx) -> dict:
    app.connect("source-read", show_executed)
    app.connect("doctree-resolved", drop_thebe, priority=900)
    app.connect("html-page-context", tidy_page, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
