r"""`QLoRAFineTuner`: LoRA on a base whose weights are held in 4 bits.

Dettmers et al., *QLoRA: Efficient Finetuning of Quantized LLMs*, arXiv 2305.14314, equation 5:
:math:`h = \mathrm{dequantize}(W) x + \frac{\alpha}{r} B A x`. The base takes a quarter of its 16 bits, what is trained
stays in float32.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.parallel import DistributedDataParallel

from ftkit.errors import ConfigError, MissingDependency
from ftkit.export.merge import merge
from ftkit.models.four_bit import FourBitTensor
from ftkit.models.loading import load
from ftkit.models.quantized import Quantization, quantized_weights, require_bitsandbytes, share_in_four_bits
from ftkit.training.callbacks import peak_memory
from ftkit.training.config import QLoRAConfig
from ftkit.training.lora import LoRAFineTuner

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class QLoRAFineTuner(LoRAFineTuner):
    """Fine-tune a causal model in 4 bits with LoRA, or a variant that leaves the base as it is (`QLoRAConfig.method`).

        tuner = QLoRAFineTuner(QLoRAConfig(data_dir="tickets", lora_r=8, max_steps=40, output_dir="run"))
        tuner.train()
        tuner.merge_and_save("merged")

    Arguments and attributes are those of `LoRAFineTuner`.

    Raises:
        MissingDependency: 4 bits are asked for, and bitsandbytes is not installed.
    """

    config: QLoRAConfig

    def __init__(self, config: QLoRAConfig, data: dict | None = None) -> None:
        super().__init__(config, data)
        self._validate_config()

    def _validate_config(self) -> None:
        """Ask for bitsandbytes before anything is loaded."""
        if self.config.load_in_4bit:
            require_bitsandbytes()

    def _get_quantization_config(self) -> Quantization | None:
        """How the base is held; None, and it is loaded as LoRA's, where `load_in_4bit` is False."""
        c = self.config
        if not c.load_in_4bit:
            return None
        return Quantization(c.bnb_4bit_quant_type, c.bnb_4bit_use_double_quant, c.bnb_4bit_compute_dtype)

    @property
    def memory_method(self) -> str:
        return "qlora" if self.config.load_in_4bit else "lora"

    def load_base(self) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
        c = self.config
        attention = c.attn_implementation
        return load(
            c.model_name,
            dtype=c.torch_dtype,
            attn_implementation="sdpa" if attention == "auto" and not c.use_flash_attention else attention,
            quantization=self._get_quantization_config(),
            trust_remote_code=c.trust_remote_code,
        )

    def load_model_and_tokenizer(self) -> tuple["PeftModel", "PreTrainedTokenizerBase"]:
        """Load the base in 4 bits, nothing of it widened, and attach the adapter in float32."""
        super().load_model_and_tokenizer()
        # Every process has loaded the same base. DDP would write the first one's weights into the others' all the same,
        # which a weight in 4 bits refuses.
        fixed = [name for name, weight in self.model.named_parameters() if isinstance(weight, FourBitTensor)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.model, fixed)
        self._print_model_info()
        return self.model, self.tokenizer

    def _print_model_info(self) -> None:
        base = self.adapter.causal_model
        if self.config.load_in_4bit:
            packed = sum(t.numel() * t.element_size() for *_, tensors in quantized_weights(base) for t in tensors)
            print(f"{share_in_four_bits(base):.0%} of the base's weights are in 4 bits: {packed / 1e6:,.1f} MB")
        if torch.cuda.is_available():
            print(f"GPU memory now: {torch.cuda.memory_allocated() / 1e9:.2f} GB")

    def create_optimizer(self) -> torch.optim.Optimizer:
        """AdamW as `optim` says; in float32, and with a sentence, where bitsandbytes is missing."""
        name, groups = self.config.optim, self.get_optimizer_grouped_parameters()
        if name != "adamw_torch":
            try:
                require_bitsandbytes()
            except MissingDependency as error:
                print(f"optim={name}: {error} The run goes on with adamw_torch.")
                return super().create_optimizer()
            from bitsandbytes import optim

            made = {
                "paged_adamw_8bit": optim.PagedAdamW8bit,
                "paged_adamw_32bit": optim.PagedAdamW32bit,
                "adamw_8bit": optim.AdamW8bit,
            }[name]
            return made(groups, betas=(0.9, 0.95), eps=1e-8)
        return super().create_optimizer()

    def train(self, resume: bool | None = None) -> dict[str, float]:
        """As `FineTuner.train`, with `peak_memory_bytes` among the metrics."""
        return super().train(resume) | {"peak_memory_bytes": peak_memory()}

    def merge_and_save(
        self, output_path: str | Path, safe_serialization: bool = True, *, onto: str | None = None
    ) -> float:
        """Merge the adapter and save a model that needs no PEFT, print the receipt, and return the largest change of a
        logit against base plus adapter; see `ftkit.export.merge.merge`.

        Args:
            output_path: the merged model's folder.
            safe_serialization: True; nothing pickled is written.
            onto: dequantized (the exact one, and the default), original or requantized.
        """
        if not safe_serialization:
            raise ConfigError("safe_serialization=False would write pickled weights; leave it out.")
        trusted = self.config.trust_remote_code
        receipt = merge(self.config.output_dir, output_path, onto=onto, trust_remote_code=trusted)
        print(receipt)
        return receipt.changes[receipt.onto].max_logit
