r"""LoRA on PEFT, and its variants that differ in an argument: rsLoRA and DoRA.

Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685, equation 3 with the scale
of section 4.1: a frozen :math:`W_0 \in \mathbb{R}^{d_{out} \times d_{in}}` becomes :math:`W_0 + \frac{\alpha}{r} B A`
with :math:`B \in \mathbb{R}^{d_{out} \times r}` (zero at the start) and :math:`A \in \mathbb{R}^{r \times d_{in}}`.
"""

from typing import TYPE_CHECKING

from ftkit.errors import ConfigError
from ftkit.methods.adapted import resolve_targets, saving, wrap

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def attach_lora(
    model: "PreTrainedModel",
    *,
    r: int,
    lora_alpha: float,
    lora_dropout: float = 0.0,
    target_modules: list[str] | None = None,
    modules_to_save: list[str] | None = None,
    use_rslora: bool = False,
    use_dora: bool = False,
    seed: int = 42,
) -> "PeftModel":
    """Freeze `model` and put LoRA beside its linear layers; the adapters are fp32 whatever the base is.

    Args:
        model: the causal model; it is wrapped in place, as PEFT does.
        r: rank.
        lora_alpha: scale; the update is multiplied by `lora_alpha / r` (by `lora_alpha / sqrt(r)` under `use_rslora`).
        target_modules: suffixes of module names; `None` takes the family's table, which also covers fused experts.
        modules_to_save: modules trained whole and saved with the adapter. Tied embeddings stay tied.
        use_rslora: arXiv 2312.03732.
        use_dora: a trained length for each row of the weight, arXiv 2402.09353, equation 5.
        seed: of the random A; the global random state is left as it was.

    Raises:
        ConfigError: a target names no linear layer of the model, PEFT adapted other layers than were asked for, or
            dropout or DoRA meets a family whose MLPs are adapted as parameters (PEFT computes W + BA there, so there
            is no input to drop and no row to rescale).
    """
    from peft import LoraConfig

    targets = resolve_targets(model, target_modules)
    if targets.target_parameters and lora_dropout:
        raise ConfigError(
            f"lora_dropout={lora_dropout} cannot be applied to {', '.join(targets.target_parameters)}, which this "
            "family adapts as parameters; set lora_dropout=0.0."
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=targets.target_modules,
        target_parameters=targets.target_parameters or None,
        exclude_modules=targets.exclude_modules,
        use_rslora=use_rslora,
        use_dora=use_dora,
        **saving(model, modules_to_save),
    )
    return wrap(model, config, targets, seed)
