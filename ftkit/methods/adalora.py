r"""AdaLoRA on PEFT: an update in the form of a singular value decomposition, and a budget of ranks that shrinks.

Zhang et al., *AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning*, arXiv 2303.10512, equation 3:
:math:`W_0 + s P \Lambda Q`. The ranks of all layers together fall along the paper's cubic schedule, from
`initial_rank` a layer to the average r that was asked for.
"""

from typing import TYPE_CHECKING

import torch
from peft import AdaLoraConfig

from ftkit.errors import ConfigError
from ftkit.methods.adapted import resolve_targets, saving, wrap
from ftkit.methods.adapter import Adapter
from ftkit.methods.registry import initial_rank

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WARMUP, FINAL = 0.1, 0.3
"""Shares of the run before the ranks begin to shrink, and after they have reached their average."""
ORTHOGONALITY = 0.5
"""Weight of the regulariser, PEFT's default."""
_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
SHORTEST = 10
"""Steps of the shortest run with three phases."""


class AdaLoRA(Adapter):
    """AdaLoRA on `model`.

    The regulariser that keeps P and Q near orthogonal is added to the gradients once an optimizer step, not to the
    loss: the loss that is logged stays the cross-entropy, and accumulation does not multiply the regulariser. A loop of
    one's own therefore takes the loss of the logits: PEFT adds its regulariser to a loss that the model itself computes
    from labels.

    Args:
        model: the causal model, without fused experts among the targets; wrapped in place.
        r: average rank at the end.
        lora_alpha: scale; the update is multiplied by `lora_alpha / r`, from the first step to the last.
        lora_dropout, target_modules, modules_to_save, seed: as for `attach_lora`.
    """

    keeps_best = False  # only the last steps have the ranks that were asked for

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        r: int,
        lora_alpha: float,
        lora_dropout: float = 0.0,
        target_modules: list[str] | None = None,
        modules_to_save: list[str] | None = None,
        seed: int = 42,
    ) -> None:
        targets = resolve_targets(model, target_modules)
        config = AdaLoraConfig(
            task_type="CAUSAL_LM",
            target_r=r,
            init_r=initial_rank(r),
            # PEFT divides by the initial rank.
            lora_alpha=lora_alpha * initial_rank(r) / r,
            lora_dropout=lora_dropout,
            target_modules=targets.target_modules,
            exclude_modules=targets.exclude_modules,
            orth_reg_weight=ORTHOGONALITY,
            total_step=SHORTEST,  # until `begin` knows it
            **saving(model, modules_to_save),
        )
        super().__init__(wrap(model, config, targets, seed))
        self.config = config

    def begin(self, total_steps: int) -> None:
        """Lay the three phases over the run.

        Raises:
            ConfigError: the run is too short for them.
        """
        if total_steps < SHORTEST:
            raise ConfigError(
                f"AdaLoRA needs at least {SHORTEST} steps to shrink its ranks, but the run has {total_steps}; raise "
                "max_steps or num_epochs."
            )
        self.config.total_step = total_steps
        self.config.tinit, self.config.tfinal = int(WARMUP * total_steps), int(FINAL * total_steps)

    def before_step(self, step: int) -> None:
        """Add the regulariser's gradient."""
        parameters = [p for name, p in self.model.named_parameters() if p.requires_grad and _is_factor(name)]
        for parameter, gradient in zip(parameters, torch.autograd.grad(self.regulariser(), parameters), strict=True):
            parameter.grad.add_(gradient)

    def after_step(self, step: int) -> None:
        """Update the importance scores and take away the ranks that are over budget."""
        self.model.base_model.update_and_allocate(step)
        if self.config.rank_pattern and self.ranks() > self.budget(step):
            raise RuntimeError(f"AdaLoRA kept {self.ranks()} ranks at step {step}, over its budget {self.budget(step)}")

    def state(self) -> dict[str, torch.Tensor]:
        state = super().state()
        for scores in _SCORES:
            kept = getattr(self.model.base_model.rankallocator, scores)
            state |= {f"{scores}.{name}": tensor for name, tensor in kept.items()}
        pattern = self.config.rank_pattern or {}
        return state | {f"rank_pattern.{name}": torch.tensor(kept) for name, kept in pattern.items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        super().load_state(state)

        def of(part: str) -> dict[str, torch.Tensor]:
            return {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}

        for scores in _SCORES:
            kept = {name: tensor.to(self.model.device) for name, tensor in of(scores).items()}
            setattr(self.model.base_model.rankallocator, scores, kept)
        self.config.rank_pattern = {name: kept.tolist() for name, kept in of("rank_pattern").items()} or None

    def regulariser(self) -> torch.Tensor:
        r"""PEFT's form of the regulariser: `ORTHOGONALITY` times the mean of :math:`\lVert P^\top P - I \rVert_F` and
        its like for Q, over all layers and not squared."""
        terms = []
        for name, parameter in self.model.named_parameters():
            if _is_factor(name):
                gram = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
                terms.append((gram - torch.eye(len(gram), device=gram.device)).norm())
        return ORTHOGONALITY * torch.stack(terms).mean()

    def budget(self, step: int) -> int:
        """Ranks that all layers may have together after the 1-based `step`: the cubic schedule."""
        return self.model.base_model.rankallocator.budget_schedule(step)[0]

    def ranks(self) -> int:
        """Ranks that are left, of all layers together."""
        if not self.config.rank_pattern:
            return self.model.base_model.rankallocator.init_bgt
        return sum(sum(kept) for kept in self.config.rank_pattern.values())


def _is_factor(name: str) -> bool:
    return "lora_A" in name or "lora_B" in name
