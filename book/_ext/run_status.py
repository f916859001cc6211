"""The directive `status`: when each notebook ran, how long it took and with what, from the executed copies."""

import json
import sys
from datetime import datetime
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from book.freshness import EXECUTED, NOTEBOOKS  # noqa: E402


def table(notebooks: Path, executed: Path) -> str:
    """MyST text: a row for each notebook that was executed, then the versions that all of them ran with."""
    rows, versions = ["| notebook | executed (UTC) | seconds |", "|---|---|---:|"], {}
    for path in sorted(notebooks.glob("*.ipynb")):
        if (copy := executed / path.name).is_file():
            ran = json.loads(copy.read_text("utf8"))["metadata"]["ftkit"]
            when = datetime.fromisoformat(ran["date"]).strftime("%Y-%m-%d %H:%M")
            rows.append(f"| {{doc}}`/notebooks/{path.stem}` | {when} | {ran['seconds']:.0f} |")
            for name, version in ran["versions"].items():
                versions.setdefault(name, set()).add(version)
    used = ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in versions.items())
    return "\n".join(rows) + f"\n\nVersions: {used}.\n"


class Status(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        for copy in EXECUTED.glob("*.ipynb"):
            self.env.note_dependency(str(copy))
        return self.parse_text_to_nodes(table(NOTEBOOKS, EXECUTED))


def setup(app: Sphinx) -> dict:
    app.add_directive("status", Status)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
