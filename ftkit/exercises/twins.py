"""Each method twice on one model, with the same numbers in both: as it is read, and as it trains.

The chapter prints what `compare` finds; the conformance tests hold it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftkit.methods.by_name import attach
from ftkit.methods.registry import initial_rank
from ftkit.scratch.adalora import AdaLoRALinear
from ftkit.scratch.delta_lora import DeltaLoRALinear
from ftkit.scratch.dora import DoRALinear
from ftkit.scratch.lora import LoRALinear, add_lora
from ftkit.scratch.lora_fa import LoRAFALinear
from ftkit.scratch.pissa import PiSSALinear
from ftkit.scratch.rslora import RsLoRALinear
from ftkit.scratch.vera import add_vera

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

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
"""The readable name of each number to PEFT's, below the layer."""


def readable(model: "PreTrainedModel", method: str, r: int, lora_alpha: float) -> "PreTrainedModel":
    """`model`, whose family adapts `NAMES`, with layers of `ftkit.scratch` in the place of its linear ones."""
    if method == "vera":
        return add_vera(model, NAMES, r)
    if method == "adalora":
        start = initial_rank(r)
        return add_lora(model, NAMES, start, lora_alpha * start / r, AdaLoRALinear)
    return add_lora(model, NAMES, r, lora_alpha, LAYERS[method])


def layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The readable layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def parts(layer: LoRALinear) -> dict[str, nn.Parameter]:
    """A readable layer's own numbers by name, those of the layer it wraps left out."""
    return {name: getattr(layer, name) for name, _ in layer.named_parameters(recurse=False)}


def twin(name: str, production: "PeftModel", part: str) -> nn.Parameter:
    """The number of the readable layer `name` in the model that is trained."""
    return production.get_base_model().get_parameter(f"{name}.{PARTS[part]}")


@torch.no_grad()
def copy(production: "PeftModel", model: nn.Module) -> None:
    """The trained model's numbers into the readable one."""
    for name, layer in layers(model).items():
        for part, value in parts(layer).items():
            value.copy_(twin(name, production, part).reshape(value.shape))
        if hasattr(layer, "d"):  # VeRA's shared pair, which is no parameter
            theirs = production.get_base_model().get_submodule(name)
            layer.A = theirs.vera_A["default"][:, : layer.base.in_features]
            layer.B = theirs.vera_B["default"][: layer.base.out_features]


@torch.no_grad()
def disturb(model: nn.Module, std: float = 0.05) -> None:
    """Move all that trains, so that the adapter does something."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += std * torch.randn(parameter.shape, generator=generator)


def gradients(model: nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the cross-entropy; PEFT adds AdaLoRA's regulariser to a loss that the model itself computes."""
    model.zero_grad()
    logits = model(ids).logits
    nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def compare(make: "Callable[[], PreTrainedModel]", method: str, ids: torch.Tensor, r: int = 4) -> dict[str, float]:
    """Largest differences between the readable and the trained version of `method`, on two copies of one model.

    Args:
        make: makes the model, with the same weights at each call.
        ids: (batch, length), what both are asked.

    Returns:
        `start`: of the trained version's logits from the plain model's before anything moved; then, with the numbers
        moved at random, `logits` and `gradients` between the two, and `merge` of the trained version from itself.
        `trained`: how many numbers train.
    """
    alpha = None if method == "vera" else 1.5 * r
    production = attach(make(), method, r=r, lora_alpha=alpha).model.eval()
    model = readable(make(), method, r, 1.5 * r).eval()
    with torch.no_grad():
        start = _largest(production(ids).logits, make().eval()(ids).logits)
    disturb(production)
    copy(production, model)
    gradients(model, ids), gradients(production, ids)
    slopes = [
        _largest(number.grad, twin(name, production, part).grad.reshape(number.shape))
        for name, layer in layers(model).items()
        for part, number in parts(layer).items()
        if number.requires_grad
    ]
    trained = sum(p.numel() for p in production.parameters() if p.requires_grad)
    with torch.no_grad():
        before = production(ids).logits
        logits = _largest(model(ids).logits, before)
        merge = _largest(production.merge_and_unload()(ids).logits, before)
    return {"start": start, "logits": logits, "gradients": max(slopes), "merge": merge, "trained": trained}


def _largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()
