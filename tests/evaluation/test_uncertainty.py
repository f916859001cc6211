import math

import numpy as np
import pytest

from ftkit.evaluation.uncertainty import across_seeds, mcnemar, paired_bootstrap, wilson


def test_wilson_against_published_values():
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        interval = wilson(successes, n)
        assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_wilson_never_leaves_the_unit_interval_and_holds_the_estimate():
    for n in (1, 2, 50):
        for k in range(n + 1):
            i = wilson(k, n)
            assert 0 <= i.low <= i.estimate <= i.high <= 1


def test_the_bootstrap_agrees_with_the_normal_interval_on_many_rows():
    rng = np.random.default_rng(1)
    base, tuned = rng.random(400) < 0.3, rng.random(400) < 0.6
    i = paired_bootstrap(base, tuned, seed=2)
    gain = tuned.astype(float) - base
    half = 1.96 * gain.std() / 20
    assert i.estimate == pytest.approx(gain.mean())
    assert i.low == pytest.approx(gain.mean() - half, abs=0.01) and i.high == pytest.approx(
        gain.mean() + half, abs=0.01
    )


def test_equal_models_show_no_difference_and_the_seed_decides():
    scores = [0, 1, 1, 0, 1]
    i = paired_bootstrap(scores, scores)
    assert (i.estimate, i.low, i.high) == (0, 0, 0)
    a = [0, 1, 0, 0, 1, 1, 0]
    b = [1, 1, 0, 1, 1, 0, 0]
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)


def test_pairing_matters():
    hard = np.arange(100) % 2
    paired = paired_bootstrap(hard, np.clip(hard + (np.arange(100) % 10 == 0), 0, 1))
    shuffled = np.random.default_rng(0).permutation(hard)
    unpaired = paired_bootstrap(shuffled, np.clip(hard + (np.arange(100) % 10 == 0), 0, 1))
    assert paired.high - paired.low < unpaired.high - unpaired.low


@pytest.mark.parametrize(("base", "tuned"), [([1], [1, 0]), ([], [])])
def test_unpaired_scores_are_refused(base, tuned):
    with pytest.raises(ValueError, match="equally long"):
        paired_bootstrap(base, tuned)


ROWS = 80


@pytest.mark.parametrize("kind", ["exact match", "token F1"])
def test_the_95_percent_interval_covers_the_truth_in_93_to_97_percent_of_1000_pairs(kind):
    rng = np.random.default_rng(7)
    covered = 0
    for i in range(1000):
        ability = rng.random(ROWS)  # what makes a row hard for both models
        other = np.where(rng.random(ROWS) < 0.7, ability, rng.random(ROWS))
        if kind == "exact match":
            base, tuned, truth = ability < 0.35, other < 0.5, 0.15
        else:
            base, tuned, truth = ability, other**0.5, 2 / 3 - 1 / 2
        interval = paired_bootstrap(base, tuned, resamples=1000, seed=i)
        covered += interval.low <= truth <= interval.high
    assert 930 <= covered <= 970


def test_the_bootstrap_draws_rows_as_a_plain_loop_does():
    rng = np.random.default_rng(3)
    base, tuned, weights = rng.random(40), rng.random(40) + 0.1, rng.integers(1, 9, 40)
    gains = []
    for _ in range(4000):
        rows = rng.integers(40, size=40)
        gains.append(((tuned - base) * weights)[rows].sum() / weights[rows].sum())
    found = paired_bootstrap(base, tuned, weights=weights)
    assert found.estimate == pytest.approx(np.average(tuned - base, weights=weights))
    assert (found.low, found.high) == pytest.approx(np.quantile(gains, [0.025, 0.975]), abs=0.02)


def test_mcnemar_against_the_sum_of_the_binomial():
    base = [0] * 10 + [1] * 3 + [1] * 20 + [0] * 7
    tuned = [1] * 10 + [0] * 3 + [1] * 20 + [0] * 7
    found = mcnemar(base, tuned)
    assert (found.only_base, found.only_tuned) == (3, 10)
    assert found.p_value == pytest.approx(2 * sum(math.comb(13, k) for k in range(4)) / 2**13)
    assert mcnemar([1, 0], [1, 0]).p_value == 1
    assert 0 < mcnemar([0] * 1100 + [1] * 1000, [1] * 1100 + [0] * 1000).p_value < 0.05  # 2**2100 is no float
    with pytest.raises(ValueError, match="right"):
        mcnemar([0.5], [1])


def test_equal_models_are_called_different_in_at_most_one_of_twenty_by_mcnemar():
    rng = np.random.default_rng(5)
    wrong = sum(mcnemar(rng.random(60) < 0.4, rng.random(60) < 0.4).p_value <= 0.05 for _ in range(1000))
    assert wrong <= 65


def test_the_interval_over_seeds_is_students():
    # quantiles of t, two-sided 95%: 12.706 (1 degree of freedom), 2.776 (4)
    two = across_seeds([1.0, 2.0])
    assert two.estimate == 1.5 and two.high - 1.5 == pytest.approx(12.706 * 0.5, rel=1e-4)
    five = across_seeds([1, 2, 3, 4, 5])
    assert five.high - 3 == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=1e-3)
    with pytest.raises(ValueError, match="two runs"):
        across_seeds([1.0])
