"""`DataPreparationPipeline`: rows of any source become token rows with masks, in splits, in a folder for training."""

import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, DatasetDict, disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

from ftkit.data import batches, table
from ftkit.data.cleaning import clean_text, row_text
from ftkit.data.config import DataConfig
from ftkit.data.decontamination import conversations, holding, kept_apart, leaking, test_set
from ftkit.data.duplicates import first_of_each, kept_and_groups, similar_pairs
from ftkit.data.formats import named_columns, to_messages
from ftkit.data.packing import best_fit, check_packable, join
from ftkit.data.parallel import few_collections, in_order
from ftkit.data.pieces import Encoder
from ftkit.data.prepared import vocabulary_key
from ftkit.data.readers import STRETCH
from ftkit.data.sources import METADATA_FILE, SPLITS, Report, in_stretches, read, read_apart
from ftkit.data.splits import grouped_split, held_out_first, split_numbers
from ftkit.errors import DataError
from ftkit.folders import refuse_to_overwrite
from ftkit.models.families import FAMILIES
from ftkit.models.loading import load_config, load_tokenizer

if TYPE_CHECKING:
    import pyarrow as pa
    from pandas import DataFrame
    from tqdm.std import tqdm
    from transformers import PreTrainedTokenizerBase

_BATCH = 1000
_ROWS_A_PROCESS = 2500


class DataPreparationPipeline:
    """Prepare data for fine-tuning: read, clean, deduplicate, filter, encode, split, save.

        pipeline = DataPreparationPipeline(DataConfig(model_name="tiny-qwen3"))
        splits = pipeline.run_pipeline("rows.jsonl", "prepared")
        print(pipeline.report)

    Args:
        config: the settings.
        progress: draw bars on stderr.

    Between the steps the rows stand in a memory-mapped table in a temporary folder, which is removed with the object.
    `report` counts what became of each row that was read: `read == kept + dropped`, by reason and with examples;
    `mismatches` counts trained turns whose prompt was no exact prefix (see `ftkit.data.chat.Encoded`), and
    `turns_left_out` rows of one turn that did not fit, of conversations that gave others.
    """

    def __init__(self, config: DataConfig, progress: bool = True) -> None:
        self.config = config
        self.progress = progress
        self.report = Report()
        self.mismatches = self.turns_left_out = 0
        self.tokenizer = self._load_tokenizer()
        self.model_family = self._detect_model_family()
        self._made = 0

    def _load_tokenizer(self) -> "PreTrainedTokenizerBase":
        return load_tokenizer(self.config.model_name)

    def _detect_model_family(self) -> str:
        """The family by `config.model_type`, never by a piece of the name; "unknown" where ftkit has no entry for it:
        the chat template is the tokenizer's own in any case."""
        known = (family.name for family in FAMILIES if self._model_type in family.model_types)
        return next(known, "unknown")

    @cached_property
    def _model_type(self) -> str:
        return load_config(self.config.model_name).model_type

    @cached_property
    def _work(self) -> tempfile.TemporaryDirectory:
        return tempfile.TemporaryDirectory(prefix="ftkit-data-")

    def load_data(
        self,
        source: "str | Path | DataFrame | Dataset | DatasetDict",
        text_column: str = "text",
        instruction_column: str | None = None,
        response_column: str | None = None,
        system_column: str | None = None,
    ) -> Dataset:
        """Read a source into a table of conversations; the format of each row is recognised and counted.

        Args:
            source: as in `ftkit.data.load_data`.
            text_column: column of plain text; a name other than "text" says that the rows are plain text.
            instruction_column, response_column, system_column: columns of instruction rows under names of their own.

        Returns:
            Columns `split`, `where` (file and line), `messages`, `tools`, `text`; see `ftkit.data.table`.

        Raises:
            DataError: the source does not exist or holds no usable row, or, under `on_error="raise"`, a row is broken.
        """
        columns = named_columns(text_column, instruction_column, response_column, system_column)
        before = self.report.kept
        parts = in_stretches(source) if self.config.num_proc > 1 else None
        options = {"columns": columns, "strict": self.config.on_error == "raise"}
        if parts:
            tables = read_apart(parts, self.report, self._processes(len(parts) * STRETCH), **options)
        else:
            tables = table.row_tables(read(source, self.report, **options))
        file = self._file("rows")
        with self._bar("reading") as bar, few_collections():
            table.save(file, _shown(bar, tables))
        dataset = Dataset.from_file(str(file))
        if self.report.kept == before:
            raise DataError(f"{_name(source)} holds no usable row: {self.report}")
        return dataset

    def clean_text(self, text: str) -> str:
        """See `ftkit.data.cleaning.clean_text`: newlines, code and every script stay."""
        return clean_text(text)

    def deduplicate(self, dataset: Dataset, text_column: str = "text") -> Dataset:
        """Remove exact and near-duplicates, and mark in a column `group` what must stay in one split.

        The first of a set of duplicates stays; of rows in several splits, the one of the test split, then validation.
        A row of one prompt with another, or alike without being removed, shares its group.
        """
        order = held_out_first(dataset)
        if order is not None:
            dataset = dataset.select(order)
        count = len(dataset)
        rows_at = table.rows_at(dataset, text_column)
        if not count:
            return dataset

        def texts_at(indices) -> list[str]:
            return [row_text(row) for row in rows_at(indices)]

        threshold, near = self.config.near_duplicate_threshold, self.config.near_duplicate_threshold is not None
        arguments = {"near": near, "seed": self.config.seed, "text_column": text_column}
        printed = dataset
        if "whole" not in dataset.column_names:
            printed = self._map(dataset, batches.fingerprint, "comparing", **arguments)
        same, prompt = (first_of_each(table.numbers(printed, name)) for name in ("whole", "question"))
        pairs = np.empty((0, 2), dtype=np.int64)
        if near:
            pairs = similar_pairs(texts_at, table.numbers(printed, "signature"), threshold=threshold)
        keep, group = kept_and_groups(same, prompt, pairs, self.config.deduplicate)
        for i in np.flatnonzero(~keep):
            reason = "exact duplicate" if same[i] != i else "near-duplicate"
            self.report.drop(reason, texts_at([int(i)])[0] if self.report.shows(reason) else "")
        spent = [name for name in ("group", "whole", "question", "signature") if name in dataset.column_names]
        dataset = dataset.remove_columns(spent)
        with self._bars():
            return dataset.add_column("group", group).select(np.flatnonzero(keep))

    def decontaminate(self, dataset: Dataset, text_column: str = "text") -> Dataset:
        """Leave out of every split what holds a text of the test set `config.decontaminate`, by the measure of
        `ftkit.data.duplicates.contaminated`. The table's own held-out rows are the business of `create_splits`."""
        if self.config.decontaminate is None:
            return dataset
        keep = np.ones(len(dataset), dtype=bool)
        for i, unit in holding(dataset, self.config.decontaminate, text_column):
            keep[i] = False
            self.report.drop("overlaps the test set", unit)
        return dataset if keep.all() else dataset.select(np.flatnonzero(keep))

    def quality_filter(self, dataset: Dataset, text_column: str = "text") -> Dataset:
        """Leave out rows without an answer, and, unless the setting is off, those that
        `ftkit.data.cleaning.quality_problem` objects to."""
        if not len(dataset):
            return dataset
        if "problem" in dataset.column_names:  # `run_pipeline` asked while it cleaned
            return self._drop_problems(dataset, dataset, text_column).remove_columns("problem")
        judged = self._map(dataset, batches.judge, "filtering", config=self.config, text_column=text_column)
        return self._drop_problems(dataset, judged, text_column)

    def format_instruction(self, instruction: str, response: str | None, system_prompt: str | None = None) -> str:
        """One exchange in the model's chat format, as text: the tokenizer's own template, no other.

        Raises:
            DataError: the response is empty or None.
        """
        row = to_messages(
            {"instruction": instruction, "response": response, "system": system_prompt or self.config.system_prompt}
        )
        return self.tokenizer.apply_chat_template(row["messages"], tokenize=False, enable_thinking=False)

    def process_instruction_dataset(
        self,
        dataset: Dataset,
        instruction_col: str = "instruction",
        response_col: str = "response",
        system_col: str | None = None,
    ) -> Dataset:
        """A table of conversations from columns; `input` is added to the instruction where there is such a column, and
        rows without an answer are left out and counted."""
        columns = named_columns("text", instruction_col, response_col, system_col)
        if "messages" in dataset.column_names and instruction_col not in dataset.column_names:
            return dataset  # `load_data` recognised the format already
        rows = read(dataset, self.report, columns=columns, strict=self.config.on_error == "raise")
        return table.write(self._file("rows"), rows)

    def tokenize_dataset(self, dataset: Dataset, text_column: str = "text") -> Dataset:
        """Ids and labels of every row, as long as the row is; a row that does not fit is left out and counted.

        Returns:
            `input_ids`, `labels`, the conversation as `messages`, `tools` and `text`, and of `split`, `where` and
            `group` what the table had. Where the template rewrites earlier turns, a conversation becomes several rows.
        """
        carried = [name for name in ("split", "where", "group") if name in dataset.column_names]
        if not len(dataset):
            return dataset
        encoded = self._map(
            dataset,
            batches.encode,
            "encoding",
            encoder=Encoder(self.tokenizer),
            config=self.config,
            text_column=text_column,
            carried=carried,
        )
        self.mismatches += int(table.numbers(encoded, "mismatches").sum())
        self.turns_left_out += int(table.numbers(encoded, "turns_left_out").sum())
        encoded, problems = encoded.remove_columns(["mismatches", "turns_left_out", "problem"]), encoded
        return self._drop_problems(encoded, problems, "text")

    def create_splits(self, dataset: Dataset) -> DatasetDict:
        """Train, validation and test, shuffled under the seed; rows of one `group` stay in one split.

        No training row holds a prompt or an answer of a held-out row, by the measure of the doctor: rows that would are
        kept on one side (`ftkit.data.decontamination.kept_apart`), nothing is lost, and the splits may come out smaller
        than their shares. A table that has rows of another split than train keeps its splits: what was held out is not
        trained on, even where no training row is left. What overlaps then leaves the training rows, and the validation
        rows for the sake of the test, and is counted.
        """
        side = split_numbers(dataset)
        compared = bool({"messages", "text"} & set(dataset.column_names))
        if side.any():
            rng = np.random.default_rng(self.config.seed)
            order = np.concatenate([rng.permutation(np.flatnonzero(side == i)) for i in range(len(SPLITS))])
            out = self._left_out(dataset, side) if compared else np.zeros(len(dataset), dtype=bool)
            order = order[~out[order]]
        else:
            has_group = "group" in dataset.column_names and len(dataset)
            group = table.numbers(dataset, "group") if has_group else np.arange(len(dataset))
            c = self.config
            shares = dict(zip(SPLITS, (c.train_split, c.val_split, c.test_split), strict=True))
            chosen = list(grouped_split(group, shares, c.seed).values())
            order = np.concatenate(chosen)
            side[order] = np.repeat(np.arange(len(SPLITS)), list(map(len, chosen)))
            if compared:
                side = kept_apart(dataset, side, group, processes=self._processes(len(dataset)))
        return DatasetDict({split: dataset.select(order[side[order] == i]) for i, split in enumerate(SPLITS)})

    def _left_out(self, dataset: Dataset, side: np.ndarray) -> np.ndarray:
        """Rows that `leaking` names, (rows,) bool; their conversations counted."""
        out = leaking(dataset, side)
        rows_at, reason = table.rows_at(dataset), "overlaps a held-out row"
        for i in np.unique(conversations(dataset, side)[out]).tolist():
            self.report.drop(reason, row_text(rows_at([i])[0]) if self.report.shows(reason) else "")
        return out

    def pack(self, dataset: Dataset) -> Dataset:
        """Rows of `max_seq_length` tokens that hold several of the table's: `input_ids`, `labels`, `position_ids`.

        Raises:
            ConfigError: the model's attention would let packed rows see each other.
        """
        check_packable(self.config.model_name)
        packs = best_fit(table.lengths(dataset, "input_ids").tolist(), self.config.max_seq_length)
        order = dataset.select_columns(["input_ids", "labels"]).select([i for pack in packs for i in pack])

        def packed():
            at = 0
            for pack in packs:
                part = order[at : at + len(pack)]
                at += len(pack)
                yield join([dict(zip(part, row, strict=True)) for row in zip(*part.values(), strict=True)])

        # A name of our own spares datasets the hashing of all the rows; Colab's datasets does not take one yet.
        named = "fingerprint" in inspect.signature(Dataset.from_generator).parameters
        name = {"fingerprint": self._file("packed").stem} if named else {}
        return Dataset.from_generator(packed, cache_dir=self._work.name, **name)

    def run_pipeline(
        self,
        source: "str | Path | DataFrame | Dataset | DatasetDict",
        output_dir: str | Path = "./processed_data",
        instruction_col: str | None = None,
        response_col: str | None = None,
        text_col: str = "text",
        system_col: str | None = None,
    ) -> DatasetDict:
        """All steps, and the splits with `metadata.json` in `output_dir`, which appears only when it is whole.

        Args:
            source: as in `ftkit.data.load_data`.
            output_dir: must not exist or be empty.
            instruction_col, response_col, system_col, text_col: columns with names of their own; without them the
                format is recognised.

        Raises:
            ConfigError: `output_dir` is not empty, or the rows are to be packed for a model that would mix them.
            DataError: nothing usable was read, no training row is left, or the test set `config.decontaminate` is not
                whole.
        """
        refuse_to_overwrite(output_dir)
        check_settings(self.config)
        self.report, self.mismatches, self.turns_left_out = Report(), 0, 0
        dataset = self.load_data(source, text_col, instruction_col, response_col, system_col)
        dataset = self._map(dataset, batches.look_over, "cleaning", config=self.config, text_column="text")
        dataset = self.quality_filter(dataset)
        dataset = self.deduplicate(dataset)
        dataset = self.decontaminate(dataset)
        return self.finish(self.tokenize_dataset(dataset), output_dir)

    def finish(self, dataset: Dataset, output_dir: str | Path) -> DatasetDict:
        """The last step of `run_pipeline`: a table of token rows, split, packed where the settings say so, and saved.

        Raises:
            DataError: no training row is left.
        """
        output = Path(output_dir).resolve()
        with few_collections():
            splits = self.create_splits(dataset)
        if not len(splits["train"]):
            raise DataError(f"no training row is left: {self.report}")
        inner = [name for name in ("split", "group") if name in dataset.column_names]
        splits = splits.remove_columns(inner)
        if self.config.packing:
            splits["train"] = self.pack(splits["train"])
        self._save(splits, output)
        saved = DatasetDict.load_from_disk(str(output))
        return DatasetDict({split: saved.get(split, rows) for split, rows in splits.items()})

    def metadata(self, splits: DatasetDict) -> dict[str, Any]:
        """What `metadata.json` holds: the model, the sizes, the settings and what became of every row."""
        return {
            "model_name": self.config.model_name,
            "model_family": self.model_family,
            "max_seq_length": self.config.max_seq_length,
            "train_size": len(splits["train"]),
            "val_size": len(splits["validation"]),
            "test_size": len(splits["test"]),
            "vocabulary": vocabulary_key(self.tokenizer),
            "prefix_violations": self.mismatches,
            "turns_left_out": self.turns_left_out,
            "config": asdict(self.config),
            "rows": self.report.as_dict(),
        }

    def _save(self, splits: DatasetDict, output: Path) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
        try:
            with self._bars():
                # A split without rows would be saved as one that cannot be loaded.
                DatasetDict({split: rows for split, rows in splits.items() if len(rows)}).save_to_disk(str(beside))
            made = json.dumps(self.metadata(splits), indent=2, ensure_ascii=False)
            (beside / METADATA_FILE).write_text(made + "\n", encoding="utf-8")
            beside.chmod(0o755)
            os.replace(beside, output)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _drop_problems(self, dataset: Dataset, problems: Dataset, text_column: str) -> Dataset:
        """Rows without a problem; the others counted."""
        kept = np.ones(len(dataset), dtype=bool)
        at = 0
        for part in table.stretches(problems, ["problem"]):
            column = part["problem"].combine_chunks()
            for i in np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)):
                kept[at + i] = False
                problem, row = column[int(i)].as_py(), [at + int(i)]
                shown = row_text(table.rows_at(dataset, text_column)(row)[0]) if self.report.shows(problem) else ""
                self.report.drop(problem, shown)
            at += len(column)
        return dataset if kept.all() else dataset.select(np.flatnonzero(kept))

    def _map(self, dataset: Dataset, function: Callable, what: str, **arguments) -> Dataset:
        """The tables that `function` makes of the table's batches, one after the other."""
        file, rows = self._file(what), dataset.with_format("arrow")
        parts = [range(start, min(start + _BATCH, len(dataset))) for start in range(0, max(len(dataset), 1), _BATCH)]

        def made(part: range) -> bytes:
            return table.to_bytes(function(rows[part.start : part.stop], **arguments))

        with self._bar(what, total=len(dataset)) as bar, few_collections():
            tables = map(table.from_bytes, in_order(made, parts, self._processes(len(dataset))))
            table.save(file, _shown(bar, tables, map(len, parts)))
        return Dataset.from_file(str(file))

    def _processes(self, rows: int) -> int:
        """As many as are worth their start."""
        return min(self.config.num_proc, os.cpu_count() or 1, rows // _ROWS_A_PROCESS)

    @contextmanager
    def _bars(self) -> Iterator[None]:
        hide = not self.progress and is_progress_bar_enabled()
        if hide:
            disable_progress_bars()
        try:
            yield
        finally:
            if hide:
                enable_progress_bars()

    def _bar(self, what: str, total: int | None = None) -> "tqdm":
        from tqdm.std import tqdm

        return tqdm(total=total, desc=what, unit="row", disable=not self.progress)

    def _file(self, what: str) -> Path:
        self._made += 1
        return Path(self._work.name) / f"{self._made:02}-{what}.arrow"


def check_settings(config: DataConfig) -> None:
    """Ask before the long work what else would be found after it.

    Raises:
        ConfigError: the rows are to be packed for a model that would mix them.
        DataError: the test set `config.decontaminate` is not whole.
    """
    if config.packing:
        check_packable(config.model_name)
    if config.decontaminate is not None:
        test_set(config.decontaminate)


def _shown(bar: "tqdm", tables: "Iterable[pa.Table]", counts: Iterable[int] | None = None) -> "Iterator[pa.Table]":
    """The tables, each counted on the bar when it comes: by its own rows, or by those it was made of."""
    counts = None if counts is None else iter(counts)
    for made in tables:
        bar.update(len(made) if counts is None else next(counts))
        yield made


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__}"
