"""Merging, to be read: an adapted model becomes an ordinary one, and can become an adapted one again."""

import torch
from torch import nn

from ftkit.scratch.dora import DoRALinear
from ftkit.scratch.lora import LoRALinear


def merge(model: nn.Module) -> dict[str, LoRALinear]:
    """Put one ordinary layer in the place of each adapted one; returns the adapters by name, for `unmerge`.

    The adapters keep A and B (or what they train) and lose their base, so that the weight is held once.
    """
    adapters = {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}
    for name, layer in adapters.items():
        merged = layer.merge()
        if isinstance(layer, DoRALinear):
            layer.merged_norm = layer.norm()  # a function of W_0, which is about to go
        layer.base = None
        model.set_submodule(name, merged)
    return adapters


@torch.no_grad()
def unmerge(model: nn.Module, adapters: dict[str, LoRALinear]) -> None:
    """Undo `merge`: subtract each update and put the adapter back; a rounding of about 1e-7 of the weight remains."""
    for name, layer in adapters.items():
        merged = model.get_submodule(name)
        if isinstance(layer, DoRALinear):
            merged.weight *= (layer.merged_norm / layer.m)[:, None]
        merged.weight -= layer.update()
        layer.base = merged.requires_grad_(False)
        model.set_submodule(name, layer)
