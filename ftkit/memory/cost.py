r"""Time and price of a run: operations per token, a share of the peak rate, and what an hour costs.

With :math:`N` weights that multiply a token, one forward pass takes :math:`2N` operations, the gradients of the
activations another :math:`2N`, those of the weights :math:`2N` where they train, and recomputation under checkpointing
:math:`2N` more: 6 or 8 times N for full fine-tuning, 4 or 6 for adapters. QLoRA does the same multiplications and must
also write its weights out in 16 bit for every pass.

LoRA on fused experts is no cheaper than full fine-tuning of them: PEFT adds BA to the weight, so that its gradient is
that of the whole weight.

The share of the peak rate that is reached (MFU) and the price are inputs: nobody knows them but who has the machine
and the bill. The pretraining of Llama 3 405B reached 0.38 to 0.43 on H100 (arXiv 2407.21783, section 3.3).
"""

from dataclasses import dataclass

from ftkit.errors import ConfigError
from ftkit.memory.catalogue import architecture
from ftkit.memory.estimator import Settings
from ftkit.memory.hardware import Accelerator, accelerator
from ftkit.memory.shapes import Architecture


@dataclass(frozen=True)
class Cost:
    """Predicted time and price.

    Attributes:
        tokens: that pass through the model, padding included.
        flops_per_token: forward and backward pass.
        hours: wall time on all GPUs together.
        dequantisation_hours: the part of `hours` in which QLoRA writes weights out in 16 bit.
        gpu_hours: hours times GPUs.
        price: gpu_hours times the hourly price; None where no price was given.
    """

    tokens: int
    flops_per_token: float
    hours: float
    dequantisation_hours: float
    gpu_hours: float
    price: float | None


def flops_per_token(a: Architecture, run: Settings) -> float:
    """Operations for one token, forward and backward, with causal attention over rows of `run.sequence_length`.

    Counts linear layers, the experts that see the token, router and head; not norms and activation functions.
    """
    expert = a.count("expert")
    head = next(s.numel for s in a.shapes if s.kind == "head")
    weights = a.count("linear", "router") + head + (expert * a.top_k // a.experts if expert else 0)
    # Scores and weighted values; a causal row sees half of its length on average, a window no more than itself.
    half = run.sequence_length / 2
    seen = (a.layers - a.sliding_layers) * half + a.sliding_layers * min(half, a.sliding_window)
    attention = a.heads * (a.head_dim + a.v_head_dim) * seen
    passes = 2 + run.checkpointing  # forward, gradients of activations, recomputation
    forward = 2 * (weights + attention)
    if run.full:
        return passes * forward + 2 * weights + 2 * attention
    total = passes * forward + 2 * attention
    for s in a.shapes:
        if not s.adapted or (run.target_modules is not None and s.name not in run.target_modules):
            continue
        seen_by_token = a.top_k if s.kind == "expert" else 1
        if s.adapted == "parameter":  # BA once a pass and two products for its gradients; the whole weight's gradient
            batch = run.batch_size * run.sequence_length
            total += 2 * (passes + 1) * run.rank * s.total / batch + 2 * s.total * seen_by_token / s.stack
        else:
            total += 2 * (passes + 1) * run.rank * (s.d_in + s.d_out) * s.count
    return total


def training_cost(
    model: str | Architecture,
    *,
    gpu: str | Accelerator,
    tokens: int,
    mfu: float,
    gpus: int = 1,
    price_per_gpu_hour: float | None = None,
    **settings,
) -> Cost:
    """Time and price of one run.

    Args:
        model: as for `estimate`.
        gpu: name of an accelerator, or one made by hand.
        tokens: all tokens of the run: rows x tokens a row (with padding) x epochs.
        mfu: share of the peak rate that is reached, above 0 and up to 1.
        gpus: how many work side by side; communication is not counted.
        price_per_gpu_hour: in any currency.
        settings: fields of `Settings`.

    Raises:
        ConfigError: `mfu` is no share, or tokens, GPUs or price are not above 0.
    """
    if not 0 < mfu <= 1:
        raise ConfigError(f"mfu is a share of the peak rate, above 0 and up to 1, not {mfu!r}.")
    for name, value in (("tokens", tokens), ("gpus", gpus)):
        if value < 1:
            raise ConfigError(f"{name} must be above 0, not {value!r}.")
    if price_per_gpu_hour is not None and price_per_gpu_hour < 0:
        raise ConfigError(f"price_per_gpu_hour must not be negative, but is {price_per_gpu_hour!r}.")
    a = model if isinstance(model, Architecture) else architecture(model)
    card = accelerator(gpu) if isinstance(gpu, str) else gpu
    run = Settings(**settings)
    flops = flops_per_token(a, run)
    compute = tokens * flops / (gpus * card.tflops * 1e12 * mfu) / 3600
    batches = tokens / (run.batch_size * run.sequence_length * gpus)
    written = batches * dequantisation_bytes(a, run) / (card.bandwidth_gbs * 1e9) / 3600
    hours = compute + written
    gpu_hours = hours * gpus
    price = None if price_per_gpu_hour is None else gpu_hours * price_per_gpu_hour
    return Cost(tokens, flops, hours, written, gpu_hours, price)


def dequantisation_bytes(a: Architecture, run: Settings) -> float:
    """Bytes that one batch of QLoRA reads and writes to have its 4-bit weights in 16 bit, once a pass; 0 elsewhere."""
    if run.method != "qlora":
        return 0.0
    numbers = a.count("linear", "indexer") + (a.count("expert") if run.quantize_experts else 0)
    return (2 + run.checkpointing) * numbers * (4.127 / 8 + 2)
