r"""The training loss: cross-entropy at trained positions only, in chunks, weighted by token.

For hidden states :math:`h_t` of a causal model, labels :math:`y_t` (``-100`` where a position is not trained) and the
output head :math:`f`, with :math:`T = \{t : y_{t+1} \neq -100\}`,

.. math:: L = \frac{1}{N} \sum_{t \in T} -\log \mathrm{softmax}(f(h_t))_{y_{t+1}}

where :math:`N` is the number of trained tokens of the whole optimizer step (all micro-batches and ranks). The stock
forward of a Transformers model computes logits for every position, prompt and padding included, and keeps them in fp32:
with a vocabulary of 128k that is most of a step's memory. Here the head sees only the positions in :math:`T`, a chunk
of them at a time, and a chunk's logits become their own gradient before the next chunk's are made:

.. math:: \frac{\partial L}{\partial z_{tv}} = \frac{1}{N} \left( \mathrm{softmax}(z_t)_v - [v = y_{t+1}] \right)

What the forward pass leaves for the backward pass is the gradient of the hidden states and of the head, no logits.
"""

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd.function import once_differentiable

IGNORE_INDEX = -100
"""Label of a position that is not trained: padding, prompt, and everything after the stop token."""

CHUNK_LOGITS = 2**24
"""Logits that exist at once, 64 MiB in fp32: 128 positions of a vocabulary of 131,072, 341 of one of 49,152. Smaller
chunks save little more and leave the head's multiplication too narrow to be fast; see benchmarks/loss.py."""

SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier", "output_multiplier")
"""Names under which configurations (of Granite, Cohere, Falcon H1, ...) keep a factor of the logits."""


def causal_lm_loss(
    hidden_states: torch.Tensor,
    labels: torch.Tensor,
    head: nn.Module,
    num_items_in_batch: torch.Tensor | int | None = None,
    *,
    softcap: float | None = None,
    chunk_tokens: int | None = None,
) -> torch.Tensor:
    """Sum of the trained tokens' negative log-likelihoods, divided by `num_items_in_batch`.

    Args:
        hidden_states: (batch, sequence, hidden), the last layer's output.
        labels: (batch, sequence), not shifted; `labels[:, t]` is predicted from `hidden_states[:, t - 1]`.
        head: maps (tokens, hidden) to (tokens, vocabulary) logits; has `out_features`, as `nn.Linear` does.
        num_items_in_batch: the denominator; `None` means the trained tokens of this batch, `1` gives the sum.
        softcap: bound c of the logits z where the model has one: c tanh(z / c) takes their place.
        chunk_tokens: positions whose logits exist at once; default `CHUNK_LOGITS` over the size of the vocabulary.

    Returns:
        A scalar in fp32; 0 with a graph when nothing is trained, so that a backward pass stays possible.
    """
    targets = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX).flatten()
    trained = (targets != IGNORE_INDEX).nonzero().squeeze(1)
    hidden, targets = hidden_states.flatten(0, 1).index_select(0, trained), targets[trained]
    chunk_tokens = chunk_tokens or max(1, CHUNK_LOGITS // head.out_features)
    parameters = [p for p in head.parameters() if p.requires_grad]
    if torch.is_grad_enabled() and (hidden.requires_grad or parameters):
        total = _SummedNLL.apply(hidden, targets, head, softcap, chunk_tokens, *parameters)
    else:
        chunks = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
        total = sum(
            nn.functional.cross_entropy(_logits(head, h, softcap).float(), y, reduction="sum") for h, y in chunks
        )
    return total / (max(1, targets.numel()) if num_items_in_batch is None else num_items_in_batch)


class _SummedNLL(torch.autograd.Function):
    """Sum of negative log-likelihoods, whose gradients are made in the forward pass while a chunk's logits exist.

    Recomputing the logits in the backward pass (`torch.utils.checkpoint`) needs as little memory and takes the head
    three multiplications instead of two.
    """

    @staticmethod
    def forward(ctx, hidden, targets, head, softcap, chunk_tokens, *parameters):
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden)
        # Summed over chunks in fp32 whatever the parameter's precision: a sum in bf16 would round at every chunk.
        grads = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
        pieces = (t.split(chunk_tokens) for t in (hidden, targets, hidden_grad))
        for h, y, h_grad in zip(*pieces, strict=True):
            total += _one_chunk(head, softcap, h, y, h_grad, parameters, grads)
        ctx.save_for_backward(hidden_grad, *grads)
        ctx.dtypes = [p.dtype for p in parameters]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, scale):
        # In place: what was made in the forward pass belongs to nobody else, and is handed on here.
        hidden_grad, *grads = (saved.mul_(scale) for saved in ctx.saved_tensors)
        return hidden_grad, None, None, None, None, *(g.to(d) for g, d in zip(grads, ctx.dtypes, strict=True))


def _one_chunk(head, softcap, hidden, targets, hidden_grad, parameters, grads) -> torch.Tensor:
    """The chunk's summed loss; its gradients are written into `hidden_grad` and added to `grads`."""
    with torch.enable_grad():
        hidden = hidden.detach().requires_grad_()
        logits = _logits(head, hidden, softcap)
    z = logits.detach().float()  # in fp32 the logits themselves, which no gradient below needs any more
    z -= z.amax(dim=-1, keepdim=True)
    right = z.gather(1, targets[:, None])
    norm = z.exp_().sum(dim=-1, keepdim=True)
    z /= norm
    z.scatter_add_(1, targets[:, None], torch.full_like(right, -1.0))
    gradient = z.to(logits.dtype)
    plain = type(head) is nn.Linear and softcap is None and parameters == (head.weight,)
    if plain and hidden.dtype == gradient.dtype == grads[0].dtype:
        # What autograd would do, without a second matrix as large as the head.
        grads[0].addmm_(gradient.T, hidden.detach())
        made = torch.autograd.grad(logits, [hidden], gradient)
    else:
        made = torch.autograd.grad(logits, [hidden, *parameters], gradient)
        for total, grad in zip(grads, made[1:], strict=True):
            total += grad
    hidden_grad.copy_(made[0])
    return (norm.log() - right).sum()


def _logits(head: nn.Module, hidden: torch.Tensor, softcap: float | None) -> torch.Tensor:
    logits = head(hidden)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def scaled_by(model: nn.Module) -> str | None:
    """Which of `SCALES` the model has; None where its logits are the head's own, as they must be here."""
    text = model.config.get_text_config()
    return next((name for name in SCALES if getattr(text, name, None) not in (None, 1)), None)


@contextmanager
def trained_positions_only(model: nn.Module) -> Iterator[None]:
    """Within the block, `model(..., labels=...)` returns `{"loss": causal_lm_loss}` and no logits.

    `model` is the causal model itself (of a PEFT model: `get_base_model()`). The loss stands inside its `forward`, so
    that the hooks of DDP and FSDP, which fire on `forward`, see all of it. Calls without labels are not changed.

    Raises:
        ValueError: the model's own loss or logits have a part that is not computed here.
    """
    original, text = model.forward, model.config.get_text_config()
    if getattr(text, "output_router_logits", False):
        raise ValueError("output_router_logits adds a loss of the router that is not computed here; set it to False")
    if (name := scaled_by(model)) is not None:
        raise ValueError(f"{name}={getattr(text, name)} scales this model's logits, which is not done here")
    softcap = getattr(text, "final_logit_softcapping", None)

    @functools.wraps(original)
    def forward(self, *args, labels=None, num_items_in_batch=None, **kwargs):
        if labels is None:
            return original(*args, **kwargs)
        # Looked up at every call: what shards or wraps a model may replace its parts. Some classes (Llama 4's text
        # model) declare a prefix that they do not use.
        body, head = getattr(self, self.base_model_prefix, None) or self.model, self.get_output_embeddings()
        hidden = body(*args, **{**kwargs, "use_cache": False}).last_hidden_state
        return {"loss": causal_lm_loss(hidden, labels, head, num_items_in_batch, softcap=softcap)}

    model.forward = types.MethodType(forward, model)
    try:
        yield
    finally:
        del model.forward
