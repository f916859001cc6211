"""Predicted against measured: one real training step of a tiny model, and what the formulas say of the same step.

Prediction (`ftkit.memory.activations`) and measurement (`ftkit.memory.measure`) share no code; here they meet.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ftkit.memory import activations
from ftkit.memory.activations import Step, logits_saved, saved_for_backward, transients
from ftkit.memory.describe import describe
from ftkit.memory.measure import Measurement, measure_step
from ftkit.memory.shapes import Architecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

DENSE = ("tiny-llama3", "tiny-qwen3", "tiny-gemma3", "tiny-smollm")
MIXED = ("tiny-qwen3-moe", "tiny-deepseek-v3", "tiny-deepseek-v3.2", "tiny-llama4")
RANK = 8


@dataclass(frozen=True)
class Comparison:
    """One step, predicted and measured.

    Attributes:
        architecture: of the model.
        step: as the formulas see it.
        measured: what it really held.
    """

    architecture: Architecture
    step: Step
    measured: Measurement

    @property
    def saved(self) -> tuple[float, float]:
        """Predicted bounds of `measured.saved`, in bytes."""
        low, high = saved_for_backward(self.architecture, self.step)
        loss = logits_saved(self.architecture, self.step)
        return low + loss, high + loss

    @property
    def peak(self) -> tuple[float, float]:
        """Predicted bounds of `measured.peak`, in bytes; the gradients, which are exact, are in the upper one."""
        low, high = saved_for_backward(self.architecture, self.step)
        loss = activations.logits(self.architecture, self.step)
        work = transients(self.architecture, self.step) + self.measured.gradients
        return low + loss[0], high + loss[1] + work


def widened(name: str) -> "PreTrainedConfig":
    """The configuration of `tiny-<family>` at hidden width 256, where what counts is not lost among constants.

    It is 288 for SmolLM, whose six heads divide it.
    """
    from ftkit.models.tiny import build_config

    config = build_config(name)
    widths = {"hidden_size": 288 if name == "tiny-smollm" else 256, "intermediate_size": 640, "head_dim": 48}
    if "deepseek" in name:
        widths |= {"q_lora_rank": 96, "kv_lora_rank": 64, "moe_intermediate_size": 128, "head_dim": 16}
        widths |= {"qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "qk_head_dim": 48, "v_head_dim": 32}
    if name == "tiny-qwen3-moe":
        widths |= {"moe_intermediate_size": 128}
    if name == "tiny-llama4":
        widths |= {"intermediate_size": 128, "intermediate_size_mlp": 640}
    for key, value in widths.items():
        setattr(config, key, value)
    return config


def compare(
    name: str,
    method: str,
    batch: dict[str, torch.Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    checkpointing: bool = False,
    autocast: bool = False,
    lora_dropout: float = 0.0,
    frozen_a: bool = False,
) -> Comparison:
    """Run one step of AdamW on a widened tiny model with random weights, on the batch's device.

    Args:
        name: `tiny-<family>`.
        method: "full" or "lora", the latter at rank `RANK` on all layers that the family's table names.
        batch: from `ftkit.training.collator.Collator`.
        dtype: of the base.
        attention: attn_implementation.
        checkpointing, autocast, lora_dropout: as in training.
        frozen_a: LoRA-FA.
    """
    from transformers import AutoModelForCausalLM

    from ftkit.methods.lora import attach_lora

    config, device = widened(name), batch["input_ids"].device
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    a = describe(config)
    if method == "lora":
        model = attach_lora(model, r=RANK, lora_alpha=2 * RANK, lora_dropout=lora_dropout)
    for parameter_name, parameter in model.named_parameters():
        if frozen_a and "lora_A" in parameter_name:
            parameter.requires_grad_(False)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if method == "lora":
            model.enable_input_require_grads()
    model.to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    measured = measure_step(model, batch, optimizer, autocast=autocast)
    rows, width = batch["input_ids"].shape
    step = Step(
        batch_size=rows,
        sequence_length=width,
        full=method == "full",
        rank=RANK,
        frozen_a=frozen_a,
        dropout=lora_dropout > 0,
        compute=2 if autocast else dtype.itemsize,
        autocast=autocast,
        attention=attention,
        padded=not bool(batch["attention_mask"].all()),
        checkpointing=checkpointing,
        trained_tokens=int((batch["labels"] != -100).sum()),
        cuda=device.type == "cuda",
    )
    return Comparison(a, step, measured)
