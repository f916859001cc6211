"""How sure a score on a few hundred rows can be."""

import math
from collections.abc import Sequence
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


def paired_bootstrap(
    base, tuned, *, weights=None, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of mean(tuned) - mean(base) over rows that both models answered (Efron's percentile bootstrap).

    Rows, not scores, are drawn anew, so that what makes a row hard for both models cancels.

    Args:
        base, tuned: one score a row, in the same order, (rows,).
        weights: of the rows in the means, (rows,), e.g. the bytes that a score per byte stands for. Default: all 1.
        resamples: bootstrap samples.
        confidence: of the interval.

    Raises:
        ValueError: the scores are not paired, or there are none.
    """
    base, tuned = np.asarray(base, dtype=float), np.asarray(tuned, dtype=float)
    if base.shape != tuned.shape or base.ndim != 1 or not base.size:
        raise ValueError(f"scores must be two equally long, non-empty lists, not {base.shape} and {tuned.shape}")
    weights = np.ones_like(base) if weights is None else np.asarray(weights, dtype=float)
    gain = (tuned - base) * weights
    # A resample is decided by how often each distinct row is drawn: exact matches have three, whatever their number.
    rows, counts = np.unique(np.stack([gain, weights]), axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    means = []
    step = max(1, 1_000_000 // counts.size)
    for start in range(0, resamples, step):
        drawn = rng.multinomial(base.size, counts / base.size, size=min(step, resamples - start))
        sums = drawn @ rows.T
        means.append(sums[:, 0] / sums[:, 1])
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(gain.sum() / weights.sum()), float(low), float(high))


@dataclass(frozen=True)
class McNemar:
    """Rows that one of two models alone got right, and the exact two-sided p-value of that split if both were equal."""

    only_base: int
    only_tuned: int
    p_value: float


def mcnemar(base, tuned) -> McNemar:
    """McNemar's exact test for two models' right (1) and wrong (0) answers to the same rows.

    Rows that both got right, or both wrong, say nothing about the difference. Of the n others each model would have
    half, were they equal, so p is the two-sided tail of Binomial(n, 1/2).

    Raises:
        ValueError: the answers are not paired, there are none, or one is neither 0 nor 1.
    """
    base, tuned = np.asarray(base, dtype=float), np.asarray(tuned, dtype=float)
    if base.shape != tuned.shape or base.ndim != 1 or not base.size:
        raise ValueError(f"answers must be two equally long, non-empty lists, not {base.shape} and {tuned.shape}")
    if not (np.isin(base, (0, 1)).all() and np.isin(tuned, (0, 1)).all()):
        raise ValueError("McNemar's test is for answers that are right (1) or wrong (0)")
    only_base, only_tuned = int((base > tuned).sum()), int((tuned > base).sum())
    n, fewer = only_base + only_tuned, min(only_base, only_tuned)
    # Integers throughout: 2**n overflows a float from n = 1,024 on, and Python divides large integers exactly.
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return McNemar(only_base, only_tuned, min(1.0, 2 * tail / 2**n))


def across_seeds(values: Sequence[float], confidence: float = 0.95) -> Interval:
    r"""Interval of the mean over runs that differ in their seed: Student's :math:`\bar x \pm t_{n-1} s / \sqrt n`.

    Args:
        values: one score, or one gain, a seed. Training with another seed is another observation; the rows behind
            each value are not.

    Raises:
        ValueError: fewer than two values, which say nothing about how far seeds move the result.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size < 2:
        raise ValueError("an interval over seeds needs at least two runs")
    mean, half = values.mean(), _t_quantile(values.size - 1, confidence) * values.std(ddof=1) / math.sqrt(values.size)
    return Interval(float(mean), float(mean - half), float(mean + half))


def _t_quantile(df: int, confidence: float) -> float:
    """Two-sided quantile of Student's t: with t = sqrt(df) tan(a), the density is cos(a)**(df - 1)."""
    angle = np.linspace(0, np.pi / 2, 200_001)
    density = np.cos(angle) ** (df - 1)
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(df) * math.tan(np.interp(confidence, mass / mass[-1], angle))
