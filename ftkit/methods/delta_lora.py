r"""Delta-LoRA: LoRA whose steps move the frozen weight too.

Zi et al., *Delta-LoRA: Fine-Tuning High-Rank Parameters with the Delta of Low-Rank Matrices*, arXiv 2309.02411,
algorithm 1: after start step K, :math:`W_{t+1} = W_t + \lambda s (B_{t+1} A_{t+1} - B_t A_t)` with LoRA's scale s.

The sum telescopes to :math:`W_t - W_0 = \lambda s (B_t A_t - B_K A_K)`. Two things follow. The result is an ordinary
LoRA of rank 2r, and that is what is saved. And with K = 0 it is LoRA with alpha times :math:`1 + \lambda` (to an
optimizer like Adam, which does not see the gradient's size, in every step of training): compare with that before
crediting the method.
"""

from typing import TYPE_CHECKING

import torch

from ftkit.errors import ConfigError
from ftkit.methods import rank_2r
from ftkit.methods.adapter import Adapter
from ftkit.methods.lora import attach_lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DeltaLoRA(Adapter):
    """Delta-LoRA on `model`.

    Where the base is narrower than float32, W is kept in float32 beside it from step K on and rounded into the base
    after each step: single updates are too small to survive the rounding.

    Args:
        model: the causal model, not quantised; wrapped in place.
        start_step: K. Default: a tenth of the run (the paper takes 500).
        ratio: lambda. Default 2, the paper's.
        arguments: as for `attach_lora`, without dropout.
    """

    def __init__(
        self, model: "PreTrainedModel", *, start_step: int | None = None, ratio: float = 2.0, **arguments
    ) -> None:
        super().__init__(attach_lora(model, **arguments))
        self.start_step, self.ratio = start_step, ratio
        self.start: dict[str, rank_2r.Factors] = {}
        self.last: dict[str, rank_2r.Factors] = {}
        self.master: dict[str, torch.Tensor] = {}

    def begin(self, total_steps: int) -> None:
        """Settle the start step.

        Raises:
            ConfigError: the run ends before it.
        """
        if self.start_step is None:
            self.start_step = total_steps // 10
        if self.start_step >= total_steps:
            raise ConfigError(
                f"Delta-LoRA starts after step {self.start_step}, but the run has {total_steps} steps, so it would be "
                "LoRA; lower delta_lora_start_step."
            )
        if self.start_step == 0 and not self.start:  # a checkpoint that was read has its own start
            self._start()

    def after_step(self, step: int) -> None:
        """Move W by what this step did to BA."""
        if step == self.start_step:
            self._start()
        elif self.start:
            self._move({name: rank_2r.factors(layer) for name, layer in rank_2r.lora_layers(self.model).items()})

    def write(self, folder: str, state_dict: dict | None) -> None:
        """As rank 2r on the original base: :math:`[(1 + \\lambda) B, -\\lambda B_K] [A; A_K]`."""

        def parts(name: str, now: rank_2r.Factors) -> tuple[rank_2r.Factors, rank_2r.Factors]:
            if not self.start:
                return now, (now[0], torch.zeros_like(now[1]))
            A_K, B_K = self.start[name]
            return (now[0], (1 + self.ratio) * now[1]), (A_K, self.ratio * B_K)

        rank_2r.save(self.model, folder, parts, state_dict)

    def state(self) -> dict[str, torch.Tensor]:
        state = super().state()
        for name, master in self.master.items():
            state[f"{name}.master"] = master
            for when, kept in (("start", self.start), ("last", self.last)):
                state |= {f"{name}.{when}.{which}": tensor for which, tensor in zip("AB", kept[name], strict=True)}
        return state

    @torch.no_grad()
    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        if self.start:
            self._move(self.start)  # W as it was before the start
            self.start, self.last, self.master = {}, {}, {}
        super().load_state(state)
        for name, layer in rank_2r.lora_layers(self.model).items():
            if f"{name}.master" not in state:
                continue
            weight = layer.get_base_layer().weight.detach()
            weight.copy_(state[f"{name}.master"])
            narrow = weight.dtype != torch.float32
            self.master[name] = state[f"{name}.master"].to(weight.device) if narrow else weight
            for when, kept in (("start", self.start), ("last", self.last)):
                kept[name] = tuple(state[f"{name}.{when}.{which}"].to(weight.device) for which in "AB")

    @torch.no_grad()
    def _start(self) -> None:
        for name, layer in rank_2r.lora_layers(self.model).items():
            self.start[name], self.last[name] = (
                tuple(tensor.clone() for tensor in rank_2r.factors(layer)) for _ in range(2)
            )
            weight = layer.get_base_layer().weight.detach()
            self.master[name] = weight if weight.dtype == torch.float32 else weight.float()

    @torch.no_grad()
    def _move(self, now: dict[str, rank_2r.Factors]) -> None:
        """W += ratio * s * (BA - B_last A_last), and `now` becomes the last."""
        for name, layer in rank_2r.lora_layers(self.model).items():
            (A, B), (A_last, B_last), master = now[name], self.last[name], self.master[name]
            step = self.ratio * rank_2r.scaling(layer)
            master.addmm_(torch.cat([B, -B_last], dim=1), torch.cat([A, A_last]), alpha=step)
            weight = layer.get_base_layer().weight
            if weight.dtype != torch.float32:
                weight.copy_(master)
            self.last[name] = (A.clone(), B.clone())
