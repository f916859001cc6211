"""Every method twice on one tiny model: from scratch and as it is trained."""

import pytest
import torch

from ftkit.methods.by_name import attach
from ftkit.methods.registry import initial_rank
from ftkit.models import load
from ftkit.scratch.adalora import AdaLoRALinear
from ftkit.scratch.delta_lora import DeltaLoRALinear
from ftkit.scratch.dora import DoRALinear
from ftkit.scratch.lora import LoRALinear, add_lora
from ftkit.scratch.lora_fa import LoRAFALinear
from ftkit.scratch.pissa import PiSSALinear
from ftkit.scratch.rslora import RsLoRALinear
from ftkit.scratch.vera import add_vera

MODEL = "tiny-llama3"
R, ALPHA = 4, 6.0
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LAYERS = {
    "lora": LoRALinear,
    "rslora": RsLoRALinear,
    "lora+": LoRALinear,
    "lora-fa": LoRAFALinear,
    "delta-lora": DeltaLoRALinear,
    "dora": DoRALinear,
    "pissa": PiSSALinear,
}
# The readable name of each number to PEFT's, below the layer.
PARTS = {
    "A": "lora_A.default.weight",
    "B": "lora_B.default.weight",
    "m": "lora_magnitude_vector.default.weight",
    "d": "vera_lambda_d.default",
    "b": "vera_lambda_b.default",
    "P": "lora_B.default",
    "Q": "lora_A.default",
    "E": "lora_E.default",
}


class Lab:
    """What the tests of this folder do to models."""

    R, ALPHA, NAMES, MODEL = R, ALPHA, NAMES, MODEL
    ids = torch.arange(40).reshape(2, 20) + 30

    def base(self, name=MODEL):
        return load(name, verbose=False)[0]

    def production(self, method, model=MODEL, **changes):
        alpha = {} if method == "vera" else {"lora_alpha": ALPHA}
        return attach(self.base(model), method, **{"r": R, **alpha, **changes})

    def scratch(self, method):
        model = self.base()
        if method == "vera":
            return add_vera(model, NAMES, R)
        if method == "adalora":
            r = initial_rank(R)
            return add_lora(model, NAMES, r, ALPHA * r / R, AdaLoRALinear)
        return add_lora(model, NAMES, R, ALPHA, LAYERS[method])

    def make(self, kind, method):
        """The model itself: a PEFT model, or one with layers from scratch."""
        return self.production(method).model if kind == "production" else self.scratch(method)

    def layers(self, model):
        return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}

    def parts(self, layer):
        return {name: getattr(layer, name) for name, _ in layer.named_parameters(recurse=False)}

    def twin(self, name, production, part):
        """The number of a readable layer in the model that is trained."""
        return production.get_base_model().get_parameter(f"{name}.{PARTS[part]}")

    @torch.no_grad()
    def disturb(self, model, std=0.05):
        """Move all that trains, so that the adapter does something."""
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += std * torch.randn(parameter.shape, generator=generator)

    @torch.no_grad()
    def copy(self, production, scratch):
        """The trained model's numbers into the readable one."""
        for name, layer in self.layers(scratch).items():
            for part, value in self.parts(layer).items():
                value.copy_(self.twin(name, production, part).reshape(value.shape))
            if hasattr(layer, "d"):  # VeRA's shared pair, which is no parameter
                theirs = production.get_base_model().get_submodule(name)
                layer.A = theirs.vera_A["default"][:, : layer.base.in_features]
                layer.B = theirs.vera_B["default"][: layer.base.out_features]

    def logits(self, model):
        with torch.no_grad():
            return model.eval()(self.ids).logits

    def gradients(self, model):
        """Of the cross-entropy; PEFT adds AdaLoRA's regulariser to a loss that the model itself computes."""
        model.zero_grad()
        logits = model(self.ids).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), self.ids[:, 1:].flatten()).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="session")
def lab():
    return Lab()
