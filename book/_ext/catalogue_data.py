"""Put the catalogue of models and the table of cards beside the pages, as a script: a page opened from the disk may not
read files, but it may load scripts."""

import json
from pathlib import Path

from sphinx.application import Sphinx

MEMORY = Path(__file__).resolve().parents[2] / "ftkit/memory"
FILES = {"models": "catalogue.json", "cards": "hardware.json"}


def write_data(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return
    data = {name: json.loads((MEMORY / file).read_text()) for name, file in FILES.items()}
    target = Path(app.outdir) / "_static/catalogue.js"
    target.write_text(f"window.FTKIT_CATALOGUE = {json.dumps(data)};\n")


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", write_data)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
