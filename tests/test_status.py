"""The status page says when each notebook ran, from the copies themselves."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book/_ext"))
import run_status  # noqa: E402


def test_every_executed_notebook_has_a_row_and_versions_are_said_once(tmp_path):
    executed = tmp_path / "executed"
    executed.mkdir()
    for name, seconds, torch in (("01_a", 12.4, "2.13.0"), ("02_b", 7.0, "2.13.0"), ("03_not_run", None, None)):
        (tmp_path / f"{name}.ipynb").write_text("{}")
        if seconds:
            ran = {"date": "2026-11-24T09:00:00+00:00", "seconds": seconds, "versions": {"torch": torch}}
            (executed / f"{name}.ipynb").write_text(json.dumps({"metadata": {"ftkit": ran}}))
    text = run_status.table(tmp_path, executed)
    assert "| {doc}`/notebooks/01_a` | 2026-11-24 09:00 | 12 |" in text and "02_b" in text
    assert "03_not_run" not in text and text.count("torch 2.13.0") == 1
