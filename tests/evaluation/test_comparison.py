"""A difference is called one only where it is more than noise."""

import math

import numpy as np
import pytest

from ftkit.evaluation.comparison import compare, compare_all, holm


def test_a_difference_inside_the_noise_is_reported_as_such():
    base, tuned = [0, 1, 1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 1, 0, 0, 1]
    found = compare(base, tuned)
    assert found.verdict == "no difference shown" and found.gain.estimate == 0.125
    assert "shows no difference" in str(found) and found.p_value == 1


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_score_that_is_no_number_is_neither_better_nor_worse(higher_is_better):
    scores, broken = [0.1, 0.2, 0.3], [0.1, math.nan, 0.3]
    for pair in ((scores, broken), (broken, scores), (scores, [0.1, math.inf, 0.3])):
        found = compare(*pair, higher_is_better=higher_is_better)
        assert found.verdict == "not comparable" and str(found).endswith("not comparable")


def test_a_clear_difference_is_better_or_worse_as_the_score_says():
    low, high = [0.1] * 20, [0.9] * 20
    assert compare(low, high).verdict == "better" and compare(high, low).verdict == "worse"
    assert compare(low, high, higher_is_better=False).verdict == "worse"
    assert compare(low, high).p_value is None  # not answers that are right or wrong


def test_weights_enter_means_and_gain():
    found = compare([0.0, 1.0], [1.0, 1.0], weights=[3, 1])
    assert (found.base, found.tuned, found.gain.estimate) == (0.25, 1.0, 0.75)


def test_many_variants_are_warned_of_and_their_intervals_are_wider():
    rng = np.random.default_rng(0)
    base = (rng.random(200) < 0.4).astype(float)
    variants = {f"v{i}": (rng.random(200) < 0.4).astype(float) for i in range(5)}
    found = compare_all(base, variants)
    assert "5 variants" in found.warning
    for name, scores in variants.items():
        alone, together = compare(base, scores), found.by_variant[name]
        assert together.gain.low < alone.gain.low and together.p_value >= alone.p_value
    assert compare_all(base, {"one": variants["v0"]}).warning is None


def test_of_ten_equal_variants_one_is_wrongly_called_different_in_at_most_one_family_of_twenty():
    rng = np.random.default_rng(1)
    alone = together = 0
    for i in range(100):
        base = (rng.random(200) < 0.4).astype(float)
        variants = {str(v): (rng.random(200) < 0.4).astype(float) for v in range(10)}
        single = [compare(base, scores, seed=i).verdict for scores in variants.values()]
        all_of_them = compare_all(base, variants, seed=i).by_variant.values()
        alone += set(single) != {"no difference shown"}
        together += {c.verdict for c in all_of_them} != {"no difference shown"}
    assert together <= 12 < alone  # 5 are expected; the shared base makes the ten less than independent


def test_holm_against_a_worked_example():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
