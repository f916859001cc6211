r"""AdaLoRA, to be read: an update in the form of a singular value decomposition, and a budget of ranks that shrinks.

Zhang et al., *AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning*, arXiv 2303.10512.
"""

import torch
from torch import nn

from ftkit.scratch.lora import LoRALinear


class AdaLoRALinear(LoRALinear):
    r"""A frozen layer W_0 (d_out, d_in) with :math:`h = W_0 x + \frac{\alpha}{r} P \Lambda Q x`, equation 3.

    P (d_out, r) and Q (r, d_in) start small and random, the diagonal E (r,) of :math:`\Lambda` at zero, so that the
    layer starts as the one it wraps. Where E is kept at zero, a rank is gone.

    Args:
        base: the layer to adapt; it is frozen in place.
        r: rank at the start, above the average that is wanted in the end.
        lora_alpha: scale; the update is multiplied by `lora_alpha / r` to the end.
    """

    def __init__(self, base: nn.Linear, r: int, lora_alpha: float) -> None:
        nn.Module.__init__(self)
        self.base = base.requires_grad_(False)
        self.P = nn.Parameter(0.02 * torch.randn(base.out_features, r))
        self.Q = nn.Parameter(0.02 * torch.randn(r, base.in_features))
        self.E = nn.Parameter(torch.zeros(r))
        self.scaling = lora_alpha / r
        self.importance = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in self.triplets()}

    def triplets(self) -> list[tuple[str, nn.Parameter]]:
        return [("P", self.P), ("E", self.E), ("Q", self.Q)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d_in) to (..., d_out)."""
        return self.base(x) + self.scaling * (self.E * (x @ self.Q.T)) @ self.P.T  # eq. 3

    def update(self) -> torch.Tensor:
        r""":math:`\Delta W = \frac{\alpha}{r} P \Lambda Q`, (d_out, d_in)."""
        return self.scaling * (self.P * self.E) @ self.Q

    def orthogonality(self) -> torch.Tensor:
        """What is added to the loss, times a weight, so that P and Q come near singular vectors."""
        identity = torch.eye(len(self.E))
        return (self.P.T @ self.P - identity).norm() ** 2 + (self.Q @ self.Q.T - identity).norm() ** 2

    @torch.no_grad()
    def observe(self, beta: float = 0.85) -> None:
        """After a backward pass: smooth each parameter's sensitivity and how uncertain it is."""
        for name, parameter in self.triplets():
            mean, spread = self.importance[name]
            sensitivity = (parameter * parameter.grad).abs()  # |w dL/dw|
            mean.lerp_(sensitivity, 1 - beta)  # smoothed
            spread.lerp_((sensitivity - mean).abs(), 1 - beta)  # its uncertainty

    def scores(self) -> torch.Tensor:
        """Importance of each of the r triplets, (r,)."""
        s = {name: mean * spread for name, (mean, spread) in self.importance.items()}  # their product
        return s["E"] + s["P"].mean(dim=0) + s["Q"].mean(dim=1)  # of a triplet


def budget(step: int, total: int, start: int, target: int, warmup: int, final: int) -> int:
    """Ranks that all layers may have together at `step`: `start`, then a cubic fall, then `target`."""
    if step <= warmup:
        return start
    if step > total - final:
        return target
    return int(target + (start - target) * (1 - (step - warmup) / (total - warmup - final)) ** 3)


@torch.no_grad()
def allocate(layers: list[AdaLoRALinear], ranks: int) -> None:
    """Keep the `ranks` most important triplets of all layers; the others' E becomes zero."""
    scores = torch.cat([layer.scores() for layer in layers])
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept[scores.topk(ranks).indices] = True
    for layer, keep in zip(layers, kept.split([len(layer.E) for layer in layers]), strict=True):
        layer.E *= keep
