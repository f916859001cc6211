"""The beginning that all prompts share, read once: its keys and values are copied into every batch.

Prompts of one task share a system prompt and an instruction, often most of their tokens. A batch that is padded on the
left has in the first P columns of a row with k pads these pads and then the first P - k tokens of the prefix; those are
the columns that are copied, and the rest is read as usual. Positions and masks are then those of the batch without it.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, PreTrainedModel

SHORTEST = 16
"""Tokens below which a shared prefix is not worth a forward pass of its own."""


@dataclass(frozen=True)
class SharedPrefix:
    """`length` tokens with their keys and values, one pair (1, heads, length, head_dim) a layer."""

    length: int
    layers: list[tuple["torch.Tensor", "torch.Tensor"]]

    def cache(self, attention_mask: "torch.Tensor") -> "DynamicCache":
        """The cache of a batch's first `length` columns, left-padded or whole; `attention_mask` is (batch, width)."""
        from transformers import DynamicCache

        pads = (attention_mask[:, : self.length] == 0).sum(dim=1).tolist()
        cache = DynamicCache()
        for index, pair in enumerate(self.layers):
            filled = [x.new_zeros(len(pads), *x.shape[1:]) for x in pair]
            for target, source in zip(filled, pair, strict=True):
                for row, pad in enumerate(pads):
                    target[row, :, pad:] = source[0, :, : self.length - pad]
            cache.update(*filled, index)
        return cache


def shared_prefix(model: "PreTrainedModel", prompts: list[list[int]]) -> SharedPrefix | None:
    """The prefix that all `prompts` share, short of the last token of the shortest; None where it is too short, or
    where the model's cache is not keys and values of all positions (sliding windows, states, an indexer)."""
    import torch
    from transformers.cache_utils import DynamicLayer

    prefix = os.path.commonprefix([prompt[:-1] for prompt in prompts])
    if len(prompts) < 2 or len(prefix) < SHORTEST:
        return None
    out = model(input_ids=torch.tensor([prefix], device=model.device), use_cache=True, logits_to_keep=1)
    layers = getattr(getattr(out, "past_key_values", None), "layers", None)
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return None
    return SharedPrefix(len(prefix), [(layer.keys, layer.values) for layer in layers])
