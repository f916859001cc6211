"""`FullFineTuner`: rows in, a model in Transformers' format out, all of its weights trained."""

import re
from typing import TYPE_CHECKING

import torch

from ftkit.methods.adapter import Adapter
from ftkit.models import precision
from ftkit.models.families import family_of
from ftkit.models.loading import load
from ftkit.models.tiny import TINY
from ftkit.training.config import FullFineTuningConfig
from ftkit.training.finetuner import FineTuner
from ftkit.training.memory import announce_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class WholeModel(Adapter):
    """All weights of a model in the place of an adapter: written as a folder that Transformers loads."""

    model: "PreTrainedModel"

    @property
    def causal_model(self) -> "PreTrainedModel":
        return self.model

    def write(self, folder: str, state_dict: dict | None) -> None:
        self.model.save_pretrained(folder, state_dict=state_dict)

    def save_state(self, folder: str) -> None:
        """Nothing: the weights that `write` writes are float32, as they are trained."""

    def restore(self, folder: str) -> None:
        saved = type(self.model).from_pretrained(folder, config=self.model.config, dtype=torch.float32)
        self.model.load_state_dict(saved.state_dict())


class FullFineTuner(FineTuner):
    """Fine-tune all weights of a causal model.

        tuner = FullFineTuner(FullFineTuningConfig(data_dir="tickets", max_steps=40, output_dir="run"))
        tuner.train()

    Arguments and attributes are those of `FineTuner`; the run's folder holds a model that Transformers loads, in
    float32.
    """

    config: FullFineTuningConfig

    def load_model_and_tokenizer(self) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
        """Load the model in float32, whatever the arithmetic: bfloat16 weights are too coarse for small updates.

        What a family keeps out of text (a vision tower) or out of the loss (DeepSeek-V3.2's indexer) stays frozen.
        """
        c = self.config
        announce_memory(c, "full")
        compute = self._compute()
        self.model, self.tokenizer = load(
            c.model_name,
            dtype="float32",
            attn_implementation="eager" if compute.attn_implementation == "eager" else "sdpa",
            trust_remote_code=c.trust_remote_code,
            verbose=False,
        )
        attention = compute.attn_implementation
        if attention == "flash_attention_2" and (c.attn_implementation != "auto" or self.model._supports_flash_attn):
            self.model.set_attn_implementation(attention)  # it runs on what autocast gives it, not on float32
        family = family_of(self.model)
        for name, parameter in self.model.named_parameters():
            frozen = family and family.without_gradient and re.fullmatch(family.without_gradient, name)
            parameter.requires_grad = not frozen
        self.adapter = WholeModel(self.model)
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in self.model.parameters())
        arithmetic = compute.dtype if self.mixed_precision() == "no" else f"{compute.dtype} by autocast"
        print(f"{c.model_name}: {trained:,} of {total:,} parameters train, in float32")
        print(f"arithmetic in {arithmetic} ({compute.dtype_reason})")
        return self.model, self.tokenizer

    def mixed_precision(self) -> str:
        return {"bfloat16": "bf16", "float16": "fp16"}.get(self._compute().dtype, "no")

    def _compute(self) -> precision.Choice:
        """The precision of the arithmetic, and the attention, for this machine."""
        c = self.config
        attention = c.attn_implementation
        return precision.choose(
            precision.detect(),
            dtype=c.torch_dtype,
            attn_implementation="sdpa" if attention == "auto" and not c.use_flash_attention else attention,
            tiny=c.model_name in TINY,
        )
