"""Every method twice on one tiny model: from scratch and as it is trained."""

import pytest
import torch

from ftkit.exercises import twins
from ftkit.methods.by_name import attach
from ftkit.models import load


class Lab:
    """What the tests of this folder do to models."""

    R, ALPHA, NAMES, MODEL = 4, 6.0, twins.NAMES, "tiny-llama3"
    ids = torch.arange(40).reshape(2, 20) + 30
    layers, parts, twin = (staticmethod(f) for f in (twins.layers, twins.parts, twins.twin))
    copy, disturb = staticmethod(twins.copy), staticmethod(twins.disturb)

    def base(self, name=MODEL):
        return load(name, verbose=False)[0]

    def production(self, method, model=MODEL, **changes):
        alpha = {} if method == "vera" else {"lora_alpha": self.ALPHA}
        return attach(self.base(model), method, **{"r": self.R, **alpha, **changes})

    def scratch(self, method):
        return twins.readable(self.base(), method, self.R, self.ALPHA)

    def make(self, kind, method):
        """The model itself: a PEFT model, or one with layers from scratch."""
        return self.production(method).model if kind == "production" else self.scratch(method)

    def logits(self, model):
        with torch.no_grad():
            return model.eval()(self.ids).logits

    def gradients(self, model):
        return twins.gradients(model, self.ids)


@pytest.fixture(scope="session")
def lab():
    return Lab()
