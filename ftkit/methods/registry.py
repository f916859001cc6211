"""The methods by name: what each trains, how many numbers that is, and which combinations are refused, and why.

One table serves the configuration, which refuses, and the book, which shows it. Nothing here imports torch.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ftkit.errors import ConfigError, near_matches


@dataclass(frozen=True)
class Method:
    """One parameter-efficient method.

    Attributes:
        name: value of `LoRAConfig.method`.
        title: the paper's name for it.
        paper: arXiv id.
        trains: the trained numbers of a layer of d_out x d_in, as a formula.
        refuses: feature (see `FEATURES`) to reason (see `REASONS`).
    """

    name: str
    title: str
    paper: str
    trains: str
    refuses: dict[str, str]


FEATURES = {
    "lora_dropout": "dropout before A",
    "use_rslora": "the scale alpha / sqrt(r)",
    "use_lora_plus": "a rate of its own for B",
    "lora_alpha": "a scale alpha",
    "fused_experts": "expert weights that are one tensor",
    "quantised_base": "a base in 4 or 8 bits",
}
"""What a method may be combined with."""

REASONS = {
    "whole input": "dropout keeps a mask of the size of the whole input for the backward pass, and nothing is saved",
    "not BA": "under dropout the layer computes with another product than the BA that moves the base weight",
    "no alpha": "it has no scale alpha",
    "own scale": "its scale is fixed when the ranks start to shrink",
    "no rates to part": "there is no trained A and B whose learning rates could differ",
    "weight plus BA": "PEFT adapts such a tensor as W + BA and nothing else",
    "base moves": "it changes the base weight, which a quantised base cannot hold",
}
"""Why a combination is refused: the whole list."""

_PARAMETER = {"fused_experts": "weight plus BA"}
_MOVES = {"quantised_base": "base moves"}
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("lora", "Low-Rank Adaptation", "2106.09685", "r (d_in + d_out)", {}),
        Method("rslora", "Rank-Stabilized LoRA", "2312.03732", "r (d_in + d_out)", {}),
        Method("lora+", "LoRA+", "2402.12354", "r (d_in + d_out)", {}),
        Method(
            "lora-fa",
            "LoRA with Frozen-A",
            "2308.03303",
            "r d_out",
            {"lora_dropout": "whole input", "use_lora_plus": "no rates to part"},
        ),
        Method(
            "vera",
            "Vector-based Random Matrix Adaptation",
            "2310.11454",
            "d_out + r",
            {"lora_alpha": "no alpha", "use_rslora": "no alpha", "use_lora_plus": "no rates to part", **_PARAMETER},
        ),
        Method(
            "delta-lora",
            "Delta-LoRA",
            "2309.02411",
            "r (d_in + d_out)",
            {"lora_dropout": "not BA", **_PARAMETER, **_MOVES},
        ),
        Method("dora", "Weight-Decomposed Low-Rank Adaptation", "2402.09353", "r (d_in + d_out) + d_out", _PARAMETER),
        Method(
            "adalora",
            "Adaptive Low-Rank Adaptation",
            "2303.10512",
            "r_0 (d_in + d_out + 1)",
            {"use_rslora": "own scale", "use_lora_plus": "no rates to part", **_PARAMETER},
        ),
        Method(
            "pissa",
            "Principal Singular values and Singular vectors Adaptation",
            "2404.02948",
            "r (d_in + d_out)",
            {**_PARAMETER, **_MOVES},
        ),
    )
}
"""Method by name, in the order of the book."""


def check(method: str, features: Iterable[str] = ()) -> None:
    """Refuse an unknown method, and one that cannot be combined with one of `features` (names of `FEATURES`).

    Raises:
        ConfigError: with the reason.
    """
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, not {method!r}.{near_matches(method, METHODS)}")
    for feature in features:
        if reason := METHODS[method].refuses.get(feature):
            raise ConfigError(
                f"method={method!r} cannot be combined with {feature} ({FEATURES[feature]}): {REASONS[reason]}."
            )


def learning_rate(method: str) -> tuple[float, str]:
    """The default peak learning rate of a method, or of "full" fine-tuning, and the reason for it.

    A fit over 14 models found LoRA's best rate 9.8 times that of full fine-tuning (Schulman et al., *LoRA Without
    Regret*, 2025). LoRA+'s authors advise half of LoRA's rate for A. PEFT's own comparison trains VeRA at 1e-3 where
    LoRA has 1e-4.
    """
    if method == "full":
        return 2e-5, "all weights move, and a tenth of LoRA's rate moves them as far as they should go"
    return {
        "vera": (2e-3, "ten times LoRA's: it trains two vectors a layer"),
        "lora+": (1e-4, "half of LoRA's, for A: B has lora_plus_lambda times as much"),
    }.get(method, (2e-4, "ten times that of full fine-tuning"))


def initial_rank(r: int) -> int:
    """AdaLoRA's rank at the start, where `r` is the average it ends with: half as much again (PEFT: 12 and 8)."""
    return math.ceil(1.5 * r)


def trained_numbers(method: str, r: int, d_in: int, d_out: int) -> int:
    """Closed form of `Method.trains` for one linear layer of d_out x d_in."""
    return {
        "lora-fa": r * d_out,
        "vera": d_out + r,
        "dora": r * (d_in + d_out) + d_out,
        "adalora": initial_rank(r) * (d_in + d_out + 1),
    }.get(method, r * (d_in + d_out))


def scale_note(r: int, lora_alpha: float, use_rslora: bool) -> str | None:
    """What to know about the scale when rsLoRA changes it; None where `lora_alpha / r` is what the user reads.

    With alpha 128 at r 64 the factor is 16, and an alpha of 16 keeps LoRA's 2.
    """
    if not use_rslora or r == 1:
        return None
    root = math.sqrt(r)
    return (
        f"rsLoRA: lora_alpha={lora_alpha:g} at r={r} is a factor {lora_alpha / root:.4g} (alpha / sqrt(r)), not "
        f"{lora_alpha / r:.4g} (alpha / r); lora_alpha={lora_alpha / root:.4g} would keep the latter"
    )
