"""Every notebook as a plain script: it is Python, it keeps the notebook's code, and it runs."""

import ast
import os
import subprocess
import sys

import nbformat
import pytest
from nbformat import v4
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from book.freshness import NOTEBOOKS, ROOT
from book.scripts import LEFT_OUT, script

STEPS = {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "max_seq_length": 1024}
RUNS = {
    "09_lora_in_practice": {"MODEL": "tiny-smollm", "TEST_ROWS": 2, "OVERRIDES": STEPS},
    "13_comparison": {},
}


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", nbformat.NO_CONVERT)


class Unprinted(ast.NodeTransformer):
    """Takes `print_value` off again."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        called = getattr(getattr(node.value, "func", None), "id", None)
        return ast.Expr(node.value.args[0]) if called == "print_value" else node


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_a_script_is_the_code_of_its_notebook_in_order(name):
    nb = read(name)
    before = nbformat.writes(nb)
    text = script(nb, name)
    assert nbformat.writes(nb) == before
    compile(text, f"{name}.py", "exec")
    kept = [c.source for c in nb.cells if c.cell_type == "code" and not LEFT_OUT & set(c.metadata.get("tags", []))]
    written, own = ast.parse(text), ast.parse("\n".join(kept))
    del written.body[0]  # the function `print_value`
    assert ast.dump(Unprinted().visit(written)) == ast.dump(own)
    assert not any("get_ipython" in source or "print_value" in source for source in kept)
    assert 'pip install "ftkit[' in text and "colab" not in text.lower().partition("print_value")[0]


@pytest.mark.parametrize(("name", "parameters"), RUNS.items())
def test_a_script_runs_and_prints_what_the_notebook_shows(name, parameters, tmp_path):
    nb = parameterize_notebook(load_notebook_node(str(NOTEBOOKS / f"{name}.ipynb")), parameters)
    (tmp_path / f"{name}.py").write_text(script(nb, name), "utf8")
    paths = {"FTKIT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, f"{name}.py"], cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    # The exercise waits, its solution is right: two cells that end in a value.
    verdicts = [line for line in ran.stdout.splitlines() if line.startswith(("Not yet", "Right"))]
    assert [verdict.split(":")[0] for verdict in verdicts] == ["Not yet", "Right"]


def cell_as_script(source: str) -> str:
    return script(v4.new_notebook(cells=[v4.new_code_cell(source, id="c1")]), "page")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("'ä', 1  # ä", "('ä', 1)\n"),
        ("x = 2\n(x\n + 1)  # (x\n", "3\n"),
        ("x = 'ä'; x", "ä\n"),
        ("1;", ""),
        ("None", ""),
        ("print(1)", "1\n"),
        ("x = 1", ""),
        ("# nothing", ""),
        ("import pandas as pd\npd.DataFrame({'a': [0.5]}).style.format(precision=2)", "\ta\n0\t0.50\n\n"),
    ],
)
def test_a_value_at_the_end_of_a_cell_is_printed(source, shown, capsys):
    exec(cell_as_script(source), {})
    assert capsys.readouterr().out == shown


def test_a_table_is_printed_with_all_its_columns(capsys):
    exec(cell_as_script("import pandas as pd\npd.DataFrame({f'column {i}': [i] for i in range(40)})"), {})
    assert capsys.readouterr().out.count("column") == 40


def test_what_is_not_python_is_named():
    with pytest.raises(SyntaxError) as error:
        cell_as_script("%matplotlib inline")
    assert error.value.filename == "page.ipynb, cell c1"
