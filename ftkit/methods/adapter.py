"""An adapter in training: the PEFT model, what happens around each optimizer step, and how it is written."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from ftkit.models import base_record

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from ftkit.models.base_record import BaseRecord

STATE_FILE = "adapter_state.safetensors"


class Adapter:
    """A PEFT model with the places at which a method does something of its own; LoRA needs none of them.

    A loop of one's own calls `begin`, then around every `optimizer.step()` `before_step` and `after_step`, the latter
    before the gradients are cleared. `AdapterCallback` does so in a Transformers Trainer.

    Attributes:
        model: the PEFT model.
        keeps_best: whether an earlier checkpoint may be taken for the result.
        base: what is recorded of its base, where `attach` made it.
    """

    keeps_best = True

    def __init__(self, model: "PeftModel") -> None:
        self.model = model
        self.base: BaseRecord | None = None

    @property
    def causal_model(self) -> "PreTrainedModel":
        """The model whose `forward` computes the loss."""
        return self.model.get_base_model()

    def begin(self, total_steps: int) -> None:
        """Before the first step of `total_steps`."""

    def before_step(self, step: int) -> None:
        """Gradients of the 1-based `step` are there, the optimizer has not used them yet."""

    def after_step(self, step: int) -> None:
        """The optimizer has taken the 1-based `step`; its gradients are still there."""

    def save(self, folder: str, state_dict: dict | None = None) -> None:
        """Write the adapter in PEFT's format, as one that fits the original base model.

        Embeddings are left out: PEFT would ask the hub whether they have grown.
        """
        self.write(folder, state_dict)
        if self.base is not None:
            base_record.write(self.base, folder)

    def write(self, folder: str, state_dict: dict | None) -> None:
        """PEFT's files, which a method may have to write in another form."""
        self.model.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)

    def state(self) -> dict[str, torch.Tensor]:
        """All that training changes: what is trained, and what the method keeps beside it."""
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Back to the bit to what `state` gave."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state[name])

    def save_state(self, folder: str) -> None:
        """Write beside what `save` writes what `restore` needs."""
        state = {name: tensor.contiguous().cpu() for name, tensor in self.state().items()}
        save_file(state, Path(folder) / STATE_FILE)

    def restore(self, folder: str) -> None:
        """Back to the bit to the state in `folder`."""
        self.load_state(load_file(Path(folder) / STATE_FILE))


class AdapterCallback(TrainerCallback):
    """Calls an `Adapter` at its places in a Trainer.

    A step that is skipped has no gradients by the time the optimizer is called. The method then sees zeros after it, so
    that what it does by the clock (AdaLoRA's budget, Delta-LoRA's start) is done all the same.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def on_train_begin(self, args, state, control, **kwargs):
        self.adapter.begin(state.max_steps)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.skipped = all(p.grad is None for p in self.adapter.model.parameters() if p.requires_grad)
        if not self.skipped:
            self.adapter.before_step(state.global_step + 1)

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self.skipped:
            for parameter in self.adapter.model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        self.adapter.after_step(state.global_step + 1)
