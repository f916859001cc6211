r"""LoRA in thirty lines, to be read.

Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685. Nothing of ftkit is used here, and
no trainer uses this; a test proves that it computes what the trained layers compute.
"""

import math

import torch
from torch import nn


class LoRALinear(nn.Module):
    r"""A frozen linear layer with a trainable update of rank r beside it.

    Equation 3 with the scale of section 4.1: :math:`h = W_0 x + \frac{\alpha}{r} B A x`, with :math:`W_0` (d_out, d_in)
    frozen, A (r, d_in) random and B (d_out, r) zero, so that the layer starts as the one it wraps.

    Args:
        base: the layer to adapt; it is frozen in place.
        r: rank of the update, at most min(d_in, d_out) to be of use.
        lora_alpha: scale; the update is multiplied by `lora_alpha / r`.
    """

    def __init__(self, base: nn.Linear, r: int, lora_alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.empty(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # uniform on +-1/sqrt(d_in), as nn.Linear's own weight
        self.scaling = lora_alpha / r

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d_in) to (..., d_out)."""
        return self.base(x) + self.scaling * (x @ self.A.T) @ self.B.T  # eq. 3

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        r"""One ordinary layer with :math:`W = W_0 + \frac{\alpha}{r} B A`: same outputs, no extra cost."""
        merged = nn.Linear(self.base.in_features, self.base.out_features, bias=self.base.bias is not None)
        merged.load_state_dict(self.base.state_dict())
        merged.weight += self.update()
        return merged

    def update(self) -> torch.Tensor:
        r"""What the adapter adds to the weight, :math:`\Delta W = \frac{\alpha}{r} B A`, (d_out, d_in)."""
        return self.scaling * self.B @ self.A


def add_lora(
    model: nn.Module, names: tuple[str, ...], r: int, lora_alpha: float, layer: type[LoRALinear] = LoRALinear
) -> nn.Module:
    """Freeze `model` and wrap, in place, every linear layer whose last name is in `names`.

    Args:
        layer: which variant to wrap it in; each takes the same arguments as `LoRALinear`.
    """
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in names and isinstance(child, nn.Linear):
                setattr(parent, name, layer(child, r, lora_alpha))
    return model
