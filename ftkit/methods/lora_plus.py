r"""The optimizer's parameter groups, with LoRA+'s rate for B.

Hayou, Ghosh and Yu, *LoRA+: Efficient Low Rank Adaptation of Large Models*, arXiv 2402.12354:
:math:`\eta_B = \lambda \eta_A`. The authors find the best ratio to depend on model and task, and suggest 16 to begin
with.
"""

from typing import Any

from torch import nn


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    ratio: float | None = None,
    embedding_learning_rate: float = 1e-6,
) -> list[dict[str, Any]]:
    """What trains, in groups of one rate and one decay. Norms, biases and single vectors do not decay, matrices do.

    Args:
        weight_decay: of the matrices.
        ratio: LoRA+'s lambda, B's rate over A's; None is plain LoRA. AdamW's decay is multiplied by the group's rate,
            so B also decays `ratio` times as fast.
        embedding_learning_rate: under LoRA+, of embeddings that are trained; default as in the authors' code. Without
            LoRA+ they train at `learning_rate`.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    undecayed = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        # By the module's type: its name says little (`input_layernorm`, `q_norm`, `norm`, `ln_f`).
        if parameter.ndim < 2 or "Norm" in type(module).__name__ or name.endswith("bias")
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = learning_rate
        if ratio is not None and id(parameter) in embeddings:
            rate = embedding_learning_rate
        elif ratio is not None and "lora_B" in name:
            rate = ratio * learning_rate
        groups.setdefault((rate, 0.0 if id(parameter) in undecayed else weight_decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
