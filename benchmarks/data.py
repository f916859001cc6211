"""Rows per second and peak memory of data preparation, beside the guide's listing and datatrove's MinHash.

    python benchmarks/data.py --guide guide.md

Rows are made of words of the embedded model's vocabulary, drawn by Zipf's law: 18 to 65 words a row, one row in twenty
a copy of an earlier one with one to five words changed. Every measurement runs in a process of its own, with two worker
processes, and its result is in the result file as soon as it is there. The sides take turns: `--rounds` times each,
up to 100,000 rows, and a ratio is given for every round.

Preparation is timed from `run_pipeline`'s start to its end, imports and the loading of the tokenizer left out on both
sides. The listing is extracted from the file that `--guide` names and executed as it is written, but for the name of
the model. It looks for exact duplicates alone, so ftkit runs a second time with `near_duplicate_threshold=None`: that
is the comparison on the same work. The listing pads every row to 2,048 tokens, 25 kB on disk, twice: `--guide-sizes`
says up to where that is bearable.

Peak memory is the anonymous memory of a process and its workers together, asked every 50 ms: pages of memory-mapped
files are left out, because the system takes them back when it needs them. The largest resident size of one process,
which counts them, is reported beside it. Asking takes a third of one core from a large process, so that memory is
measured in a run that is not timed.

Near-duplicates are compared as pairs. A pair counts as true where the Jaccard similarity of its texts' character
5-grams is at least 0.8; recall is over the planted pairs of that kind, precision over the pairs that a tool reports.
datatrove compares word 5-grams, which a changed word changes more of, so recall is also given over the planted pairs
that are 0.8 alike by that measure. It runs with its defaults, but for words cut at spaces: the same words on these
rows, and faster than its tokenizer for English.
"""

import argparse
import json
import os
import platform
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

import numpy as np
from machine import processor

PROCESSES = 2
THRESHOLD = 0.8
PACKAGES = ("ftkit", "datasets", "transformers", "tokenizers", "rensa", "datatrove", "pyarrow", "numpy")


def write_rows(path: Path, count: int) -> None:
    """`count` instruction rows, the same for the same count, and the planted pairs as (earlier, later) beside them."""
    from ftkit.models.loading import load_tokenizer

    rng = random.Random(0)
    vocabulary = load_tokenizer("embedded").get_vocab()
    begins = [token[1:] for token in sorted(vocabulary, key=vocabulary.get) if token.startswith("Ġ")]
    words = [word for word in begins if word.isascii() and word.isalpha()]
    weights = list(accumulate(1 / (rank + 10) for rank in range(len(words))))
    answers: list[dict] = []
    pairs = []
    with path.open("w") as file:
        for number in range(count):
            asked, answered = (
                rng.choices(words, cum_weights=weights, k=rng.randint(*bounds)) for bounds in ((8, 25), (10, 40))
            )
            row = {"instruction": " ".join(asked), "output": " ".join(answered)}
            if number % 20 == 19:
                earlier = rng.randrange(len(answers))
                place, row = answers[earlier]["place"], answers[earlier]["row"]
                answered = row["output"].split()
                for _ in range(rng.randint(1, 5)):
                    answered[rng.randrange(len(answered))] = rng.choice(words)
                row = row | {"output": " ".join(answered)}
                pairs.append((place, number))
            elif number % 20 == 0:
                answers = [*answers[-1000:], {"place": number, "row": row}]
            file.write(json.dumps(row) + "\n")
    path.with_suffix(".pairs.json").write_text(json.dumps(pairs))


def prepare_with_ftkit(rows: Path, folder: Path, threshold: float | None):
    from ftkit import DataConfig, DataPreparationPipeline

    pipeline = DataPreparationPipeline(DataConfig(num_proc=PROCESSES, near_duplicate_threshold=threshold), False)
    return lambda: {"kept": sum(map(len, pipeline.run_pipeline(rows, folder / "out").values()))}


def prepare_with_guide(rows: Path, folder: Path, guide: str):
    from ftkit.models import embedded

    listings = re.findall(r"```python\n(.*?)```", Path(guide).read_text(encoding="utf-8"), re.DOTALL)
    source = next(listing for listing in listings if "class DataPreparationPipeline" in listing)
    listing = {"__name__": "guide"}
    exec(compile(source, guide, "exec"), listing)
    config = listing["DataConfig"](model_name=str(embedded.folder()), num_proc=PROCESSES)
    pipeline = listing["DataPreparationPipeline"](config)
    columns = {"instruction_col": "instruction", "response_col": "output"}
    return lambda: {"kept": sum(map(len, pipeline.run_pipeline(str(rows), str(folder / "out"), **columns).values()))}


def texts_of(rows: Path) -> list[str]:
    with rows.open() as file:
        return [f"{row['instruction']}\n{row['output']}" for row in map(json.loads, file)]


def pairs_by_ftkit(rows: Path, folder: Path):
    from ftkit.data.duplicates import near_duplicates

    texts = texts_of(rows)
    return lambda: quality(
        near_duplicates(lambda at: [texts[i] for i in at], len(texts), threshold=THRESHOLD).tolist(), rows, texts
    )


def pairs_by_datatrove(rows: Path, folder: Path):
    import xxhash
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets, MinhashDedupSignature
    from datatrove.utils.logging import logger
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Spaces(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    logger.remove()
    texts = texts_of(rows)
    signatures, found = str(folder / "signatures"), folder / "found"

    def hash_words(text: str) -> int:
        return xxhash.xxh64_intdigest(text.encode())

    def documents(data, rank, world_size):
        for i in range(rank, len(texts), world_size):
            yield Document(texts[i], str(i))

    def run():
        signature = MinhashDedupSignature(signatures, language=Spaces())
        signature._hash_func = hash_words  # its own hands a str to xxhash, which takes bytes alone since its version 4
        signing = [documents, signature]
        buckets = [MinhashDedupBuckets(signatures, str(found))]
        for name, steps, tasks in (("sign", signing, PROCESSES), ("buckets", buckets, 14)):
            LocalPipelineExecutor(
                steps, tasks, PROCESSES, logging_dir=str(folder / "logs" / name), start_method="fork"
            ).run()
        made = [np.fromfile(file, dtype="<u4").reshape(-1, 4) for file in found.glob("*.dups")]
        made = np.unique(np.concatenate(made).astype(np.int64), axis=0)
        # document d of task r is text d * PROCESSES + r
        return quality((made[:, [1, 3]] * PROCESSES + made[:, [0, 2]]).tolist(), rows, texts)

    return run


def quality(pairs: list[list[int]], rows: Path, texts: list[str]):
    """Recall and precision of the pairs that were found; a function, so that it is not timed."""

    def measured() -> dict[str, float]:
        found = {tuple(sorted(pair)) for pair in pairs}
        planted = [tuple(pair) for pair in json.loads(rows.with_suffix(".pairs.json").read_text())]
        near = {pair for pair in planted if jaccard(*(characters(texts[i]) for i in pair)) >= THRESHOLD}
        by_words = {pair for pair in planted if jaccard(*(five_words(texts[i]) for i in pair)) >= THRESHOLD}
        true = sum(pair in near or jaccard(*(characters(texts[i]) for i in pair)) >= THRESHOLD for pair in found)
        return {
            "planted": len(near),
            "found": len(found),
            "recall": len(found & near) / len(near),
            "precision": true / max(len(found), 1),
            "planted_by_words": len(by_words),
            "recall_by_words": len(found & by_words) / max(len(by_words), 1),
        }

    return measured


def characters(text: str) -> set[str]:
    text = " ".join(text.casefold().split())
    return {text[i : i + 5] for i in range(max(1, len(text) - 4))}


def five_words(text: str) -> set[tuple[str, ...]]:
    words = text.casefold().split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b)


SIDES = {
    "ftkit": lambda rows, folder, guide: prepare_with_ftkit(rows, folder, THRESHOLD),
    "ftkit, same work": lambda rows, folder, guide: prepare_with_ftkit(rows, folder, None),
    "guide": prepare_with_guide,
    "near-duplicates, ftkit": lambda rows, folder, guide: pairs_by_ftkit(rows, folder),
    "near-duplicates, datatrove": lambda rows, folder, guide: pairs_by_datatrove(rows, folder),
}


class Memory(threading.Thread):
    """The largest sum of the anonymous memory of this process and of all that come from it, in MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.peak = max(self.peak, sum(map(anonymous, family())) / 1024)


def family() -> list[int]:
    """This process and its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it has ended
    found = [os.getpid()]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def anonymous(process: int) -> int:
    """Proportional anonymous memory in kB: what a forked worker shares with its parent counts once."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return int(match.group(1)) if (match := re.search(r"Pss_Anon:\s+(\d+)", text)) else 0


def one(side: str, rows: Path, folder: Path, guide: str, watch: bool) -> None:
    run = SIDES[side](rows, folder, guide)
    memory = Memory()
    if watch:
        memory.start()
    started = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - started
    result = result() if callable(result) else result
    if not watch:
        print(json.dumps({"seconds": seconds, **result}))
        return
    memory.over.set()
    memory.join()
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"peak_mib": memory.peak, "largest_process_mib": largest / 1024}))


def measure(side: str, rows: Path, guide: str, timeout: float, watch: bool) -> dict:
    with tempfile.TemporaryDirectory(prefix="ftkit-bench-") as folder:
        cache = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{folder}/cache", "TMPDIR": folder}
        command = [sys.executable, __file__, "--one", side, "--rows", str(rows), "--folder", folder, "--guide", guide]
        command += ["--watch"] if watch else []
        try:
            done = subprocess.run(
                command, env=os.environ | cache, capture_output=True, text=True, timeout=timeout, check=True
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {timeout:.0f} s"}
        except subprocess.CalledProcessError as error:
            return {"failed": error.stderr.strip().splitlines()[-1][:300]}
        return json.loads(done.stdout.strip().splitlines()[-1])


def summary(runs: list[dict]) -> dict:
    """Exponents of time against rows, ratios of memory and of speed, from what has been measured."""
    times: dict[tuple[str, int], list[float]] = {}
    peaks: dict[tuple[str, int], float] = {}
    for run in runs:
        if "seconds" in run:
            times.setdefault((run["side"], run["rows"]), []).append(run["seconds"])
        if "peak_mib" in run:
            peaks[run["side"], run["rows"]] = run["peak_mib"]
    made: dict = {
        "exponent": {},
        "memory_of_largest_over_middle": {},
        "speed_over_guide": {},
        "speed_over_datatrove": {},
    }
    for side in SIDES:
        sizes = sorted(rows for name, rows in times if name == side)
        if len(sizes) > 1:
            medians = [np.median(times[side, rows]) for rows in sizes]
            made["exponent"][side] = float(np.polyfit(np.log(sizes), np.log(medians), 1)[0])
        sizes = sorted(rows for name, rows in peaks if name == side)
        if len(sizes) > 1:
            made["memory_of_largest_over_middle"][side] = peaks[side, sizes[-1]] / peaks[side, sizes[-2]]
    for name, ours, theirs in (
        ("speed_over_guide", "ftkit, same work", "guide"),
        ("speed_over_datatrove", "near-duplicates, ftkit", "near-duplicates, datatrove"),
    ):
        for side, rows in times:
            if side == theirs and (ours, rows) in times:
                rounds = zip(times[theirs, rows], times[ours, rows], strict=False)
                ratios = sorted(their / our for their, our in rounds)
                made[name][str(rows)] = {"median": float(np.median(ratios)), "rounds": ratios}
    return made


def save(path: Path, results: dict) -> None:
    results["summary"] = summary(results["runs"])
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(results, indent=2) + "\n")
    os.replace(beside, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--guide", default="", help="file that holds the guide; without it ftkit is measured alone")
    parser.add_argument("--guide-sizes", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--pair-sizes", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each side, up to 100,000 rows")
    parser.add_argument("--timeout", type=float, default=900, help="seconds that one measurement may take")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results/data.json")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    for hidden in ("--rows", "--folder"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.rows, options.folder, options.guide, options.watch)
        return
    machine = {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    versions = {name: version(name) for name in PACKAGES}
    results = {"machine": machine, "versions": versions, "processes": PROCESSES, "runs": []}
    chosen = [(size, ("ftkit", "ftkit, same work")) for size in options.sizes]
    chosen += [(size, ("guide",)) for size in options.guide_sizes if options.guide and size in options.sizes]
    chosen += [(size, ("near-duplicates, ftkit", "near-duplicates, datatrove")) for size in options.pair_sizes]
    todo = []
    for size in sorted({size for size, _ in chosen}):
        sides = sorted(side for some, names in chosen if some == size for side in names)
        todo += [(size, side, True) for side in sides]
        todo += [(size, side, False) for _ in range(options.rounds if size <= 100_000 else 1) for side in sides]
    with tempfile.TemporaryDirectory(prefix="ftkit-bench-rows-") as folder:
        for number, (size, side, watch) in enumerate(todo, start=1):
            rows = Path(folder) / f"{size}.jsonl"
            if not rows.exists():
                write_rows(rows, size)
            what = "memory" if watch else "time"
            print(f"[{number}/{len(todo)}] {what} of {side}, {size:,} rows", file=sys.stderr, flush=True)
            run = {"side": side, "rows": size, **measure(side, rows, options.guide, options.timeout, watch)}
            if "seconds" in run:
                run["rows_per_second"] = size / run["seconds"]
            results["runs"].append(run)
            save(options.output, results)
            print(f"    {json.dumps(run)}", file=sys.stderr, flush=True)
    print(json.dumps(results["summary"], indent=2))


if __name__ == "__main__":
    main()
