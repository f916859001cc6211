"""Where rows come from: a shipped task, files, a folder of them, tables in memory, the hub, or a prepared folder.

`load_data` is strict: the first broken row is an error. `read` hands out what can be read, and counts the rest.
"""

import re
from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.data import table
from ftkit.data.formats import BrokenRow, from_table, not_utf8, recognise, to_messages
from ftkit.data.parallel import in_order
from ftkit.data.readers import PACKED, SUFFIXES, Located, Stretch, read_file, stretches, suffix_of
from ftkit.errors import DataError, near_matches

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict
    from pandas import DataFrame

SPLITS = ("train", "validation", "test")
_MEANT = dict.fromkeys(("val", "valid", "dev", "eval"), "validation") | {"training": "train", "testing": "test"}
"""Other names of splits: a file of such a name is not passed over in silence."""
BUILTIN = ("tickets",)
"""Tasks whose data ships with ftkit."""
METADATA_FILE = "metadata.json"
"""Written last into a prepared folder: its presence says that the folder is whole."""
EXAMPLES_KEPT = 5
_FOLDERS = re.compile(r"^.*[/\\](?=[^/\\]+, (line|row) \d)")


@dataclass
class Report:
    """What became of the rows: always `read == kept + sum(dropped.values())`.

    Attributes:
        read: rows met.
        kept: rows left.
        dropped: rows left out, by reason.
        formats: rows by the format they were recognised as; see `ftkit.data.formats.FORMATS`.
        examples: for each reason the first few rows left out: where they stand or how they begin.
    """

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, example: str, *, was_kept: bool = True) -> None:
        """Count one row out; `was_kept` says whether it had been counted as kept before."""
        self.kept -= was_kept
        self.dropped[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES_KEPT:
            shown.append(example[:200])

    def shows(self, reason: str) -> bool:
        """Whether there is room for one more example of `reason`."""
        return len(self.examples.get(reason, [])) < EXAMPLES_KEPT

    def add(self, other: dict[str, Any]) -> None:
        """Add what another report's `as_dict` holds."""
        self.read += other["read"]
        self.kept += other["kept"]
        self.dropped.update(other["dropped"])
        self.formats.update(other["formats"])
        for reason, examples in other["examples"].items():
            self.examples[reason] = [*self.examples.get(reason, []), *examples][:EXAMPLES_KEPT]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, for JSON."""
        return vars(self) | {"dropped": dict(self.dropped), "formats": dict(self.formats)}

    def __str__(self) -> str:
        reasons = "".join(
            f"\n  {count:,} {reason}: {_line(self.examples[reason][0])}" for reason, count in self.dropped.most_common()
        )
        formats = ", ".join(f"{count:,} {name}" for name, count in self.formats.most_common())
        left_out = f", {sum(self.dropped.values()):,} left out" if self.dropped else ""
        of_which = f" ({formats})" if formats else ""
        return f"{self.read:,} rows read{of_which}, {self.kept:,} kept{left_out}{reasons}"


def _line(example: str) -> str:
    """An example in a line of at most 80 characters: a file without its folders, nothing that acts on a terminal."""
    text = " ".join(_FOLDERS.sub("", example).split())
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return text if len(text) <= 80 else f"{text[:79]}…"


def load_data(source: "str | Path | DataFrame | Dataset | DatasetDict") -> "dict[str, list[dict[str, Any]] | Dataset]":
    """Read `source` into `{split: rows}`, every row in the messages format, or plain `text`.

    Args:
        source: a shipped task (`"tickets"`); a folder with `train.jsonl` and, where there are any, `validation.jsonl`
            and `test.jsonl` (also .json, .csv, .parquet, and .gz or .zst behind), or a split's parts, named
            `train-00000-of-00010.jsonl` and so on; one such file, which becomes the split `train`; a pandas DataFrame,
            a `datasets.Dataset` or `DatasetDict`; a data set's name on the hub; or a folder that `ftkit prepare` wrote,
            whose splits come memory-mapped, with `input_ids` and `labels`. All others are held in memory as lists: more
            rows than fit there are for `ftkit prepare`.

    Raises:
        DataError: the source does not exist, holds no rows, or a row of it is broken; the text names file and line.
    """
    if is_prepared(source):
        from datasets import load_from_disk

        return dict(load_from_disk(str(source)))
    return {split: _strict(located) for split, located in locate(source).items()}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one file, in the messages format.

    Raises:
        DataError: with the file and the line (of .parquet: the row) at fault.
    """
    return _strict((str(path), read_file(Path(path))))


def read(
    source: Any, report: Report, *, columns: dict[str, str] | None = None, strict: bool = False
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The rows of `source` as (split, where, row), broken ones left out and counted in `report`.

    Args:
        source: as in `load_data`, but for a prepared folder.
        report: filled while the rows are read.
        columns: as in `ftkit.data.formats.to_messages`.
        strict: raise at the first broken row instead.
    """
    for split, (_, rows) in locate(source).items():
        yield from ((split, where, row) for where, row in usable(rows, report, columns=columns, strict=strict))


def usable(
    rows: Iterable[Located], report: Report, *, columns: dict[str, str] | None = None, strict: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows that can be used as (where, row); for the arguments see `read`."""
    for where, row in rows:
        report.read += 1
        try:
            if isinstance(row, BrokenRow):
                raise row
            made = to_messages(row, where, columns)
        except BrokenRow as error:
            if strict:
                raise
            report.drop(error.reason, str(error), was_kept=False)
            continue
        report.kept += 1
        report.formats["columns" if columns else recognise(row)] += 1
        yield where, made


def in_stretches(source: Any) -> list[tuple[str, Path, Stretch]] | None:
    """A source in parts that can be read apart, (split, file, stretch of its lines), in order; None where it is made of
    anything but .jsonl files that are not compressed.

    Raises:
        DataError: as in `locate`.
    """
    found = _files(source) if isinstance(source, str | Path) else None
    if found is None or not all(path.name.lower().endswith(".jsonl") for paths in found.values() for path in paths):
        return None
    return [(split, path, some) for split, paths in found.items() for path in paths for some in stretches(path)]


def read_apart(
    parts: list[tuple[str, Path, Stretch]],
    report: Report,
    processes: int,
    *,
    columns: dict[str, str] | None = None,
    strict: bool = False,
) -> "Iterator[pa.Table]":
    """The rows of `in_stretches` as tables of `ftkit.data.table.write`, read in so many processes; else as `read`."""

    def made(part: tuple[str, Path, Stretch]) -> "tuple[pa.Table, dict[str, Any]]":
        (split, path, stretch), counted = part, Report()
        rows = usable(read_file(path, stretch), counted, columns=columns, strict=strict)
        return table.of_rows([(split, where, row) for where, row in rows]), counted.as_dict()

    for one, counted in in_order(made, parts, processes):
        report.add(counted)
        yield one


def is_prepared(source: Any) -> bool:
    """Whether `source` is a folder that `ftkit prepare` finished."""
    return isinstance(source, str | Path) and all(
        (Path(source) / name).is_file() for name in (METADATA_FILE, "dataset_dict.json")
    )


def locate(source: Any) -> dict[str, tuple[str, Iterator[Located]]]:
    """`{split: (name of the file or table, its rows)}` of a source, nothing read yet but its kind."""
    if not isinstance(source, str | Path):
        return _tables(source)
    if (found := _files(source)) is not None:
        return {split: _chained(paths) for split, paths in found.items()}
    path = Path(source)
    if _may_be_hub_name(str(source)):
        return _hub(str(source))
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(
        f"{path} does not exist; give a file ({', '.join(SUFFIXES)}), a folder that holds train.jsonl, a data set of "
        f"the hub (owner/name), or one of {', '.join(BUILTIN)}.{near_matches(path.name, [*BUILTIN, *beside])}"
    )


def _files(source: str | Path) -> dict[str, list[Path]] | None:
    """The files of each split of a shipped task, a file or a folder; None where it is none of them."""
    if str(source) in BUILTIN:
        root = files("ftkit.data") / "builtin" / str(source)
        return {split: [Path(str(root / f"{split}.jsonl"))] for split in SPLITS}
    path = Path(source)
    if path.is_file():
        return {"train": [path]}
    return files_of(path) if path.is_dir() else None


def _chained(paths: list[Path]) -> tuple[str, Iterator[Located]]:
    return " and ".join(map(str, paths)), chain.from_iterable(map(read_file, paths))


def files_of(folder: Path) -> dict[str, list[Path]]:
    """The files of each split: `train.jsonl`, or parts as the hub names them, `train-00000-of-00010.jsonl`, in order.

    Raises:
        DataError: there are none, or a split has files that are not parts of one.
    """
    found: dict[str, list[Path]] = {}
    for split in SPLITS:
        named = [
            path
            for path in sorted(folder.iterdir())
            if path.is_file()
            and suffix_of(path) in SUFFIXES
            and re.fullmatch(rf"{split}(-[^.]*)?", path.name.lower().split(".")[0])
        ]
        if len(named) > 1 and any(path.name.lower().split(".")[0] == split for path in named):
            raise DataError(
                f"{folder} holds {' and '.join(p.name for p in named)}: keep one file a split, or its parts."
            )
        if named:
            found[split] = named
    for path in sorted(folder.iterdir()):
        meant = _MEANT.get(path.name.lower().split(".")[0])
        if meant and meant not in found and suffix_of(path) in SUFFIXES:
            raise DataError(f"{path} would not be read; name it {meant}{''.join(path.suffixes)}.")
    if not found:
        raise DataError(
            f"{folder} holds none of train.jsonl, validation.jsonl and test.jsonl (or {', '.join(SUFFIXES[1:])}, also "
            f"with {' or '.join(PACKED)} behind); name its files so."
        )
    return found


def _strict(located: tuple[str, Iterator[Located]]) -> list[dict[str, Any]]:
    name, rows = located
    made = []
    for where, row in rows:
        if isinstance(row, BrokenRow):
            raise row
        made.append(to_messages(row, where))
    if not made:
        raise DataError(f"{name} is empty; it must hold at least one row.")
    return made


def _tables(source: Any) -> dict[str, tuple[str, Iterator[Located]]]:
    from datasets import Dataset, DatasetDict
    from pandas import DataFrame

    if isinstance(source, DataFrame):
        return {"train": ("the DataFrame", _frame_rows(source))}
    if isinstance(source, Dataset):
        return {"train": ("the Dataset", _dataset_rows(source))}
    if isinstance(source, DatasetDict):
        return {split: (f"the split {split}", _dataset_rows(rows)) for split, rows in _known("the DatasetDict", source)}
    if isinstance(source, list):
        return {"train": ("the list", _numbered(source))}
    raise DataError(
        f"rows cannot be read from a {type(source).__name__}; give a path, a name, a DataFrame, a Dataset, a "
        "DatasetDict or a list of rows."
    )


def _frame_rows(frame: "DataFrame") -> Iterator[Located]:
    # The index is no column of the table, whatever it is called.
    names = [str(name) for name in frame.columns]
    for number, cells in enumerate(frame.itertuples(index=False, name=None), start=1):
        yield f"row {number}", from_table(dict(zip(names, cells, strict=True)))


def _dataset_rows(dataset: "Dataset") -> Iterator[Located]:
    number = 0
    while number < len(dataset):
        try:
            for row in dataset.select(range(number, len(dataset))) if number else dataset:
                number += 1
                yield f"row {number}", from_table(row)
        except UnicodeDecodeError:  # which ends the loop over the others too
            number += 1
            yield f"row {number}", not_utf8(f"row {number}")


def _numbered(rows: list[Any]) -> Iterator[Located]:
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _may_be_hub_name(name: str) -> bool:
    owner, slash, rest = name.partition("/")
    plain = all(part and part.replace("-", "").replace("_", "").replace(".", "").isalnum() for part in (owner, rest))
    return bool(slash) and plain and not owner.startswith(".") and Path(rest).suffix.lower() not in (*SUFFIXES, *PACKED)


def _hub(name: str) -> dict[str, tuple[str, Iterator[Located]]]:
    from datasets import load_dataset

    try:
        splits = load_dataset(name)
    except Exception as error:  # the hub's, the HTTP client's and the file formats' errors have no common class
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name} is neither a file nor a folder, and the hub did not give it: {reason}") from None
    return {split: (f"{name}, {split}", _dataset_rows(rows)) for split, rows in _known(name, splits)}


def _known(name: str, splits: "DatasetDict") -> "ItemsView[str, Dataset]":
    if others := [split for split in splits if split not in SPLITS]:
        raise DataError(
            f"{name} has the splits {', '.join(splits)}; {' and '.join(others)} would be lost: give a DatasetDict with "
            f"splits named {', '.join(SPLITS)}, or one split alone."
        )
    return splits.items()
