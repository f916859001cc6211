"""A checker must accept what is right, name what is wrong, and never raise."""

import pytest
import torch

from ftkit.exercises.variants import check_export, check_vera_count


def test_the_right_answers_are_accepted():
    def export(A, B, A_K, B_K, ratio):
        return torch.cat([A, A_K]), torch.cat([(1 + ratio) * B, -ratio * B_K], dim=1)

    assert check_vera_count(lambda layers, d_in, d_out, r: layers * (d_out + r)).startswith("Right")
    assert check_export(export).startswith("Right")


@pytest.mark.parametrize(
    ("says", "count"),
    [
        ("have d_in numbers", lambda layers, d_in, d_out, r: layers * (d_in + d_out + r)),
        ("LoRA's count", lambda layers, d_in, d_out, r: layers * r * (d_in + d_out)),
        ("what has each of its own", lambda layers, d_in, d_out, r: d_out + r),
        ("it is not 0", lambda layers, d_in, d_out, r: 0),
    ],
)
def test_a_wrong_count_is_told_what_is_wrong(says, count):
    verdict = check_vera_count(count)
    assert verdict.startswith("Not yet") and says in verdict


@pytest.mark.parametrize(
    ("says", "export"),
    [
        ("also adds BA", lambda A, B, A_K, B_K, c: (torch.cat([A, A_K]), torch.cat([c * B, -c * B_K], 1))),
        ("is not lambda", lambda A, B, A_K, B_K, c: (A, B)),
        ("is enough", lambda A, B, A_K, B_K, c: (torch.cat([A, A, A_K]), torch.cat([B, c * B, -c * B_K], 1))),
        ("cannot be multiplied", lambda A, B, A_K, B_K, c: (B, A)),
        ("W's shape", lambda A, B, A_K, B_K, c: (A[:, :1], B)),
        ("Not yet", lambda A, B, A_K, B_K, c: None),
        ("Not yet", lambda A, B, A_K, B_K, c: (A, A)),
    ],
)
def test_a_wrong_export_is_told_what_is_wrong(says, export):
    verdict = check_export(export)
    assert verdict.startswith("Not yet") and says in verdict
