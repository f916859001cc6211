"""A folder that `ftkit prepare` wrote, read back."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.data.duplicates import exact_keys
from ftkit.data.sources import METADATA_FILE
from ftkit.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def vocabulary_key(tokenizer: "PreTrainedTokenizerBase") -> str:
    """A fingerprint of the vocabulary: ids of one tokenizer mean nothing to a model with another."""
    return f"{exact_keys([json.dumps(sorted(tokenizer.get_vocab().items()))])[0]:016x}"


def metadata(folder: str | Path) -> dict[str, Any]:
    """What `metadata.json` of a prepared folder holds; see `DataPreparationPipeline.metadata`."""
    return json.loads((Path(folder) / METADATA_FILE).read_text(encoding="utf-8"))


def prepared_rows(
    rows: Iterable[dict[str, Any]], tokenizer: "PreTrainedTokenizerBase", folder: str | Path | None
) -> list[dict[str, list[int]]]:
    """The token rows of a prepared split: `input_ids`, `labels` and, where they are packed, `position_ids`.

    Args:
        folder: the prepared folder that the rows come from; None where that is not known, and nothing is checked.

    Raises:
        DataError: the folder was prepared with another vocabulary than that of `tokenizer`.
    """
    made = metadata(folder) if folder is not None else None
    if made and made["vocabulary"] != vocabulary_key(tokenizer):
        raise DataError(
            f"{folder} was prepared for {made['model_name']}, whose vocabulary is another than that of "
            f"{tokenizer.name_or_path or 'the model'}; prepare the data again with this model."
        )
    names = ("input_ids", "labels", "position_ids")
    return [{name: row[name] for name in names if name in row} for row in rows]
