import numpy as np
import pytest

from ftkit.evaluation.uncertainty import paired_bootstrap, wilson


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
