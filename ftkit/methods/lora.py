r"""LoRA on PEFT: which modules, and whether they were really adapted.

Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685, equation 3: a frozen
:math:`W_0 \in \mathbb{R}^{d_{out} \times d_{in}}` becomes :math:`W_0 + \frac{\alpha}{r} B A` with
:math:`B \in \mathbb{R}^{d_{out} \times r}` (zero at the start) and :math:`A \in \mathbb{R}^{r \times d_{in}}`.
"""

from typing import TYPE_CHECKING

from ftkit.errors import ConfigError, near_matches
from ftkit.models.families import lora_targets

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
    seed: int = 42,
) -> "PeftModel":
    """Freeze `model` and put LoRA beside its linear layers; the adapters are fp32 whatever the base is.

    Args:
        model: the causal model; it is wrapped in place, as PEFT does.
        r: rank.
        lora_alpha: scale; the update is multiplied by `lora_alpha / r` (by `lora_alpha / sqrt(r)` under `use_rslora`).
        target_modules: suffixes of module names; `None` takes the family's table, which also covers fused experts.
        modules_to_save: modules trained whole and saved with the adapter.
        seed: of the random A; the global random state is left as it was.

    Raises:
        ConfigError: a target names no linear layer of the model, or dropout meets a family whose MLPs are adapted as
            parameters (PEFT computes W + BA there, so there is no input to drop).
    """
    import torch
    from peft import LoraConfig, get_peft_model

    if target_modules is None:
        targets = lora_targets(model)
        names, parameters, exclude = targets.target_modules, targets.target_parameters, targets.exclude_modules
    else:
        _check_targets(model, target_modules)
        names, parameters, exclude = list(target_modules), None, None
    if parameters and lora_dropout:
        raise ConfigError(
            f"lora_dropout={lora_dropout} cannot be applied to {', '.join(parameters)}, which this family adapts as "
            "parameters; set lora_dropout=0.0."
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        target_modules=names,
        target_parameters=parameters or None,
        exclude_modules=exclude or None,
        modules_to_save=modules_to_save,
        use_rslora=use_rslora,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config, autocast_adapter_dtype=True)


def _check_targets(model, target_modules: list[str]) -> None:
    from torch import nn

    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for target in target_modules:
        if not any(name == target or name.endswith("." + target) for name in linear):
            known = {name.rsplit(".", 1)[-1] for name in linear}
            raise ConfigError(
                f"target_modules names {target!r}, but the model has no such linear layer; it has "
                f"{', '.join(sorted(known))}.{near_matches(target, known)}"
            )
