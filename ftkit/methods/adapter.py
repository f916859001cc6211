"""An adapter in training: the PEFT model, what happens around each optimizer step, and how it is written."""

from typing import TYPE_CHECKING

from transformers import TrainerCallback

from ftkit.models import base_record

if TYPE_CHECKING:
    from peft import PeftModel

    from ftkit.models.base_record import BaseRecord


class Adapter:
    """A PEFT model with the places at which a method does something of its own; LoRA needs none of them.

    A loop of one's own calls `begin`, then around every `optimizer.step()` `before_step` and `after_step`, the latter
    before the gradients are cleared. `AdapterCallback` does so in a Transformers Trainer.

    Attributes:
        model: the PEFT model.
        keeps_best: whether an earlier checkpoint may be taken for the result.
        base: what is recorded of its base, where `attach` made it.
        whole_weights: whether it reads or moves whole matrices around a step; FSDP and DeepSpeed hold pieces of them.
    """

    keeps_best = True
    whole_weights = False

    def __init__(self, model: "PeftModel") -> None:
        self.model = model
        self.base: BaseRecord | None = None

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

    def restore(self, folder: str, step: int) -> None:
        """Back to the state that `save` wrote into `folder` after `step`."""
        self.model.load_adapter(folder, self.model.active_adapters[0])


class AdapterCallback(TrainerCallback):
    """Calls an `Adapter` at its places in a Trainer."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def on_train_begin(self, args, state, control, **kwargs):
        self.adapter.begin(state.max_steps)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.adapter.before_step(state.global_step + 1)

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.adapter.after_step(state.global_step + 1)
