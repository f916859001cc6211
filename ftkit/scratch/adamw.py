r"""AdamW, to be read: its five equations, and what they keep for every parameter.

Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, arXiv 1711.05101, algorithm 2.
"""

import torch
from torch import nn


class AdamW:
    r"""Two running means for each parameter: of its gradient, and of its gradient squared.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
        \theta_t &= \theta_{t-1} - \eta_t \left( \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}
                    + \lambda \theta_{t-1} \right)

    Args:
        decayed: parameters with weight decay :math:`\lambda`: the matrices.
        plain: parameters without: norms and biases.
    """

    def __init__(self, decayed, plain, weight_decay=0.01, betas=(0.9, 0.95), eps=1e-8) -> None:
        self.decay = {p: weight_decay for p in decayed} | {p: 0.0 for p in plain}
        self.betas, self.eps, self.t = betas, eps, 0
        self.m = {p: torch.zeros_like(p) for p in self.decay}
        self.v = {p: torch.zeros_like(p) for p in self.decay}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update of every parameter from its `.grad`, at learning rate `rate`."""
        self.t += 1
        b1, b2 = self.betas
        for p, decay in self.decay.items():
            m, v, g = self.m[p], self.v[p], p.grad
            m.copy_(b1 * m + (1 - b1) * g)
            v.copy_(b2 * v + (1 - b2) * g**2)
            m_hat = m / (1 - b1**self.t)
            v_hat = v / (1 - b2**self.t)
            p -= rate * (m_hat / (v_hat.sqrt() + self.eps) + decay * p)


def decayed_and_plain(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What of `model` trains, in two: matrices, which decay, and vectors (norms, biases), which do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim < 2]
