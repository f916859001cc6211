r"""An adapter whose base has moved, written as an ordinary LoRA of rank 2r on the original base.

PiSSA and Delta-LoRA both change :math:`W_0` by a difference of two products. Their whole change of the weight is
:math:`s (B_1 A_1 - B_2 A_2) = s \, [B_1, -B_2] [A_1; A_2]`: LoRA with twice the rank and, so that the scale
:math:`\alpha / r` stays what it was, twice the alpha. Every program that loads LoRA loads it.
"""

import copy
import os
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

FILE = "adapter_model.safetensors"
Factors = tuple[torch.Tensor, torch.Tensor]
"""A (rank, d_in) and B (d_out, rank)."""


def lora_layers(model: PeftModel) -> dict[str, LoraLayer]:
    """The adapted layers by their name in the base model."""
    return {name: m for name, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer)}


def factors(layer: LoraLayer) -> Factors:
    """A (r, d_in) and B (d_out, r) of a layer, the parameters' own tensors without a graph."""
    name = layer.active_adapters[0]
    return layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()


def scaling(layer: LoraLayer) -> float:
    """The factor before BA."""
    return layer.scaling[layer.active_adapters[0]]


def save(
    model: PeftModel, folder: str, second: Callable[[str, Factors], tuple[Factors, Factors]], state_dict: dict | None
) -> None:
    """Write `folder` in PEFT's format.

    Args:
        second: layer name and its current (A, B) to (A_1, B_1) and (A_2, B_2) of the module's formula.
        state_dict: the model's, where it was gathered from several processes.
    """
    name = model.active_adapters[0]
    state = get_peft_model_state_dict(model, state_dict=state_dict, adapter_name=name, save_embedding_layers=False)
    for layer in lora_layers(model):
        key = f"base_model.model.{layer}.lora_{{}}.weight"
        (A1, B1), (A2, B2) = second(layer, (state[key.format("A")], state[key.format("B")]))
        state[key.format("A")], state[key.format("B")] = torch.cat([A1, A2]), torch.cat([B1, -B2], dim=1)
    config = copy.deepcopy(model.peft_config[name])
    config.r *= 2
    config.lora_alpha = config.r * scaling(next(iter(lora_layers(model).values())))
    config.use_rslora, config.inference_mode = False, True
    Path(folder).mkdir(parents=True, exist_ok=True)
    beside = Path(folder) / f".{FILE}"
    save_file({key: tensor.contiguous().cpu() for key, tensor in state.items()}, beside, metadata={"format": "pt"})
    os.replace(beside, Path(folder) / FILE)
    config.save_pretrained(folder)
