"""Two models on the same rows, or many against one: what the difference is, and whether it is more than noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftkit.evaluation.uncertainty import Interval, mcnemar, paired_bootstrap


@dataclass(frozen=True)
class Comparison:
    """The gain of one model over another in one score.

    Attributes:
        base, tuned: mean scores.
        gain: tuned minus base, with its interval.
        p_value: McNemar's exact p where the scores are 0 or 1, else None; adjusted for the number of variants where
            several were compared.
        higher_is_better: False for losses and bits.
    """

    base: float
    tuned: float
    gain: Interval
    p_value: float | None = None
    higher_is_better: bool = True

    @property
    def verdict(self) -> str:
        """ "better", "worse", "no difference shown" where the interval holds 0, or "not comparable" where it is not
        finite."""
        if not (math.isfinite(self.gain.low) and math.isfinite(self.gain.high)):
            return "not comparable"
        if self.gain.low <= 0 <= self.gain.high:
            return "no difference shown"
        return "better" if (self.gain.low > 0) == self.higher_is_better else "worse"

    def __str__(self) -> str:
        p = "" if self.p_value is None else f", McNemar p = {self.p_value:.2g}"
        noise = "; an interval that holds 0 shows no difference" if self.verdict == "no difference shown" else ""
        gain = self.gain
        return (
            f"{self.base:.3f} -> {self.tuned:.3f}, difference {gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
            f"{p}: {self.verdict}{noise}"
        )


def compare(
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    confidence: float = 0.95,
    higher_is_better: bool = True,
    seed: int = 0,
) -> Comparison:
    """Compare two models by one score a row, on the same rows in the same order.

    Raises:
        ValueError: the scores are not paired, or there are none.
    """
    gain = paired_bootstrap(base, tuned, weights=weights, confidence=confidence, seed=seed)
    weights = [1.0] * len(base) if weights is None else weights
    means = [sum(w * x for w, x in zip(weights, scores, strict=True)) / sum(weights) for scores in (base, tuned)]
    p = mcnemar(base, tuned).p_value if {*base, *tuned} <= {0, 1} else None
    return Comparison(*means, gain, p, higher_is_better)


@dataclass(frozen=True)
class Comparisons:
    """Several variants against one base, corrected for their number; `warning` says so where there are more than one.

    With m variants that are all equal to the base, one of m uncorrected 95% intervals misses 0 with probability up to
    1 - 0.95**m: 40% for ten.
    """

    by_variant: dict[str, Comparison]
    warning: str | None


def compare_all(base: Sequence[float], variants: Mapping[str, Sequence[float]], **options) -> Comparisons:
    """Compare each variant with `base`: intervals that hold together (Bonferroni), p-values after Holm (1979).

    Args:
        base: one score a row.
        variants: name to scores of the same rows.
        options: of `compare`, but for `confidence`, which is 1 - 0.05 / variants.
    """
    m = len(variants)
    found = {name: compare(base, scores, confidence=1 - 0.05 / m, **options) for name, scores in variants.items()}
    adjusted = holm({name: c.p_value for name, c in found.items() if c.p_value is not None})
    found = {
        name: Comparison(c.base, c.tuned, c.gain, adjusted.get(name), c.higher_is_better) for name, c in found.items()
    }
    warning = None
    if m > 1:
        warning = (
            f"{m} variants were compared with one base: intervals are {1 - 0.05 / m:.1%} each, so that all hold "
            "together with 95%, and p-values are Holm's. The best of them still looks better than it is; ask fresh "
            "rows before you report it."
        )
    return Comparisons(found, warning)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment: reject where the result is at most alpha, and at most alpha of all families of
    tests hold a false rejection."""
    adjusted, worst = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = worst
    return adjusted
