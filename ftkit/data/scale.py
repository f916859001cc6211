"""The preparation past one machine: the steps of `DataPreparationPipeline` as pipelines of datatrove.

    from functools import partial
    from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor

    local = partial(LocalPipelineExecutor, workers=8)
    executors(local, "rows", "prepared", DataConfig(), work_dir="work", tasks=64).run()

    slurm = partial(SlurmPipelineExecutor, time="08:00:00", partition="cpu", mem_per_cpu_gb=4)
    executors(slurm, "/shared/rows", "/shared/prepared", DataConfig(), work_dir="/shared/work", tasks=500).run()

The first runs here and in the tests; the second, on a cluster whose nodes share these folders, was not run by the
authors. Either gives the rows that `DataPreparationPipeline.run_pipeline` gives for the same source and settings, in
the same order: the work is divided by files (name them `train-00000-of-00100.jsonl` and so on), and what must see all
rows at once runs as one task: which of two duplicates stays, on fingerprints of 250 bytes a row, and the splits, with
the n-grams of the held-out rows in memory. A run that was interrupted goes on where it stopped, because datatrove keeps
in `work_dir` which tasks are done.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ftkit.data import batches, table
from ftkit.data.cleaning import row_text
from ftkit.data.config import DataConfig
from ftkit.data.decontamination import holding
from ftkit.data.duplicates import BANDS, first_of_each, kept_and_groups, similar_pairs
from ftkit.data.pipeline import DataPreparationPipeline, check_settings
from ftkit.data.readers import read_file
from ftkit.data.sources import Report, files_of, usable
from ftkit.data.splits import held_out_first
from ftkit.errors import DataError, MissingDependency
from ftkit.folders import refuse_to_overwrite

try:
    from datatrove.data import Document
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.filters.base_filter import BaseFilter
except ImportError:
    raise MissingDependency("preparing data with datatrove needs it; run: pip install 'ftkit[scale]'") from None

if TYPE_CHECKING:
    from datasets import Dataset
    from datatrove.executor.base import PipelineExecutor


def executors(
    executor: "Callable[..., PipelineExecutor]",
    source: str | Path,
    output_dir: str | Path,
    config: DataConfig,
    *,
    work_dir: str | Path,
    tasks: int,
) -> "PipelineExecutor":
    """The last of five executors, each of which depends on the one before: its `run` runs them all.

    Args:
        executor: datatrove's class with what it needs beside `pipeline`, `tasks`, `depends` and `logging_dir`.
        source: a file, or a folder with a file or parts for each split.
        output_dir: must not exist or be empty; it appears only when it is whole.
        config: the settings; `num_proc` is for the last task, which makes the splits, every other being one process.
        work_dir: for what is in between, and datatrove's logs; shared by all machines. Name a new one for other data or
            other settings.
        tasks: into how many the reading and the encoding are divided; more than there are files is of no use to the
            reading.

    Raises:
        ConfigError: `output_dir` is not empty, or the rows are to be packed for a model that would mix them.
        DataError: `source` holds no files of rows, or the test set `config.decontaminate` is not whole.
    """
    refuse_to_overwrite(output_dir)
    check_settings(config)
    source, work = Path(source), Path(work_dir)
    by_split = {"train": [source]} if source.is_file() else files_of(source) if source.is_dir() else {}
    files = [(split, str(file)) for split, some in by_split.items() for file in some]
    if not files:
        raise DataError(f"{source} is neither a file nor a folder of files.")
    task = Task()
    reading = [
        ReadRows(files, task, strict=config.on_error == "raise"),
        CleanRows(config),
        FilterRows(config, task),
        WriteRows(work, config, task),
    ]
    near = config.near_duplicate_threshold is not None
    stages: list[tuple[str, list[PipelineStep], int]] = [
        ("rows", reading, min(tasks, len(files))),
        *([("pairs", [FindPairs(work, config)], min(tasks, BANDS))] if near else []),
        ("duplicates", [ChooseRows(work, config)], 1),
        ("tokens", [EncodeRows(work, config)], tasks),
        ("prepared", [SaveSplits(work, config, Path(output_dir))], 1),
    ]
    last = None
    for name, steps, count in stages:
        last = executor(pipeline=steps, tasks=count, depends=last, logging_dir=str(work / "logs" / name))
    return last


class Task:
    """What the steps of one task share: the `report` on its rows."""

    def __init__(self) -> None:
        self.report = Report()


class ReadRows(PipelineStep):
    """Documents from files of rows: `text` is what a row says, `id` where it stands, and `metadata` holds the `row` in
    the messages format, its `split` and the number of its `file`. Broken rows are counted."""

    type, name = "📖 - READER", "ftkit rows"

    def __init__(self, files: list[tuple[str, str]], task: Task, strict: bool) -> None:
        super().__init__()
        self.files, self.task, self.strict = files, task, strict

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        report = self.task.report = Report()  # one process may run several tasks
        for number in range(rank, len(self.files), world_size):
            split, file = self.files[number]
            for where, row in usable(read_file(Path(file)), report, strict=self.strict):
                yield Document(row_text(row), where, metadata={"row": row, "split": split, "file": number})
        rows = report.formats.total()  # those that could be used, whatever became of them since
        self.stat_update("rows", value=rows)
        self.stat_update("broken", value=report.read - rows)


class CleanRows(PipelineStep):
    """`ftkit.data.cleaning.clean_row`, and the system prompt of the settings."""

    type, name = "✂️ - FORMAT", "ftkit clean"

    def __init__(self, config: DataConfig) -> None:
        super().__init__()
        self.config = config

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            document.metadata["row"] = batches.cleaned(document.metadata["row"], self.config.system_prompt)
            document.text = row_text(document.metadata["row"])
            yield document


class FilterRows(BaseFilter):
    """`ftkit.data.cleaning.quality_problem`, and rows without an answer."""

    name = "ftkit quality"

    def __init__(self, config: DataConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task = config, task

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        problem = batches.problem(doc.metadata["row"], self.config)
        if problem is None:
            return True
        self.task.report.drop(problem, doc.text)
        return False, problem.replace(" ", "_")


class WriteRows(PipelineStep):
    """One table for each file of the source, with the fingerprints of its rows."""

    type, name = "💽 - WRITER", "ftkit table"

    def __init__(self, work: Path, config: DataConfig, task: Task) -> None:
        super().__init__()
        self.work, self.config, self.task = work, config, task

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> None:
        for number, documents in groupby(data, key=lambda document: document.metadata["file"]):
            _save(self.work / "rows" / f"{number:06d}.arrow", self._tables(documents))
        _write_report(self.work / "reports" / f"rows-{rank:06d}.json", self.task.report)

    def _tables(self, documents: Iterator[Document]):
        near = self.config.near_duplicate_threshold is not None
        for batch in table.row_tables((d.metadata["split"], d.id, d.metadata["row"]) for d in documents):
            printed = batches.fingerprint(batch, near=near, seed=self.config.seed, text_column="text")
            yield batches.replaced(batch, {name: printed[name] for name in printed.column_names})


class FindPairs(PipelineStep):
    """Pairs of near-duplicates, each task in some bands of the signatures."""

    type, name = "🫂 - DEDUP", "ftkit near-duplicates"

    def __init__(self, work: Path, config: DataConfig) -> None:
        super().__init__()
        self.work, self.config = work, config

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        rows, order = _rows(self.work)
        rows_at = table.rows_at(rows)
        signed = table.numbers(rows, "signature")[order]

        def texts_at(indices) -> list[str]:
            return [row_text(row) for row in rows_at(order[np.asarray(indices)])]

        bands = range(rank, BANDS, world_size)
        threshold = self.config.near_duplicate_threshold
        pairs = similar_pairs(texts_at, signed, threshold=threshold, bands=bands)
        _save_array(self.work / "pairs" / f"{rank:06d}.npy", pairs)


class ChooseRows(PipelineStep):
    """Which rows stay and which belong into one split, from the fingerprints and pairs of all. Of those that stay, what
    holds a text of the test set `config.decontaminate` is left out."""

    type, name = "🫂 - DEDUP", "ftkit duplicates"

    def __init__(self, work: Path, config: DataConfig) -> None:
        super().__init__()
        self.work, self.config = work, config

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        rows, order = _rows(self.work)
        same, prompt = (first_of_each(table.numbers(rows, name)[order]) for name in ("whole", "question"))
        found = [np.load(file) for file in sorted((self.work / "pairs").glob("*.npy"))]
        pairs = np.unique(np.concatenate([np.empty((0, 2), dtype=np.int64), *found]), axis=0)
        keep, group = kept_and_groups(same, prompt, pairs, self.config.deduplicate)
        report = Report()
        for i in np.flatnonzero(~keep):
            reason = "exact duplicate" if same[i] != i else "near-duplicate"
            shown = row_text(table.restore(rows[int(order[i])])) if report.shows(reason) else ""
            report.drop(reason, shown)
            self.stat_update(reason)
        if self.config.decontaminate is not None:
            kept = np.flatnonzero(keep)
            for i, unit in holding(rows.select(order[kept]), self.config.decontaminate):
                keep[kept[i]] = False
                report.drop("overlaps the test set", unit)
        _save_array(self.work / "kept" / "rows.npy", order[keep])
        _save_array(self.work / "kept" / "group.npy", group[keep])
        _write_report(self.work / "reports" / "duplicates.json", report)


class EncodeRows(PipelineStep):
    """Encoded, each task a stretch of the rows that stayed."""

    type, name = "🔢 - TOKENIZER", "ftkit encode"

    def __init__(self, work: Path, config: DataConfig) -> None:
        super().__init__()
        self.work, self.config = work, config

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        rows, _ = _rows(self.work)
        kept, group = (np.load(self.work / "kept" / f"{name}.npy") for name in ("rows", "group"))
        mine = np.array_split(np.arange(len(kept)), world_size)[rank]
        pipeline = DataPreparationPipeline(DataConfig(**asdict(self.config) | {"num_proc": 1}), progress=False)
        groups = np.full(len(rows), -1)  # a column for the whole table, because one for chosen rows would copy them
        groups[kept] = group
        dataset = rows.add_column("group", groups).select(kept[mine])
        dataset = pipeline.tokenize_dataset(dataset)
        if len(dataset):
            _save(self.work / "tokens" / f"{rank:06d}.arrow", table.stretches(dataset))
        counts = {"prefix_violations": pipeline.mismatches, "turns_left_out": pipeline.turns_left_out}
        _write_report(self.work / "reports" / f"tokens-{rank:06d}.json", pipeline.report, **counts)


class SaveSplits(PipelineStep):
    """The prepared folder, with the report of all tasks."""

    type, name = "💽 - WRITER", "ftkit splits"

    def __init__(self, work: Path, config: DataConfig, output: Path) -> None:
        super().__init__()
        self.work, self.config, self.output = work, config, output

    def run(self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1) -> None:
        pipeline = DataPreparationPipeline(self.config, progress=False)
        for file in sorted((self.work / "reports").glob("*.json")):
            made = json.loads(file.read_text(encoding="utf-8"))
            pipeline.mismatches += made.get("prefix_violations", 0)
            pipeline.turns_left_out += made.get("turns_left_out", 0)
            pipeline.report.add(made)
        tokens = _tables(self.work / "tokens")
        if tokens is None:
            raise DataError(f"no training row is left: {pipeline.report}")
        pipeline.finish(tokens, self.output)


def _rows(work: Path) -> "tuple[Dataset, np.ndarray]":
    """The rows of all files, memory-mapped, and the order in which the pipeline looks at them."""
    rows = _tables(work / "rows")
    if rows is None:
        raise DataError("the source holds no usable row; `reports` in the work folder says why.")
    order = held_out_first(rows)
    return rows, np.arange(len(rows)) if order is None else order


def _tables(folder: Path) -> "Dataset | None":
    from datasets import Dataset, concatenate_datasets

    files = sorted(folder.glob("*.arrow"))
    return concatenate_datasets([Dataset.from_file(str(file)) for file in files]) if files else None


def _save(path: Path, tables) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    table.save(beside, tables)
    os.replace(beside, path)


def _save_array(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    with beside.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    os.replace(beside, path)


def _write_report(path: Path, report: Report, **counts: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(report.as_dict() | counts, ensure_ascii=False), encoding="utf-8")
    os.replace(beside, path)
