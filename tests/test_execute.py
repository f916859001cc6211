"""The notebook runner: what it executes, when it does so again, and what it calls a failure."""

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from book import execute as runner
from book.execute import ExecutionError, execute, results
from book.freshness import ROOT, in_order, problem, sources


def notebook(path: Path, *cells: str, parameters: str = "n = 1") -> Path:
    """A notebook with a cell of `parameters`, some prose, and `cells`."""
    first = v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    nb = v4.new_notebook(cells=[first, v4.new_markdown_cell("Prose."), *map(v4.new_code_cell, cells)])
    nb.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nb, path)
    return path


@pytest.fixture(autouse=True)
def failed(tmp_path, monkeypatch):
    """The folder of failed copies, out of the checkout."""
    monkeypatch.setattr(runner, "FAILED", tmp_path / "failed")
    return tmp_path / "failed"


def printed(nb) -> str:
    return "".join(o.text for c in nb.cells for o in c.get("outputs", []) if o.output_type == "stream")


def test_a_copy_is_good_until_code_changes_and_prose_is_not_code(tmp_path):
    source = notebook(tmp_path / "a.ipynb", "print(n)")
    out = tmp_path / "out"
    assert problem(source, out / "a.ipynb") == "was not executed"
    nb = execute(source, out)
    assert printed(nb) == "1\n"
    assert problem(source, out / "a.ipynb") is None
    assert {"fingerprint", "seconds", "date", "versions"} <= set(nb.metadata.ftkit)
    assert [p.name for p in out.iterdir()] == ["a.ipynb"]
    source.write_text(source.read_text().replace("Prose.", "Better prose."))
    assert problem(source, out / "a.ipynb") is None
    source.write_text(source.read_text().replace("print(n)", "print(n, n)"))
    assert "other code" in problem(source, out / "a.ipynb")


def test_a_notebook_depends_on_the_one_whose_run_it_reads_and_on_no_other(tmp_path):
    made = "if n > 1: recipes.fresh('{}')"
    reader = notebook(tmp_path / "01_reader.ipynb", "if n > 1: recipes.obtain('lora')")
    owner = notebook(tmp_path / "09_owner.ipynb", made.format("lora"))
    both = notebook(tmp_path / "08_both.ipynb", made.format("full"), "if n > 1: recipes.obtain('lora')")
    other = notebook(tmp_path / "02_other.ipynb", "print(n)")
    assert in_order([reader, other, both, owner]) == [owner, both, other, reader]
    for path in (reader, owner, both, other):
        execute(path, tmp_path / "out")
    owner.write_text(owner.read_text().replace("n > 1", "n > 2"))
    stale = {path.stem for path in (reader, owner, both, other) if problem(path, tmp_path / "out" / path.name)}
    assert stale == {"01_reader", "08_both", "09_owner"}


def test_a_notebook_depends_on_the_benchmark_result_that_it_names(tmp_path):
    named = "benchmarks/results/methods.json"
    reader = notebook(tmp_path / "a.ipynb", f"name = '{named}'")
    assert sources(reader)[-1] == ROOT / named
    assert ROOT / named not in sources(notebook(tmp_path / "b.ipynb", "print(n)"))


def test_overrides_apply_and_such_a_copy_is_no_page(tmp_path):
    source = notebook(tmp_path / "a.ipynb", "print(n)")
    assert printed(execute(source, tmp_path / "out", {"n": 5})) == "5\n"
    assert problem(source, tmp_path / "out/a.ipynb") == "was executed with overridden parameters"


def test_an_unknown_parameter_is_refused(tmp_path):
    with pytest.raises(ExecutionError, match="a.ipynb has no parameter m "):
        execute(notebook(tmp_path / "a.ipynb"), tmp_path, {"m": 5})


def test_the_kernel_is_this_python_offline_and_elsewhere(tmp_path, monkeypatch):
    """A `python3` kernel of the user's, which Jupyter would prefer, is not used; nothing is written to the checkout."""
    other = tmp_path / "jupyter/kernels/python3/kernel.json"
    other.parent.mkdir(parents=True)
    argv = ["/nowhere/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    other.write_text(json.dumps({"argv": argv, "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    code = "import os, sys; print(sys.executable, *(os.environ[k] for k in KEYS), os.listdir())"
    keys = ["HF_HUB_OFFLINE", "MPLBACKEND", "MINE"]
    source = notebook(tmp_path / "a.ipynb", code, parameters=f"KEYS = {keys}")
    backend = "module://matplotlib_inline.backend_inline"
    assert printed(execute(source, tmp_path / "out", env={"MINE": "7"})) == f"{sys.executable} 1 {backend} 7 []\n"
    assert os.environ["MPLBACKEND"] == "Agg"


def test_a_failed_cell_is_reported_kept_and_replaces_nothing(tmp_path, failed):
    source = notebook(tmp_path / "a.ipynb", "print('reached')", "{}['absent']")
    good = tmp_path / "out/a.ipynb"
    good.parent.mkdir()
    good.write_text("good")
    with pytest.raises(
        ExecutionError, match=r"a\.ipynb failed\. What ran is in .*failed/a\.ipynb\.(?s:.*)KeyError"
    ) as error:
        execute(source, tmp_path / "out")
    assert "\x1b" not in str(error.value)
    assert "reached" in printed(nbformat.read(failed / "a.ipynb", 4))
    assert good.read_text() == "good" and [p.name for p in good.parent.iterdir()] == ["a.ipynb"]


def test_a_cell_may_not_run_for_ever(tmp_path):
    with pytest.raises(ExecutionError, match="timed out"):
        execute(notebook(tmp_path / "a.ipynb", "while True: pass"), tmp_path / "out", timeout=1)


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("/x/lib/python3/site-packages/other/a.py:3: DeprecationWarning: gone soon", True),
        ("/x/b.py:1: MatplotlibDeprecationWarning: gone", True),
        ("FutureWarning: will change", True),
        ("/x/site-packages/ftkit/training/lora.py:30: UserWarning: rank is large", True),
        ("/tmp/ipykernel_12/345.py:1: RuntimeWarning: overflow", True),
        ("/x/site-packages/peft/tuners/a.py:3: UserWarning: not ours", False),
        ("training: 100%|####| 10/10", False),
    ],
)
def test_which_lines_of_standard_error_fail(text, fails):
    cell = v4.new_code_cell("", outputs=[v4.new_output("stream", name="stderr", text=f"before\n{text}\nafter\n")])
    assert runner.warnings(v4.new_notebook(cells=[cell])) == ([f"cell 1: {text}"] if fails else [])


def test_a_warning_of_the_notebook_itself_fails_it(tmp_path, failed):
    source = notebook(tmp_path / "a.ipynb", "import warnings\nwarnings.warn('rank is large')")
    with pytest.raises(ExecutionError, match=r"wrote warnings to standard error(?s:.*)cell 3: .*rank is large"):
        execute(source, tmp_path / "out")
    assert (failed / "a.ipynb").exists() and not (tmp_path / "out/a.ipynb").exists()


def test_a_stream_is_one_output_however_it_was_sent(tmp_path):
    """Pieces come when the kernel's clock says so, here at every flush; a display between them keeps its place."""
    code = (
        "import sys\nfor n in range(3):\n    print(n, flush=True); print(-n, file=sys.stderr, flush=True)\n"
        "display({'text/plain': 'x'}, raw=True)\nprint(3, flush=True); print(4, flush=True)"
    )
    outputs = execute(notebook(tmp_path / "a.ipynb", code), tmp_path / "out").cells[-1].outputs
    assert [(o.get("name"), o.get("text")) for o in outputs] == [
        ("stdout", "0\n1\n2\n"),
        ("stderr", "0\n-1\n-2\n"),
        (None, None),
        ("stdout", "3\n4\n"),
    ]


def test_results_are_merged_in_order():
    def published(**values):
        return v4.new_code_cell("", outputs=[v4.new_output("display_data", {runner.RESULT_MIME: values})])

    assert results(v4.new_notebook(cells=[published(a=1, b=1), published(b=2)])) == {"a": 1, "b": 2}


def test_an_unknown_notebook_is_named(capsys):
    with pytest.raises(SystemExit):
        runner.main(["99_nothing"])
    assert "no notebook 99_nothing in notebooks/" in capsys.readouterr().err
