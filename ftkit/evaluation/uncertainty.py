"""How sure a score on a few hundred rows can be."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: int, n: int, z: float = 1.959964) -> Interval:
    r"""Interval of a proportion (Wilson, 1927); unlike :math:`p \pm z\sqrt{p(1-p)/n}` it holds at 0 and 1 too.

    Args:
        successes: rows that were right.
        n: rows in all, at least 1.
        z: standard normal quantile; the default gives 95%.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must lie between 0 and n >= 1, not {successes} of {n}")
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the bounds are exactly 0 and 1; rounding would put them a hair inside the estimate.
    return Interval(p, 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def paired_bootstrap(base, tuned, *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interval of mean(tuned) - mean(base) over rows that both models answered (Efron's percentile bootstrap).

    Rows, not scores, are drawn anew, so that what makes a row hard for both models cancels.

    Args:
        base, tuned: one score a row, in the same order, (rows,).
        resamples: bootstrap samples.
        confidence: of the interval.

    Raises:
        ValueError: the scores are not paired, or there are none.
    """
    base, tuned = np.asarray(base, dtype=float), np.asarray(tuned, dtype=float)
    if base.shape != tuned.shape or base.ndim != 1 or not base.size:
        raise ValueError(f"scores must be two equally long, non-empty lists, not {base.shape} and {tuned.shape}")
    gain = tuned - base
    rng = np.random.default_rng(seed)
    means = np.array([gain[rng.integers(gain.size, size=gain.size)].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(gain.mean()), float(low), float(high))
