"""Execute the notebooks with papermill, for the book: `python -m book.execute [--force] [NAME ...]`.

The executed copies go to `_build/executed/notebooks/`, always with the defaults of the notebook, so that what a page
prints was made by the code on the page. A copy that still belongs to its source (book/freshness.py) is left alone.
One notebook runs at a time, with all threads. A failed one is kept in `_build/failed/`.

Standard error is taken off the pages, so it is read here: a notebook fails when it holds
- a line that names a DeprecationWarning, PendingDeprecationWarning or FutureWarning (of any library, with any prefix:
  `MatplotlibDeprecationWarning` too), or
- any Python warning (`file:line: SomethingWarning:`) whose file is one of ftkit's or a cell of the notebook itself.
"""

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

from book.freshness import EXECUTED, NOTEBOOKS, ROOT, fingerprint, in_order, problem, versions

FAILED = ROOT / "_build/failed"
RESULT_MIME = "application/vnd.ftkit.result+json"
KERNEL_ENV = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
# Not ours to mend: PEFT 0.21 asks a model for a property under the name that Transformers 5.2x has replaced.
KNOWN = "`is_gradient_checkpointing` is deprecated"
OUTDATED = re.compile(r"\b\w*(Deprecation|Future)Warning\b")
OWN_WARNING = re.compile(r"(/ftkit/[\w/]+\.py|/ipykernel_\d+/\d+\.py|<ipython-input[^>]*>):\d+: \w*Warning:")
HEARTBEAT = 20.0  # seconds between two signs of life


class ExecutionError(Exception):
    """A notebook that did not run to its end, or wrote a warning; the text says which cell and where the copy is."""


def execute(
    path: Path, out: Path, parameters: dict | None = None, timeout: int = 1800, env: dict[str, str] | None = None
) -> nbformat.NotebookNode:
    """Run the notebook at `path` in a kernel of this very Python and write the executed copy to `out/<its name>`.

    Args:
        parameters: overrides for the names of the cell tagged `parameters`; None runs the defaults.
        timeout: seconds that one cell may take.
        env: further environment variables of the kernel; `KERNEL_ENV` is always set (no network, no telemetry).

    The kernel's working directory is an empty temporary one. The copy's `metadata.ftkit` gets the fingerprint,
    parameters, seconds, date (UTC) and versions. A copy already at `out` is replaced only by a whole run.

    Raises:
        ExecutionError: a cell failed or timed out, a parameter is unknown, or standard error held a warning (above).
    """
    import papermill

    if unknown := set(parameters or {}) - set(papermill.inspect_notebook(str(path))):
        raise ExecutionError(
            f"{path.name} has no parameter {', '.join(sorted(unknown))} in its cell tagged `parameters`."
        )
    path, out = path.resolve(), out.resolve()  # papermill changes the working directory while it runs
    out.mkdir(parents=True, exist_ok=True)
    start, made_from = time.perf_counter(), fingerprint(path)
    with TemporaryDirectory(prefix=".running-", dir=out) as scratch:
        copy, cwd = Path(scratch, path.name), Path(scratch, "cwd")
        cwd.mkdir()
        try:
            with _progress(path) as hooks:
                nb = papermill.execute_notebook(
                    path,
                    copy,
                    parameters=parameters,
                    kernel_name="python3",
                    cwd=cwd,
                    progress_bar=False,
                    log_output=False,
                    start_timeout=120,
                    execution_timeout=timeout,
                    autosave_cell_every=0,
                    **hooks,
                    **_kernel(KERNEL_ENV | (env or {})),
                )
        except Exception as error:  # papermill's, nbclient's and the kernel's errors share no base class
            raise ExecutionError(f"{path.name} failed.{_keep(copy)}\n{_plain(str(error))}") from error
        join_streams(nb)
        if found := warnings(nb):
            raise ExecutionError(f"{path.name} wrote warnings to standard error.{_keep(copy)}\n" + "\n".join(found))
        nb.metadata["ftkit"] = {
            "fingerprint": made_from,
            "parameters": parameters or {},
            "seconds": round(time.perf_counter() - start, 1),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        nbformat.write(nb, copy)
        os.replace(copy, out / path.name)
    return nb


def join_streams(nb: nbformat.NotebookNode) -> None:
    """Make one output of the pieces of a stream that no display separates, in place.

    A kernel sends what a cell prints in pieces, cut by its clock: without this, what a page and a test see would depend
    on how busy the machine was.
    """
    for cell in nb.cells:
        joined, open_streams = [], {}
        for output in cell.get("outputs", []):
            if output.output_type != "stream":
                open_streams = {}
            elif output.name in open_streams:
                open_streams[output.name].text += output.text
                continue
            else:
                open_streams[output.name] = output
            joined.append(output)
        if cell.cell_type == "code":
            cell.outputs = joined


def results(nb: nbformat.NotebookNode) -> dict:
    """All that the notebook published with `display({RESULT_MIME: {...}}, raw=True)`, merged in order."""
    merged = {}
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            merged.update(output.get("data", {}).get(RESULT_MIME, {}))
    return merged


def warnings(nb: nbformat.NotebookNode) -> list[str]:
    """The lines of the notebook's standard error that make it fail, each with the number of its cell."""
    return [
        f"cell {number}: {line.strip()}"
        for number, cell in enumerate(nb.cells, 1)
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
        for line in output.text.splitlines()
        if (OUTDATED.search(line) or OWN_WARNING.search(line)) and KNOWN not in line
    ]


def _kernel(env: dict[str, str]) -> dict:
    """nbclient's options for a kernel that is this Python with `env`, whatever `python3` means to Jupyter here.

    Its messages go over ipc (over tcp ipykernel warns that they are not encrypted), by sockets beside the kernel's
    working directory; the name is relative, because a socket's may have some 100 characters only.
    """
    from ipykernel.kernelspec import make_ipkernel_cmd
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from traitlets.config import Config

    class ThisPython(AsyncKernelManager):
        kernel_spec = KernelSpec(argv=make_ipkernel_cmd(), display_name="Python 3", language="python", env=env)

    config = Config()
    config.KernelManager.transport = "ipc"
    config.KernelManager.ip = "../kernel"
    return {"kernel_manager_class": ThisPython, "config": config}


@contextmanager
def _progress(path: Path) -> Iterator[dict]:
    """Hooks for nbclient; while they are in use, a line to standard error says now and then which cell is running."""
    total = len(nbformat.read(path, nbformat.NO_CONVERT).cells)
    start, running, done = time.perf_counter(), [0], threading.Event()

    def report() -> None:
        while not done.wait(HEARTBEAT):
            say(f"{path.stem}: cell {running[0]} of {total} ({time.perf_counter() - start:.0f} s)")

    def started(cell, cell_index) -> None:
        running[0] = cell_index + 1

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield {"on_cell_execute": started}
    finally:
        done.set()
        thread.join()


def _keep(copy: Path) -> str:
    """Move the copy of a failed run to `FAILED`, and say so; nothing when the run failed before its first cell."""
    if not copy.exists():
        return ""
    FAILED.mkdir(parents=True, exist_ok=True)
    os.replace(copy, FAILED / copy.name)
    return f" What ran is in {os.path.relpath(FAILED / copy.name)}."


def _plain(text: str) -> str:
    """`text` without terminal colours and surrounding space."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


def say(text: str) -> None:
    """One line of progress, at once."""
    print(f"[ftkit] {text}", file=sys.stderr, flush=True)


def _slowest(nb: nbformat.NotebookNode) -> str:
    """Which code cell took longest, e.g. `slowest: cell 12, 61 s`."""
    spent = [(cell.metadata.get("papermill", {}).get("duration") or 0.0, i) for i, cell in enumerate(nb.cells, 1)]
    seconds, number = max(spent)
    return f"slowest: cell {number}, {seconds:.0f} s"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m book.execute", description="Execute the notebooks that changed.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="notebooks by name, e.g. 09_lora_in_practice; default: all"
    )
    parser.add_argument("--force", action="store_true", help="execute also what is up to date")
    args = parser.parse_args(argv)
    known = {path.stem: path for path in in_order(list(NOTEBOOKS.glob("*.ipynb")))}
    names = [name.removesuffix(".ipynb").removeprefix("notebooks/") for name in args.names] or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no notebook {', '.join(unknown)} in notebooks/; there are: {', '.join(known)}")
    failed = 0
    for name in names:
        why = "forced" if args.force else problem(known[name], EXECUTED / known[name].name)
        if why is None:
            say(f"{name}: up to date")
            continue
        say(f"{name}: executing ({why}) ...")
        try:
            nb = execute(known[name], EXECUTED)
        except ExecutionError as error:
            failed += 1
            say(str(error))
        else:
            say(f"{name}: done ({nb.metadata.ftkit.seconds:.0f} s; {_slowest(nb)})")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
