"""A folder that `ftkit prepare` wrote, read back."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.data.duplicates import exact_keys
from ftkit.data.sources import METADATA_FILE
from ftkit.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

TOKEN_COLUMNS = ("input_ids", "labels", "position_ids")
"""What of a prepared row is trained on; the last in packed rows alone."""


def vocabulary_key(tokenizer: "PreTrainedTokenizerBase") -> str:
    """A fingerprint of the vocabulary: ids of one tokenizer mean nothing to a model with another."""
    ids = tokenizer.get_vocab()
    return f"{exact_keys([chr(0).join([str(sorted(ids.values())), *sorted(ids, key=ids.__getitem__)])])[0]:016x}"


def metadata(folder: str | Path) -> dict[str, Any]:
    """What `metadata.json` of a prepared folder holds; see `DataPreparationPipeline.metadata`."""
    return json.loads((Path(folder) / METADATA_FILE).read_text(encoding="utf-8"))


def prepared_rows(
    rows: "Dataset | Iterable[dict[str, Any]]", tokenizer: "PreTrainedTokenizerBase", folder: str | Path | None
) -> "Dataset | list[dict[str, list[int]]]":
    """The token rows of a prepared split: `input_ids`, `labels` and, where they are packed, `position_ids`.

    Args:
        rows: the split, as `load_data` gives it: memory-mapped, and then so is the result; or any token rows.
        folder: the prepared folder that the rows come from; None where that is not known, and nothing is checked.

    Raises:
        DataError: the folder was prepared with another vocabulary than that of `tokenizer`.
    """
    from datasets import Dataset

    made = metadata(folder) if folder is not None else None
    if made and made["vocabulary"] != vocabulary_key(tokenizer):
        raise DataError(
            f"{folder} was prepared for {made['model_name']}, whose vocabulary is another than that of "
            f"{tokenizer.name_or_path or 'the model'}; prepare the data again with this model."
        )
    if isinstance(rows, Dataset):
        return rows.select_columns([name for name in TOKEN_COLUMNS if name in rows.column_names])
    return [{name: row[name] for name in TOKEN_COLUMNS if name in row} for row in rows]
