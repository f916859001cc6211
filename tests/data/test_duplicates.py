"""Duplicates: planted ones are found, nothing else is, and the same seed finds the same."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.duplicates import contaminated, drop_near, exact_keys, first_of_each, groups, near_duplicates


def shingles(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(max(1, len(text) - 4))}


def jaccard(a: str, b: str) -> float:
    a, b = shingles(a), shingles(b)
    return len(a & b) / len(a | b)


def found(texts, **options) -> set[tuple[int, int]]:
    return set(map(tuple, near_duplicates(lambda at: [texts[i] for i in at], len(texts), **options).tolist()))


@pytest.fixture(scope="module")
def planted():
    """Random sentences, in three alphabets, and edited copies of a part of them; some copies are far from theirs."""
    rng = random.Random(0)
    alphabets = ["abcdefghijklmnopqrstuvwxyz", "कखगघचछजझटठडढतथदधनपफबभमािीुे", "的一是在不了有和人这中大为上个国我以要他"]
    texts = []
    for i in range(3000):
        letters = alphabets[i % 3]
        words = ["".join(rng.choices(letters, k=rng.randint(2, 8))) for _ in range(rng.randint(12, 50))]
        texts.append(" ".join(words))
    pairs = []
    for i in range(0, 3000, 4):
        words = texts[i].split()
        for _ in range(rng.randint(0, 6)):
            words[rng.randrange(len(words))] = "".join(rng.choices(alphabets[i % 3], k=5))
        texts.append(" ".join(words))
        pairs.append((i, len(texts) - 1))
    return texts, pairs


def test_recall_and_precision_on_planted_near_duplicates(planted):
    texts, pairs = planted
    near = {pair for pair in pairs if jaccard(*(texts[i] for i in pair)) >= 0.8}
    assert 300 < len(near) < len(pairs)  # there is something to find, and something to leave
    hits = found(texts)
    assert len(hits & near) >= 0.95 * len(near)
    assert len(hits & near) >= 0.95 * len(hits)


def test_what_is_reported_is_as_similar_as_was_asked_for(planted):
    texts, _ = planted
    assert all(jaccard(texts[a], texts[b]) >= 0.9 for a, b in found(texts, threshold=0.9))


def test_the_same_seed_finds_the_same(planted):
    texts, _ = planted
    assert found(texts[:500] + texts[3000:3100], seed=3) == found(texts[:500] + texts[3000:3100], seed=3)


def test_e7_12_case_width_and_spaces_do_not_hide_a_duplicate():
    texts = [
        "The quick brown fox jumps over the lazy dog.",
        "the  QUICK brown fox\njumps over the lazy dog. ",
        "Ｔhe other",
    ]
    assert found(texts) == {(0, 1)}


def test_e7_12_nothing_and_half_a_character_are_no_error():
    assert found([]) == set() and exact_keys([]).shape == (0,)
    assert found(["\ud800", "", "x"]) == set() and len(exact_keys(["\ud800"])) == 1
    assert not contaminated([], ["a"]).any() and contaminated(["a"], []).tolist() == [False]


def test_exact_duplicates_point_to_their_first():
    assert first_of_each(exact_keys(["b", "a", "b", "a ", "b"])).tolist() == [0, 1, 0, 3, 0]


PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)).filter(lambda p: p[0] < p[1]), max_size=30)


@settings(max_examples=1000, deadline=None)
@given(PAIRS)
def test_groups_are_the_connected_components(pairs):
    group = groups(np.array(pairs, dtype=np.int64).reshape(-1, 2), 20)
    neighbours = [{i} for i in range(20)]
    for _ in range(20):
        for a, b in pairs:
            neighbours[a] = neighbours[b] = neighbours[a] | neighbours[b]
        for members in neighbours:
            for i in members:
                neighbours[i] = members | neighbours[i]
    assert group.tolist() == [min(members) for members in neighbours]


@settings(max_examples=1000, deadline=None)
@given(PAIRS)
def test_of_every_pair_one_stays_and_nothing_goes_without_a_reason(pairs):
    keep = drop_near(np.array(sorted(set(pairs)), dtype=np.int64).reshape(-1, 2), 20)
    assert not any(keep[a] and keep[b] for a, b in pairs)
    for i in np.flatnonzero(~keep):
        assert any(keep[a] for a, b in pairs if b == i)


def test_contamination_is_found_through_punctuation_and_embedding_but_not_by_a_shared_opening():
    question = "A train leaves Lyon at nine and travels east at eighty kilometres an hour; when is it in Turin?"
    reference = [question, "2+2?"]
    texts = [
        f"Please solve: {question.upper().replace(' ', '  ')} Thanks!",
        "2 + 2",
        "What is 2 + 2 and why?",
        question[:40] + "to the north, where the snow lies deep and nobody has heard of any of this in years.",
    ]
    assert contaminated(texts, reference).tolist() == [True, True, False, False]


def test_an_instruction_that_all_test_rows_share_is_boilerplate():
    opening = "Write this message as one line of JSON with the keys name, city, product, order, issue and contact. "
    rng = random.Random(1)
    unique = [" ".join("".join(rng.choices("abcdefgh", k=6)) for _ in range(12)) for _ in range(20)]
    references = [opening + text for text in unique]
    assert contaminated([opening + "a message of no test row at all, however long it may be"], references).tolist() == [
        False
    ]
    assert contaminated([opening + unique[3]], references).tolist() == [True]
