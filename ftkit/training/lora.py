"""`LoRAFineTuner`: rows in, an adapter in PEFT's format out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ftkit.export.merge import merge_and_save
from ftkit.methods.by_name import attach
from ftkit.methods.lora_plus import parameter_groups
from ftkit.methods.registry import METHODS, scale_note
from ftkit.models.families import FAMILIES
from ftkit.models.loading import load
from ftkit.training.config import LoRAConfig
from ftkit.training.finetuner import FineTuner
from ftkit.training.memory import announce_memory

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LoRAFineTuner(FineTuner):
    """Fine-tune a causal model with LoRA or one of its variants (`LoRAConfig.method`).

        tuner = LoRAFineTuner(LoRAConfig(data_dir="tickets", lora_r=8, max_steps=40, output_dir="run"))
        tuner.train()
        tuner.merge_and_save("merged")

    Arguments and attributes are those of `FineTuner`; `model` is the PEFT model, and the run's folder holds an adapter.
    """

    config: LoRAConfig
    TARGET_MODULES_MAP: ClassVar[dict[str, tuple[str, ...]]] = {f.name: f.target_modules for f in FAMILIES}
    """Linear layers that are adapted where `target_modules` names none, by family."""

    memory_method = "lora"
    """What the estimator calls it."""

    def load_model_and_tokenizer(self) -> tuple["PeftModel", "PreTrainedTokenizerBase"]:
        """Load the base in the precision of the machine, freeze it and attach the adapter to its linear layers."""
        c = self.config
        if METHODS[c.method].trains == METHODS["lora"].trains:  # the others keep other things for the backward pass
            announce_memory(c, self.memory_method)
        base, self.tokenizer = self.load_base()
        self.adapter = attach(
            base,
            c.method,
            r=c.lora_r,
            lora_alpha=c.lora_alpha,
            lora_dropout=c.lora_dropout,
            target_modules=c.target_modules,
            modules_to_save=c.modules_to_save,
            use_rslora=c.use_rslora,
            delta_lora_start_step=c.delta_lora_start_step,
            delta_lora_ratio=c.delta_lora_ratio,
            seed=c.seed,
        )
        self.model = self.adapter.model
        trainable, total = self.model.get_nb_trainable_parameters()
        name = "LoRA" if c.method == "lora" else METHODS[c.method].title
        print(f"{name} r={c.lora_r}: {trainable:,} of {total:,} parameters train ({trainable / total:.2%}), in float32")
        if note := scale_note(c.lora_r, c.lora_alpha, c.use_rslora):
            print(note)
        return self.model, self.tokenizer

    def load_base(self) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
        """The base model that the adapter is attached to, and its tokenizer."""
        c = self.config
        attention = c.attn_implementation
        return load(
            c.model_name,
            dtype=c.torch_dtype,
            attn_implementation="sdpa" if attention == "auto" and not c.use_flash_attention else attention,
            trust_remote_code=c.trust_remote_code,
        )

    def mixed_precision(self) -> str:
        """The base's own precision, by autocast where the GPU needs it for speed; on a CPU its dtype decides."""
        names = {torch.bfloat16: "bf16", torch.float16: "fp16"}
        return names.get(self.adapter.causal_model.dtype, "no") if torch.cuda.is_available() else "no"

    def get_optimizer_grouped_parameters(self) -> list[dict[str, Any]]:
        """AdamW's groups: matrices with decay, vectors without; under LoRA+ B and embeddings at their own rates."""
        c = self.config
        return parameter_groups(
            self.model,
            learning_rate=c.learning_rate,
            weight_decay=c.weight_decay,
            ratio=c.lora_plus_lambda if c.use_lora_plus else None,
            embedding_learning_rate=c.lora_plus_embedding_lr,
        )

    def merge_and_save(self, output_path: str | Path) -> float:
        """Merge the adapter into the base and save a model that needs no PEFT; see `ftkit.export.merge_and_save`."""
        trusted = self.config.trust_remote_code
        return merge_and_save(self.config.output_dir, output_path, trust_remote_code=trusted)
