"""Rows per second and peak memory of data preparation, beside the listing of the guide.

    python benchmarks/data.py --sizes 10000 100000 --guide guide.md --output benchmarks/results/data.json

Each measurement runs in a process of its own, on the same generated rows, with the tokenizer of the embedded model and
two processes. One row in twenty is a copy of the one before with one word changed. The guide's listing is extracted
from the file that `--guide` names and executed as it is written; without it ftkit is measured alone.
"""

import argparse
import json
import math
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

PROCESSES = 2


def write_rows(path: Path, count: int) -> None:
    """`count` instruction rows of 18 to 65 words, the same for the same count."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    before = None
    with path.open("w") as file:
        for number in range(count):
            row = {
                "instruction": " ".join(rng.choices(words, k=rng.randint(8, 25))),
                "output": " ".join(rng.choices(words, k=rng.randint(10, 40))),
            }
            if before and number % 20 == 0:
                answer = before["output"].split()
                answer[rng.randrange(len(answer))] = "changed"
                row = before | {"output": " ".join(answer)}
            file.write(json.dumps(row) + "\n")
            before = row


def run_ftkit(rows: str, folder: str) -> None:
    from ftkit import DataConfig, DataPreparationPipeline

    DataPreparationPipeline(DataConfig(num_proc=PROCESSES), progress=False).run_pipeline(rows, folder)


def run_guide(rows: str, folder: str, guide: str) -> None:
    from ftkit.models import embedded

    listings = re.findall(r"```python\n(.*?)```", Path(guide).read_text(encoding="utf-8"), re.DOTALL)
    source = next(listing for listing in listings if "class DataPreparationPipeline" in listing)
    listing = {"__name__": "guide"}
    exec(compile(source, guide, "exec"), listing)
    config = listing["DataConfig"](model_name=str(embedded.folder()), num_proc=PROCESSES)
    columns = {"instruction_col": "instruction", "response_col": "output"}
    listing["DataPreparationPipeline"](config).run_pipeline(rows, folder, **columns)


def measure(side: str, rows: Path, guide: str | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{folder}/cache"}
        command = [sys.executable, __file__, "--one", side, "--rows", str(rows), "--folder", f"{folder}/out"]
        done = subprocess.run([*command, "--guide", guide or ""], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout.strip().splitlines()[-1])


def one(side: str, rows: str, folder: str, guide: str) -> None:
    started = time.perf_counter()
    run_ftkit(rows, folder) if side == "ftkit" else run_guide(rows, folder, guide)
    seconds = time.perf_counter() - started
    peak = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": seconds, "peak_mib": peak[0], "largest_worker_peak_mib": peak[1]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--guide", default="")
    parser.add_argument("--output", type=Path)
    for hidden in ("--one", "--rows", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.rows, options.folder, options.guide)
        return
    results: dict = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("ftkit", "datasets", "transformers", "tokenizers", "rensa")},
        "processes": PROCESSES,
        "runs": [],
    }
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.jsonl"
            write_rows(rows, size)
            for side in ("ftkit", "guide") if options.guide else ("ftkit",):
                run = {"side": side, "rows": size, **measure(side, rows, options.guide)}
                run["rows_per_second"] = size / run["seconds"]
                results["runs"].append(run)
                print(run, file=sys.stderr)
    for side in {run["side"] for run in results["runs"]}:
        runs = [run for run in results["runs"] if run["side"] == side]
        if len(runs) > 1:
            first, last = runs[0], runs[-1]
            exponent = math.log(last["seconds"] / first["seconds"]) / math.log(last["rows"] / first["rows"])
            results.setdefault("exponent", {})[side] = exponent
    text = json.dumps(results, indent=2) + "\n"
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
