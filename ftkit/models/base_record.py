"""What an adapter says about the base that it was trained on, so that it is never put on another one in silence.

PEFT records a name, and a name may stand for other weights tomorrow. Beside it ftkit keeps how the base was loaded and
a few of its numbers.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftkit.errors import ModelError
from ftkit.models.quantized import Quantization, settings_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = "ftkit_base.json"
ROWS, COLUMNS = 16, 4
"""Numbers of the embedding that are kept."""
TOLERANCE = 2**-7
"""Relative difference that precision can make: bfloat16 rounds by up to 2**-9, and so may the load that is compared."""


@dataclass(frozen=True)
class BaseRecord:
    """A base model at the moment when an adapter was attached.

    Attributes:
        model_type: its architecture.
        dtype: precision of the load.
        quantization: how it was held in 4 bits; None where it was not.
        embedding: some numbers of its input embedding.
    """

    model_type: str
    dtype: str
    quantization: Quantization | None
    embedding: tuple[float, ...]

    def check(self, model: "PreTrainedModel", folder: str | Path) -> None:
        """
        Raises:
            ModelError: `model` is not the base that the adapter in `folder` was trained on.
        """
        if model.config.model_type != self.model_type:
            found = f"its architecture is {model.config.model_type}, not {self.model_type}"
        elif not _near(self.embedding, found := _numbers(model)):
            off = max(abs(a - b) for a, b in zip(self.embedding, found, strict=True))
            found = f"its embedding differs, by {off:.2g} in the numbers that are compared"
        else:
            return
        raise ModelError(
            f"The adapter in {folder} was trained on another base than {model.name_or_path} is now: {found}. "
            f"Load the base it was trained on; to use it on this one all the same, remove {FILE}."
        )


def of(model: "PreTrainedModel") -> BaseRecord:
    """The record of a base, before an adapter moves it."""
    dtype = str(model.dtype).removeprefix("torch.")
    return BaseRecord(model.config.model_type, dtype, settings_of(model), _numbers(model))


def write(record: BaseRecord, folder: str | Path) -> None:
    """Write it into an adapter's folder."""
    beside = Path(folder) / f".{FILE}"
    beside.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    os.replace(beside, Path(folder) / FILE)


def read(folder: str | Path) -> BaseRecord | None:
    """The record of an adapter's folder; None where it has none, as one that PEFT alone saved."""
    try:
        found = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
        packed = found.pop("quantization")
        embedding = tuple(found.pop("embedding"))
        return BaseRecord(**found, embedding=embedding, quantization=Quantization(**packed) if packed else None)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{Path(folder) / FILE} is no record of a base ({error}); remove it, or train again."
        ) from None


def _numbers(model: "PreTrainedModel") -> tuple[float, ...]:
    """Numbers spread over the first 256 rows of the embedding, which no method moves and no load quantises."""
    weight = model.get_input_embeddings().weight.detach()
    rows, width = min(256, len(weight)), weight.shape[1]
    some = weight[:rows][:: max(1, rows // ROWS)][:ROWS, :: max(1, width // COLUMNS)][:, :COLUMNS]
    return tuple(some.float().flatten().tolist())


def _near(kept: tuple[float, ...], found: tuple[float, ...]) -> bool:
    return len(kept) == len(found) and all(
        abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) for a, b in zip(kept, found, strict=True)
    )
