r"""The training loss: cross-entropy at trained positions only, in chunks, weighted by token.

For hidden states :math:`h_t` of a causal model, labels :math:`y_t` (``-100`` where a position is not trained) and the
output head :math:`f`, with :math:`T = \{t : y_{t+1} \neq -100\}`,

.. math:: L = \frac{1}{N} \sum_{t \in T} -\log \mathrm{softmax}(f(h_t))_{y_{t+1}}

where :math:`N` is the number of trained tokens of the whole optimizer step (all micro-batches and ranks). The stock
forward of a Transformers model computes logits for every position, prompt and padding included, and keeps them in fp32:
with a vocabulary of 128k that is most of a step's memory. Here the head sees only the positions in :math:`T`.
"""

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

IGNORE_INDEX = -100
"""Label of a position that is not trained: padding, prompt, and everything after the stop token."""

CHUNK_TOKENS = 512
"""Trained positions whose logits exist at once: 512 x 128,256 x 4 bytes is 263 MB for the largest common vocabulary."""


def causal_lm_loss(
    hidden_states: torch.Tensor,
    labels: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    num_items_in_batch: torch.Tensor | int | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> torch.Tensor:
    """Sum of the trained tokens' negative log-likelihoods, divided by `num_items_in_batch`.

    Args:
        hidden_states: (batch, sequence, hidden), the last layer's output.
        labels: (batch, sequence), not shifted; `labels[:, t]` is predicted from `hidden_states[:, t - 1]`.
        head: maps (tokens, hidden) to (tokens, vocabulary) logits.
        num_items_in_batch: the denominator; `None` means the trained tokens of this batch, `1` gives the sum.
        chunk_tokens: logits held at once; beyond one chunk, each is recomputed in the backward pass.

    Returns:
        A scalar in fp32; 0 with a graph when nothing is trained, so that a backward pass stays possible.
    """
    targets = labels[:, 1:].reshape(-1)
    trained = targets != IGNORE_INDEX
    hidden = hidden_states[:, :-1].reshape(-1, hidden_states.shape[-1])[trained]
    targets = targets[trained]
    if not targets.numel():
        return hidden_states.sum().float() * 0.0
    if num_items_in_batch is None:
        num_items_in_batch = targets.numel()

    def nll(hidden_chunk, target_chunk):
        return nn.functional.cross_entropy(head(hidden_chunk).float(), target_chunk, reduction="sum")

    chunks = list(zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True))
    if len(chunks) == 1:
        return nll(hidden, targets) / num_items_in_batch
    return sum(checkpoint(nll, h, y, use_reentrant=False) for h, y in chunks) / num_items_in_batch


def _head_of(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The output head with the final soft cap that some Gemma models apply to their logits."""
    head = model.get_output_embeddings()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return head if cap is None else lambda hidden: torch.tanh(head(hidden) / cap) * cap


@contextmanager
def trained_positions_only(model: nn.Module) -> Iterator[None]:
    """Within the block, `model(..., labels=...)` returns `{"loss": causal_lm_loss}` and no logits.

    `model` is the causal model itself (of a PEFT model: `get_base_model()`). The loss stands inside its `forward`, so
    that the hooks of DDP and FSDP, which fire on `forward`, see all of it. Calls without labels are not changed.
    """
    if getattr(model.config.get_text_config(), "output_router_logits", False):
        raise ValueError("output_router_logits adds a loss of the router that is not computed here; set it to False")
    original, head = model.forward, _head_of(model)
    # Some classes (Llama 4's text model) declare a prefix that they do not use.
    body = getattr(model, model.base_model_prefix, None) or model.model

    @functools.wraps(original)
    def forward(self, *args, labels=None, num_items_in_batch=None, **kwargs):
        if labels is None:
            return original(*args, **kwargs)
        hidden = body(*args, **{**kwargs, "use_cache": False}).last_hidden_state
        return {"loss": causal_lm_loss(hidden, labels, head, num_items_in_batch)}

    model.forward = types.MethodType(forward, model)
    try:
        yield
    finally:
        del model.forward
