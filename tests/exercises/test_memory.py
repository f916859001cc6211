"""The checkers on memory and time accept what is right and name what is wrong."""

import pytest

from ftkit.exercises.memory import check_hours, check_lora_parameters, check_static_bytes


def count(layers, r):
    return sum(r * (d_in + d_out) * n for d_in, d_out, n in layers)


def static_bytes(method, parameters, trained):
    return 16 * parameters if method == "full" else 2 * parameters + 16 * trained


def hours(flops, tokens, tflops, mfu, gpus):
    return flops * tokens / (tflops * 1e12 * mfu * gpus) / 3600


@pytest.mark.parametrize(
    ("check", "answer"), [(check_lora_parameters, count), (check_static_bytes, static_bytes), (check_hours, hours)]
)
def test_the_right_answer_is_accepted(check, answer):
    assert check(answer).startswith("Right")


@pytest.mark.parametrize(
    ("says", "check", "answer"),
    [
        ("square layers", check_lora_parameters, lambda layers, r: sum(2 * r * i * n for i, o, n in layers)),
        ("how many of each", check_lora_parameters, lambda layers, r: sum(r * (i + o) for i, o, n in layers)),
        ("that is the base", check_lora_parameters, lambda layers, r: sum(i * o * n for i, o, n in layers)),
        ("answer was None", check_lora_parameters, lambda layers, r: None),
        ("master copy", check_static_bytes, lambda m, p, t: 12 * p),
        ("4 bytes itself", check_static_bytes, lambda m, p, t: 16 * p if m == "full" else 2 * p + 12 * t),
        ("full of llama-3-8b holds", check_static_bytes, lambda m, p, t: 2 * p),
        ("in seconds", check_hours, lambda *a: 3600 * hours(*a)),
        ("no card reaches its peak", check_hours, lambda f, n, p, mfu, g: hours(f, n, p, 1, g)),
        ("share the work", check_hours, lambda f, n, p, mfu, g: hours(f, n, p, mfu, 1)),
        ("1e12 operations", check_hours, lambda *a: 1e12 * hours(*a)),
        ("answer was 'x'", check_hours, lambda *a: "x"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(says, check, answer):
    verdict = check(answer)
    assert verdict.startswith("Not yet") and says in verdict
