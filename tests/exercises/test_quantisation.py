"""The checkers of quantisation accept what is right and name what is wrong."""

import pytest

from ftkit.exercises.quantisation import check_bits, check_merge


def bits_of(block, scale_block=None):
    return 4 + 32 / block if scale_block is None else 4 + 8 / block + 32 / (block * scale_block)


def test_the_right_bits_are_accepted():
    assert check_bits(bits_of).startswith("Right")


@pytest.mark.parametrize(
    ("says", "answer"),
    [
        ("what do the scales take", lambda block, scale_block: 4.0),
        ("it is not 4.25", lambda block, scale_block: 4 + 16 / block),
        ("Not 256", lambda block, scale_block: 4 + 8 / block + 32 / scale_block if scale_block else bits_of(block)),
        ("are missing", lambda block, scale_block: 4 + 8 / block if scale_block else bits_of(block)),
    ],
)
def test_wrong_bits_are_told_what_is_wrong(says, answer):
    verdict = check_bits(answer)
    assert verdict.startswith("Not yet") and says in verdict


def merge(W, A, B, scaling, quantize):
    return quantize(W) + scaling * B @ A


def test_the_right_merge_is_accepted():
    assert check_merge(merge).startswith("Right")


@pytest.mark.parametrize(
    ("says", "answer"),
    [
        ("merge onto the original", lambda W, A, B, s, quantize: W + s * B @ A),
        ("once more changes", lambda W, A, B, s, quantize: quantize(W + s * B @ A)),
        ("rounds the sum again", lambda W, A, B, s, quantize: quantize(quantize(W) + s * B @ A)),
        ("alpha / r is missing", lambda W, A, B, s, quantize: quantize(W) + B @ A),
        ("without the update", lambda W, A, B, s, quantize: quantize(W)),
        ("another function", lambda W, A, B, s, quantize: W),
        ("W's shape (64, 64)", lambda W, A, B, s, quantize: W[:1]),
        ("size of tensor", lambda W, A, B, s, quantize: W + A),
    ],
)
def test_a_wrong_merge_is_told_what_is_wrong(says, answer):
    verdict = check_merge(answer)
    assert verdict.startswith("Not yet") and says in verdict
