r"""VeRA on PEFT: one random pair of matrices for all layers, two trained vectors for each.

Kopiczko, Blankevoort and Asano, *VeRA: Vector-based Random Matrix Adaptation*, arXiv 2310.11454, equation 2:
:math:`h = W_0 x + \Lambda_b B \Lambda_d A x`, with A (r, d_in) and B (d_out, r) frozen and shared.
"""

from typing import TYPE_CHECKING

from ftkit.errors import ConfigError
from ftkit.methods.adapted import resolve_targets, saving, wanted_layers, wrap

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def attach_vera(
    model: "PreTrainedModel",
    *,
    r: int,
    dropout: float = 0.0,
    target_modules: list[str] | None = None,
    modules_to_save: list[str] | None = None,
    seed: int = 42,
) -> "PeftModel":
    """Freeze `model` and put VeRA beside its linear layers; the vectors are fp32 whatever the base is.

    Args:
        model: the causal model, without fused experts among the targets; wrapped in place.
        r: rank, trained r + d_out numbers a layer; the paper takes 256 to 1024 where LoRA takes 8 to 64.
        dropout: on the input.
        target_modules: suffixes of module names; `None` takes the family's table.
        modules_to_save: modules trained whole and saved with the adapter.
        seed: of the shared pair, which is saved with the adapter: r (max d_in + max d_out) numbers, once.

    Raises:
        ConfigError: a target names no linear layer, or tied embeddings are to be trained whole, which would untie them.
    """
    from peft import VeraConfig

    targets, whole = resolve_targets(model, target_modules), saving(model, modules_to_save)
    if whole.pop("ensure_weight_tying"):
        raise ConfigError(
            f"modules_to_save={list(modules_to_save)} would untie this model's embeddings, which PEFT's VeRA cannot "
            "prevent; leave it out, or use method='lora'."
        )
    config = VeraConfig(
        task_type="CAUSAL_LM",
        r=r,
        vera_dropout=dropout,
        # VeRA's configuration cannot exclude: where something is left out, the rest is named in full.
        target_modules=sorted(wanted_layers(model, targets)) if targets.exclude_modules else targets.target_modules,
        projection_prng_key=seed,
        **whole,
    )
    return wrap(model, config, targets, seed)
