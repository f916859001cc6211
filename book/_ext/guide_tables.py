"""The directive `guide`: what the guide says and what is right, from book/guide.yml."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from book.guide import FILE, table  # noqa: E402


class Guide(SphinxDirective):
    """`{guide} E` shows the errors, `{guide} G` the items."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(FILE))
        return self.parse_text_to_nodes(table(self.arguments[0]), allow_section_headings=True)


def setup(app: Sphinx) -> dict:
    app.add_directive("guide", Guide)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
