r"""DoRA, to be read: a trained length for each row of the weight, a low-rank update for its direction.

Liu et al., *DoRA: Weight-Decomposed Low-Rank Adaptation*, arXiv 2402.09353.
"""

import torch
from torch import nn

from ftkit.scratch.lora import LoRALinear


class DoRALinear(LoRALinear):
    r"""LoRA whose rows are rescaled to trained lengths m (d_out,); W_0 (d_out, d_in), A (r, d_in), B (d_out, r).

    Equation 5: :math:`W' = m \, \frac{W_0 + \Delta W}{\lVert W_0 + \Delta W \rVert}` with
    :math:`\Delta W = \frac{\alpha}{r} B A` and the norm of each row (the paper's columns: it writes W transposed).
    m starts at the norms of W_0, so that the layer starts as the one it wraps.

    Args:
        base: the layer to adapt; it is frozen in place.
        r: rank of the update.
        lora_alpha: scale; the update is multiplied by `lora_alpha / r`.
    """

    def __init__(self, base: nn.Linear, r: int, lora_alpha: float) -> None:
        super().__init__(base, r, lora_alpha)
        self.m = nn.Parameter(base.weight.norm(dim=1))

    def norm(self) -> torch.Tensor:
        """Length of each row of W_0 + update, (d_out,); a constant to the gradient, as section 4.3 proposes."""
        return (self.base.weight + self.update()).norm(dim=1).detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d_in) to (..., d_out)."""
        direction = x @ self.base.weight.T + self.scaling * (x @ self.A.T) @ self.B.T
        h = self.m / self.norm() * direction  # eq. 5, its norm detached
        return h if self.base.bias is None else h + self.base.bias

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        r"""One ordinary layer with the weight of equation 5."""
        merged = super().merge()
        merged.weight *= (self.m / self.norm())[:, None]
        return merged
