r"""PiSSA, to be read: LoRA that starts from the largest singular directions of the weight.

Meng, Wang and Zhang, *PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models*,
arXiv 2404.02948.
"""

import torch
from torch import nn

from ftkit.scratch.lora import LoRALinear


class PiSSALinear(LoRALinear):
    r"""LoRA with :math:`W = U S V^\top` split in two: the r largest singular values are trained, the rest is frozen.

    Equations 2 and 3, whose A and B stand the other way round: the paper multiplies x from the left.

    Args:
        base: the layer to adapt, W (d_out, d_in). It is frozen, and in place becomes the residual.
        r: rank of the trained part.
        lora_alpha: scale; the trained part is :math:`\frac{\alpha}{r} B A`, so A and B are divided by its root.
    """

    def __init__(self, base: nn.Linear, r: int, lora_alpha: float) -> None:
        super().__init__(base, r, lora_alpha)
        U, S, Vh = torch.linalg.svd(base.weight.detach(), full_matrices=False)
        root = (S[:r] / self.scaling).sqrt()
        self.A.data = root[:, None] * Vh[:r]  # A = S^(1/2) V^T, (r, d_in)
        self.B.data = U[:, :r] * root  # B = U S^(1/2), (d_out, r)
        base.weight.data -= self.update().detach()  # W_res = W - s B A
        self.start = (self.A.detach().clone(), self.B.detach().clone())

    @torch.no_grad()
    def as_lora(self) -> tuple[torch.Tensor, torch.Tensor]:
        r"""A' (2r, d_in) and B' (d_out, 2r) of an ordinary LoRA on the original W, at the same scale.

        :math:`W_{res} + sBA = W + s(BA - B_0 A_0) = W + s \, [B, -B_0] [A; A_0]`.
        """
        A0, B0 = self.start
        return torch.cat([self.A, A0]), torch.cat([self.B, -B0], dim=1)
