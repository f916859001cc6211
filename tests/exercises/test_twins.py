"""What the chapter prints about the two versions of each method is small where it must be, and can be large."""

import pytest

from ftkit.exercises import twins
from ftkit.methods.adapted import wanted_layers
from ftkit.methods.registry import METHODS, trained_numbers
from ftkit.models import load, lora_targets


def base():
    return load("tiny-llama3", verbose=False)[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_two_versions_agree(method):
    import torch

    found = twins.compare(base, method, torch.arange(40).reshape(2, 20) + 30)
    assert found["start"] < 5e-6 and found["logits"] < 5e-6 and found["gradients"] < 5e-6 and found["merge"] < 1e-5
    model = base()
    shapes = wanted_layers(model, lora_targets(model)).values()
    assert found["trained"] == sum(n * trained_numbers(method, 4, i, o) for n, i, o in shapes)


def test_a_difference_is_seen(monkeypatch):
    import torch

    monkeypatch.setitem(twins.LAYERS, "lora", twins.LAYERS["rslora"])
    found = twins.compare(base, "lora", torch.arange(40).reshape(2, 20) + 30)
    assert found["logits"] > 1e-2 and found["gradients"] > 1e-3
