r"""LoRA+, to be read: LoRA whose B learns faster than its A.

Hayou, Ghosh and Yu, *LoRA+: Efficient Low Rank Adaptation of Large Models*, arXiv 2402.12354. The layer is LoRA's; what
is new is in the optimizer.
"""

from torch import nn

from ftkit.scratch.lora import LoRALinear


def lora_plus_groups(model: nn.Module, lr: float, ratio: float = 16.0, weight_decay: float = 0.0) -> list[dict]:
    r"""AdamW's two parameter groups, :math:`\eta_B = \lambda \eta_A`.

    Args:
        model: a model adapted by `add_lora`.
        lr: :math:`\eta_A`, the rate of every A (r, d_in).
        ratio: :math:`\lambda`; the authors find about 16 best for RoBERTa and 2 to 4 for Llama. B (d_out, r) learns at
            `ratio * lr`.
        weight_decay: of both groups. AdamW multiplies it by the group's rate, so B decays `ratio` times as fast.
    """
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    return [
        {"params": [layer.A for layer in layers], "lr": lr, "weight_decay": weight_decay},
        # eta_B = lambda eta_A
        {"params": [layer.B for layer in layers], "lr": ratio * lr, "weight_decay": weight_decay},
    ]
