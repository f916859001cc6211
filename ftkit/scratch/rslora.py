r"""rsLoRA, to be read: LoRA whose scale falls with the square root of the rank.

Kalajdzievski, *A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA*, arXiv 2312.03732.
"""

import math

from torch import nn

from ftkit.scratch.lora import LoRALinear


class RsLoRALinear(LoRALinear):
    r"""LoRA with :math:`h = W_0 x + \frac{\alpha}{\sqrt r} B A x`; W_0 (d_out, d_in), A (r, d_in), B (d_out, r).

    The same alpha is a larger scale than in LoRA: at r 64, alpha 128 is a factor 16 here and 2 there.

    Args:
        base: the layer to adapt; it is frozen in place.
        r: rank of the update.
        lora_alpha: scale; `matched_alpha` gives the one that keeps LoRA's factor.
    """

    def __init__(self, base: nn.Linear, r: int, lora_alpha: float) -> None:
        super().__init__(base, r, lora_alpha)
        self.scaling = lora_alpha / math.sqrt(r)  # gamma_r = alpha / sqrt(r)


def matched_alpha(lora_alpha: float, r: int) -> float:
    r"""The alpha whose rsLoRA scale is LoRA's: :math:`\alpha' / \sqrt r = \alpha / r`."""
    return lora_alpha / math.sqrt(r)
