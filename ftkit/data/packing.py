"""Short rows share one long row, and none sees another.

Rows are put together by best fit (longest first, each into the fullest place that still takes it). Each keeps its own
positions from 0, from which the attention of Transformers models finds the borders, provided that the batch has no
attention mask and the model keeps no cache: `ftkit.training.collator` and `ftkit.loss` see to both. The first token of
each row is no target, because it would be predicted from the row before.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Literal

from ftkit.data.chat import IGNORE_INDEX
from ftkit.errors import ConfigError
from ftkit.models.loading import load_config

PACKABLE = ("llama", "llama4", "llama4_text", "qwen3", "qwen3_moe", "deepseek_v3", "gemma3", "gemma3_text")
"""Values of `config.model_type` whose attention keeps packed rows apart. DeepSeek-V3.2's sparse attention does not: its
indexer picks places across the borders."""


def check_packable(model_name: str) -> None:
    """
    Raises:
        ConfigError: the type of the model is not among `PACKABLE`.
    """
    if (model_type := load_config(model_name).model_type) not in PACKABLE:
        raise ConfigError(
            f"packing is not for {model_name} ({model_type}): its attention is not known to keep packed rows apart; "
            "set packing to False."
        )


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which rows share a place: indices into `lengths`, best fit decreasing.

    A place is filled to at most `capacity` tokens. With many rows at most 11/9 of the fewest places possible are used
    (Johnson, 1973); on the lengths of chat data it wastes a percent or two. Time is that of sorting the rows.

    Raises:
        ConfigError: a row is longer than `capacity`.
    """
    if too_long := sum(length > capacity for length in lengths):
        raise ConfigError(f"{too_long} rows are longer than the {capacity} tokens of a packed row; shorten them first.")
    packs: list[list[int]] = []
    by_space: dict[int, list[int]] = {}  # free tokens: a heap of the packs that have exactly so many
    spaces: list[int] = []  # the keys of by_space, ascending
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect_left(spaces, lengths[i])
        if at == len(spaces):
            pack, space = len(packs), capacity
            packs.append([])
        else:
            space = spaces[at]
            pack = heappop(by_space[space])
            if not by_space[space]:
                del by_space[space], spaces[at]
        packs[pack].append(i)
        space -= lengths[i]
        if space not in by_space:
            by_space[space] = []
            insort(spaces, space)
        heappush(by_space[space], pack)
    return packs


def join(rows: Sequence[dict[str, list[int]]]) -> dict[str, list[int]]:
    """One packed row: `input_ids`, `labels` and `position_ids`, which begin at 0 with each of `rows`."""
    return {
        "input_ids": [token for row in rows for token in row["input_ids"]],
        "labels": [label for row in rows for label in [IGNORE_INDEX, *row["labels"][1:]]],
        "position_ids": [position for row in rows for position in range(len(row["input_ids"]))],
    }


def fit(
    row: dict[str, list[int]], max_length: int, too_long: Literal["drop", "truncate"] = "drop"
) -> dict[str, list[int]] | None:
    """`row` where it has at most `max_length` tokens and something to learn, else None.

    Args:
        row: `input_ids` and `labels`.
        max_length: in tokens.
        too_long: "drop" leaves a longer row out; "truncate" cuts its end, and leaves it out where no target remains:
            what is cut then has no stop token, so the model learns the beginning of the answer and nothing false
            about its end.
    """
    if len(row["input_ids"]) > max_length:
        if too_long == "drop":
            return None
        row = {key: values[:max_length] for key, values in row.items()}
    targets = row["labels"][1:]
    return row if targets.count(IGNORE_INDEX) < len(targets) else None
