"""Checks a reader's answers to the exercises on memory, time and price."""

from collections.abc import Callable

from ftkit.memory import architecture, estimate, flops_per_token
from ftkit.memory.estimator import Settings

MODELS = ("llama-3-8b", "llama-3-70b", "qwen3-0.6b", "gemma-3-4b")
RIGHT = "Right: "
WRONG = "Not yet: "


def check_lora_parameters(count: Callable[[list[tuple[int, int, int]], int], int]) -> str:
    """Check `count(layers, r)`, the numbers that LoRA of rank r trains.

    Args:
        count: takes a list of (d_in, d_out, how many such layers) and the rank; returns an int.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with the first thing that is wrong.
    """
    for model in MODELS:
        layers = [(s.d_in, s.d_out, s.count) for s in architecture(model).shapes if s.kind == "linear"]
        for r in (1, 8, 64):
            wanted = estimate(model, method="lora", rank=r).trainable_parameters
            found = count(layers, r)
            if found == wanted:
                continue
            if found == sum(2 * r * d_in * n for d_in, _, n in layers):
                return WRONG + "2 r d holds for square layers; here most have another width on each side."
            if found == sum(r * (d_in + d_out) for d_in, d_out, _ in layers):
                return WRONG + "each shape stands for several layers; how many of each?"
            if found == sum(d_in * d_out * n for d_in, d_out, n in layers):
                return WRONG + "that is the base; LoRA trains two thin matrices beside each."
            return WRONG + f"{model} at rank {r} trains {wanted:,} numbers, but the answer was {_said(found)}."
    return RIGHT + f"every rank and all of {', '.join(MODELS)}, to the unit."


def check_static_bytes(static_bytes: Callable[[str, int, int], float]) -> str:
    """Check `static_bytes(method, parameters, trained)`, what a run holds before the first token.

    Args:
        static_bytes: takes "full" or "lora", the model's parameters and the trained ones; returns bytes.
    """
    for model in MODELS:
        for method in ("full", "lora"):
            run = estimate(model, method=method, rank=64)
            found = static_bytes(method, run.total_parameters, run.trainable_parameters)
            if found == run.static_bytes:
                continue
            if method == "lora" and found == 2 * run.total_parameters + 12 * run.trainable_parameters:
                return WRONG + "an adapter in float32 takes 4 bytes itself, besides its gradient and two moments."
            if method == "full" and found == 12 * run.total_parameters:
                return WRONG + "full fine-tuning also holds a float32 master copy of each 16-bit weight."
            return WRONG + f"{method} of {model} holds {run.static_bytes:,} bytes, but the answer was {_said(found)}."
    return RIGHT + "both methods, to the byte."


def check_hours(hours: Callable[[float, int, float, float, int], float]) -> str:
    """Check `hours(flops_per_token, tokens, tflops, mfu, gpus)`, the wall time of a run.

    Args:
        hours: takes operations per token, tokens, a card's peak rate in 1e12 operations a second, the share of it that
            is reached, and the number of cards; returns hours.
    """
    flops = flops_per_token(architecture("llama-3-8b"), Settings(method="lora"))
    for tokens, tflops, mfu, gpus in ((10**7, 312.0, 0.4, 1), (10**8, 989.0, 0.25, 8)):
        wanted = tokens * flops / (tflops * 1e12 * mfu * gpus) / 3600
        found = hours(flops, tokens, tflops, mfu, gpus)
        if _close(found, wanted):
            continue
        for factor, text in (
            (3600, "that is in seconds."),
            (gpus, "the cards share the work; that is the sum of their hours."),
            (mfu, "no card reaches its peak; only the share `mfu` of it."),
            (1e12, "the rate is given in 1e12 operations a second."),
        ):
            if factor != 1 and _close(found, wanted * factor):
                return WRONG + text
        return WRONG + f"the run takes {wanted:.4g} hours, but the answer was {_said(found)}."
    return RIGHT + "time is operations over the rate that is reached."


def _close(found: object, wanted: float) -> bool:
    return isinstance(found, int | float) and abs(found - wanted) <= 1e-6 * wanted


def _said(found: object) -> str:
    return f"{found:,}" if isinstance(found, int | float) else repr(found)
