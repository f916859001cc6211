"""What a notebook's page shows: the source's text and code with the outputs of its executed copy, or a warning."""

import io
import json
import sys
from pathlib import Path

import pytest
from nbformat import v4, writes
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from book.freshness import ROOT, fingerprint

sys.path.insert(0, str(ROOT / "book/_ext"))
import executed_overlay  # noqa: E402

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'


def figure(alt: str | None):
    metadata = {"image/svg+xml": {"alt": alt}} if alt else {}
    return v4.new_output("display_data", {"image/svg+xml": SVG, "text/plain": "<Figure>"}, metadata=metadata)


@pytest.fixture
def book(tmp_path: Path, monkeypatch):
    """Build a book of one notebook; `change` may alter the executed copy's cells and metadata first.

    Returns the page and the warnings.
    """
    monkeypatch.setattr(executed_overlay, "EXECUTED", tmp_path / "executed")

    def build(*outputs, change=lambda nb: None, executed: bool = True) -> tuple[str, str]:
        source = tmp_path / "src/chapter.ipynb"
        source.parent.mkdir()
        nb = v4.new_notebook(cells=[v4.new_markdown_cell("# Title\n\nProse."), v4.new_code_cell("the_code()")])
        nb.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
        source.write_text(writes(nb))
        nb.cells[0].source = "# Old title"
        nb.cells[1].outputs = list(outputs)
        nb.metadata["ftkit"] = {"fingerprint": fingerprint(source), "parameters": {}}
        change(nb)
        if executed:
            (tmp_path / "executed").mkdir()
            (tmp_path / "executed/chapter.ipynb").write_text(json.dumps(nb))
        warnings = io.StringIO()
        config = {
            "extensions": ["myst_nb", "executed_overlay"],
            "root_doc": "chapter",
            "nb_execution_mode": "off",
            "nb_render_image_options": {"classes": "dark-light"},
        }
        with patch_docutils(), docutils_namespace():
            app = Sphinx(
                str(source.parent),
                None,
                str(tmp_path / "html"),
                str(tmp_path / "trees"),
                "html",
                config,
                None,
                warnings,
            )
            app.build()
        return (tmp_path / "html/chapter.html").read_text(), warnings.getvalue()

    return build


def test_outputs_come_from_the_copy_and_everything_else_from_the_source(book):
    page, warnings = book(v4.new_output("stream", text="a printed number"), figure("Loss falls from 2 to 1"))
    assert warnings == ""
    assert "a printed number" in page and "Prose." in page and "Old title" not in page
    assert 'alt="Loss falls from 2 to 1"' in page and 'class="dark-light"' in page


def override(nb) -> None:
    nb.cells.insert(1, v4.new_code_cell("n = 5", metadata={"tags": ["injected-parameters"]}))


@pytest.mark.parametrize(
    ("change", "executed", "why"),
    [
        (lambda nb: None, False, "was not executed"),
        (lambda nb: nb.metadata.ftkit.update(fingerprint="other"), True, "was executed from other code"),
        (lambda nb: nb.metadata.ftkit.update(parameters={"n": 5}), True, "was executed with overridden parameters"),
        (override, True, "was executed with overridden parameters"),
    ],
    ids=["missing", "stale", "recorded override", "injected cell"],
)
def test_a_copy_that_does_not_belong_is_a_warning_and_is_not_shown(book, change, executed, why):
    page, warnings = book(v4.new_output("stream", text="a printed number"), change=change, executed=executed)
    assert f"the notebook {why}" in warnings
    assert "a printed number" not in page


def test_a_figure_without_description_is_a_warning(book):
    assert "has no description" in book(figure(None))[1]


def test_two_descriptions_in_one_cell_are_a_warning(book):
    assert "not the only one of its cell" in book(figure("The loss falls"), figure("The rate rises"))[1]
