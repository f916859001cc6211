r"""LoRA-FA, to be read: LoRA whose A stays as it was drawn.

Zhang et al., *LoRA-FA: Memory-efficient Low-rank Adaptation for Large Language Models Fine-tuning*, arXiv 2308.03303.
"""

from torch import nn

from ftkit.scratch.lora import LoRALinear


class LoRAFALinear(LoRALinear):
    r"""LoRA with A (r, d_in) frozen and B (d_out, r) trained.

    The gradient of B needs :math:`A x`, r numbers a token; only the gradient of A needs x, d_in numbers. With A frozen
    the backward pass keeps the small one. Two things undo that: dropout on x, whose mask has the size of x, and
    another trained A that reads the same x (q, k and v share theirs).

    Args:
        base: the layer to adapt; it is frozen in place.
        r: rank of the update.
        lora_alpha: scale; the update is multiplied by `lora_alpha / r`.
    """

    def __init__(self, base: nn.Linear, r: int, lora_alpha: float) -> None:
        super().__init__(base, r, lora_alpha)
        self.A.requires_grad_(False)  # as it was drawn
