"""Every method by one name."""

from typing import TYPE_CHECKING, Any

from ftkit.errors import ConfigError
from ftkit.methods.adapted import is_quantised, resolve_targets
from ftkit.methods.adapter import Adapter
from ftkit.methods.lora import attach_lora
from ftkit.methods.registry import check
from ftkit.models import base_record

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def attach(
    model: "PreTrainedModel",
    method: str = "lora",
    *,
    r: int,
    lora_alpha: float | None = None,
    lora_dropout: float = 0.0,
    target_modules: list[str] | None = None,
    modules_to_save: list[str] | None = None,
    use_rslora: bool = False,
    delta_lora_start_step: int | None = None,
    delta_lora_ratio: float = 2.0,
    seed: int = 42,
) -> Adapter:
    """Freeze `model` and attach an adapter of the given method.

    Args:
        model: the causal model; wrapped in place.
        method: a name of `METHODS`. "lora+" is "lora" with other parameter groups (`parameter_groups`).
        r: rank; for "adalora" the average at the end.
        lora_alpha: scale, `lora_alpha / r`; default 2 r, and 2 sqrt(r) under rsLoRA: a factor of 2. VeRA has none.
        use_rslora: the scale is `lora_alpha / sqrt(r)`; implied by "rslora".
        delta_lora_start_step, delta_lora_ratio: see `DeltaLoRA`.
        lora_dropout, target_modules, modules_to_save, seed: as for `attach_lora`.

    Raises:
        ConfigError: a combination that `registry` refuses, or a target that does not fit.
    """
    use_rslora = use_rslora or method == "rslora"
    asked = {
        "lora_dropout": lora_dropout > 0,
        "use_rslora": use_rslora,
        "lora_alpha": lora_alpha is not None,
        "quantised_base": is_quantised(model),
    }
    check(method, [feature for feature, yes in asked.items() if yes])
    fused = resolve_targets(model, target_modules).target_parameters
    if fused:
        try:
            check(method, ["fused_experts"])
        except ConfigError as error:
            raise ConfigError(f"{error} This family has {fused[0]}; name its attention in target_modules.") from None
    common: dict[str, Any] = {
        "r": r,
        "target_modules": target_modules,
        "modules_to_save": modules_to_save,
        "seed": seed,
        "lora_dropout": lora_dropout,
    }
    if method != "vera":
        default = 2 * r**0.5 if use_rslora else 2 * r
        common["lora_alpha"] = default if lora_alpha is None else lora_alpha
    if method not in ("vera", "adalora"):
        common["use_rslora"] = use_rslora
    delta = {"start_step": delta_lora_start_step, "ratio": delta_lora_ratio}
    base = base_record.of(model)
    adapter = _make(model, method, common, delta)
    adapter.base = base
    return adapter


def _make(model: "PreTrainedModel", method: str, common: dict[str, Any], delta: dict[str, Any]) -> Adapter:
    if method == "vera":
        from ftkit.methods.vera import attach_vera

        return Adapter(attach_vera(model, dropout=common.pop("lora_dropout"), **common))
    if method == "adalora":
        from ftkit.methods.adalora import AdaLoRA

        return AdaLoRA(model, **common)
    if method == "delta-lora":
        from ftkit.methods.delta_lora import DeltaLoRA

        return DeltaLoRA(model, **delta, **common)
    if method == "pissa":
        from ftkit.methods.pissa import PiSSA

        return PiSSA(model, **common)
    if method == "lora-fa":
        from ftkit.methods.lora_fa import attach_lora_fa

        return Adapter(attach_lora_fa(model, **common))
    return Adapter(attach_lora(model, use_dora=method == "dora", **common))
