"""MinHash from first principles finds what the production module finds, and obeys its formulas."""

import random

import numpy as np
import pytest

from ftkit.data.duplicates import near_duplicates
from ftkit.scratch.minhash import candidates, found, jaccard, shingles, signature, similar


def texts(count: int, seed: int) -> list[str]:
    """Random texts, some followed by a copy in which a few words are others."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(400)]
    made = []
    for i in range(count):
        text = rng.choices(words, k=80)
        made.append(" ".join(text))
        if i % 3 == 0:
            for at in rng.sample(range(80), rng.randint(0, 8)):
                text[at] = rng.choice(words)
            made.append(" ".join(text).upper())
    return made


@pytest.mark.parametrize("seed", range(3))
def test_the_small_and_the_strong_find_the_pairs_that_comparing_all_finds(seed):
    rows = texts(60, seed)
    sets = [shingles(text) for text in rows]
    pairs = [(i, j) for j in range(len(rows)) for i in range(j) if jaccard(sets[i], sets[j]) >= 0.8]
    production = near_duplicates(lambda indices: [rows[i] for i in indices], len(rows), threshold=0.8)
    assert similar(rows, 0.8) == sorted(pairs) == sorted(map(tuple, production.tolist()))
    assert 5 < len(pairs) < 20


def test_minima_agree_as_often_as_the_sets_are_alike():
    a, b = set(map(str, range(100))), set(map(str, range(40, 140)))
    k = 4000
    agree = np.mean(signature(a, k, seed=1) == signature(b, k, seed=1))
    assert abs(agree - jaccard(a, b)) < 4 * (0.25 / k) ** 0.5


def test_a_pair_is_a_candidate_as_often_as_the_curve_says():
    a, b = set(map(str, range(100))), set(map(str, range(20, 120)))
    hits = [bool(candidates([signature(s, 12, seed) for s in (a, b)], bands=4, rows=3)) for seed in range(400)]
    expected = found(jaccard(a, b), bands=4, rows=3)
    assert abs(np.mean(hits) - expected) < 4 * (0.25 / 400) ** 0.5


def test_short_texts_and_width_forms_are_no_special_case():
    assert shingles("ab") == {"ab   "} and jaccard(shingles("ＡＢＣ １２３"), shingles("abc\n 123")) == 1
