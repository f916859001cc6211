r"""VeRA, to be read: one random pair of matrices for all layers, two trained vectors for each.

Kopiczko, Blankevoort and Asano, *VeRA: Vector-based Random Matrix Adaptation*, arXiv 2310.11454.
"""

import math

import torch
from torch import nn

from ftkit.scratch.lora import LoRALinear


class VeRALinear(LoRALinear):
    r"""A frozen layer W_0 (d_out, d_in) with :math:`h = W_0 x + \Lambda_b B \Lambda_d A x`, equation 2.

    A (r, d_in) and B (d_out, r) are slices of one random pair that every layer shares; trained are d (r,) and
    b (d_out,), the diagonals of the two :math:`\Lambda`: d_out + r numbers a layer.

    Args:
        base: the layer to adapt; it is frozen in place.
        A: the shared matrix, (r, at least d_in), random and frozen.
        B: the shared matrix, (at least d_out, r), random and frozen.
        d_initial: value of d at the start. b starts at 0, so that the layer starts as the one it wraps.
    """

    def __init__(self, base: nn.Linear, A: torch.Tensor, B: torch.Tensor, d_initial: float = 0.1) -> None:
        nn.Module.__init__(self)
        self.base = base.requires_grad_(False)
        self.A, self.B = A[:, : base.in_features], B[: base.out_features]  # tensors, not parameters
        self.d = nn.Parameter(torch.full((len(A),), d_initial))
        self.b = nn.Parameter(torch.zeros(base.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d_in) to (..., d_out)."""
        return self.base(x) + self.b * ((self.d * (x @ self.A.T)) @ self.B.T)  # eq. 2, right to left

    def update(self) -> torch.Tensor:
        r""":math:`\Delta W = \Lambda_b B \Lambda_d A`, (d_out, d_in)."""
        return (self.b[:, None] * self.B) @ (self.d[:, None] * self.A)


def add_vera(model: nn.Module, names: tuple[str, ...], r: int, seed: int = 0) -> nn.Module:
    """Freeze `model` and wrap, in place, every linear layer whose last name is in `names`; all share one A and B."""
    model.requires_grad_(False)
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if name in names and isinstance(child, nn.Linear)
    ]
    d_in, d_out = (max(getattr(child, size) for *_, child in found) for size in ("in_features", "out_features"))
    generator = torch.Generator().manual_seed(seed)
    A, B = torch.empty(r, d_in), torch.empty(d_out, r)
    for shared in (A, B):  # Kaiming's uniform distribution: variance 2 / columns
        shared.uniform_(-math.sqrt(6 / shared.shape[1]), math.sqrt(6 / shared.shape[1]), generator=generator)
    for parent, name, child in found:
        setattr(parent, name, VeRALinear(child, A, B))
    return model
