r"""Delta-LoRA, to be read: LoRA whose steps move the frozen weight too.

Zi et al., *Delta-LoRA: Fine-Tuning High-Rank Parameters with the Delta of Low-Rank Matrices*, arXiv 2309.02411.
"""

import torch
from torch import nn

from ftkit.scratch.lora import LoRALinear


class DeltaLoRALinear(LoRALinear):
    r"""LoRA with :math:`W_{t+1} = W_t + \lambda \frac{\alpha}{r} (B_{t+1} A_{t+1} - B_t A_t)` after each step.

    W (d_out, d_in) gets no gradient and needs no optimizer state. The sum of its steps telescopes: after the start at
    step K, :math:`W_t - W_0 = \lambda \frac{\alpha}{r} (B_t A_t - B_K A_K)`, which has rank 2r at most. Dropout has no
    place here: BA would then no longer be what the layer computed with.

    Args:
        base: the layer to adapt; no gradient reaches it, but `step` moves its weight.
        r: rank of the update.
        lora_alpha: scale; the update is multiplied by `lora_alpha / r`.
        ratio: :math:`\lambda`; the paper takes 2.
    """

    def __init__(self, base: nn.Linear, r: int, lora_alpha: float, ratio: float = 2.0) -> None:
        super().__init__(base, r, lora_alpha)
        self.ratio = ratio

    @torch.no_grad()
    def begin(self) -> None:
        """Call once after step K (the paper's 500; 0 is before the first step)."""
        self.start = (self.A.clone(), self.B.clone())
        self.last = self.update()

    @torch.no_grad()
    def step(self) -> None:
        """Call after every `optimizer.step()` past step K."""
        now = self.update()
        self.base.weight += self.ratio * (now - self.last)  # algorithm 1: W <- W + lambda (alpha / r) (B'A' - BA)
        self.last = now

    @torch.no_grad()
    def as_lora(self) -> tuple[torch.Tensor, torch.Tensor]:
        r"""A' (2r, d_in) and B' (d_out, 2r) of an ordinary LoRA on the original W, at the same scale.

        :math:`W_t + sBA = W_0 + s \, [(1 + \lambda) B, -\lambda B_K] [A; A_K]`, by the telescoping sum.
        """
        A_K, B_K = self.start
        return torch.cat([self.A, A_K]), torch.cat([(1 + self.ratio) * self.B, -self.ratio * B_K], dim=1)
