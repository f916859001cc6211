"""What was asked to be adapted, what really was, and how many numbers of each kind of module train."""

import re
from collections import Counter
from typing import TYPE_CHECKING

from ftkit.errors import ConfigError, near_matches
from ftkit.models.families import LoraTargets, family_of, lora_targets

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel


def resolve_targets(model: "PreTrainedModel", target_modules: "list[str] | tuple[str, ...] | None") -> LoraTargets:
    """The targets a user named, or the family's where none are named.

    A name means every linear layer of that name in the decoder: what the family keeps out (a vision tower) stays out.

    Raises:
        ConfigError: a name fits no linear layer, or it is the output head of a model with tied embeddings, whose merge
            would change the embeddings too.
    """
    from torch import nn

    if target_modules is None:
        return lora_targets(model)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    family = family_of(model)
    exclude = family.exclude_modules if family else None
    excluded = {name for name in linear if exclude and re.fullmatch(exclude, name)}
    for target in target_modules:
        found = {name for name in linear.keys() - excluded if _ends(name, target)}
        if not found:
            known = {name.rpartition(".")[2] for name in linear.keys() - excluded}
            raise ConfigError(
                f"target_modules names {target!r}, but the model has no such linear layer; it has "
                f"{', '.join(sorted(known))}.{near_matches(target, known)}"
            )
        tied = model.get_input_embeddings().weight
        if any(linear[name].weight is tied for name in found):
            raise ConfigError(
                f"target_modules names {target!r}, whose weight is also the embedding (tie_word_embeddings): merging "
                "would change both. Leave it out, or train it whole with modules_to_save."
            )
    excludes = any(_ends(name, target) for name in excluded for target in target_modules)
    return LoraTargets(list(target_modules), [], exclude if excludes else None)


def wanted_layers(model: "nn.Module", targets: LoraTargets) -> dict[str, tuple[int, int, int]]:
    """Weights that `targets` mean, before anything is attached.

    Returns:
        Name of the layer (for a weight adapted as a parameter: of the parameter) to (matrices, d_in, d_out); a fused
        tensor of experts holds several matrices, every other weight one.
    """
    from torch import nn

    layers = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and any(_ends(name, target) for target in targets.target_modules):
            if not (targets.exclude_modules and re.fullmatch(targets.exclude_modules, name)):
                layers[name] = (1, module.in_features, module.out_features)
    for name, parameter in model.named_parameters():
        if any(_ends(name, target) for target in targets.target_parameters):
            experts, d_out, d_in = parameter.shape if parameter.ndim == 3 else (1, *parameter.shape)
            if getattr(model.get_submodule(name.rpartition(".")[0]), "is_transposed", False):  # Llama 4's experts
                d_in, d_out = d_out, d_in
            layers[name] = (experts, d_in, d_out)
    return layers


def adapted_layers(model: "nn.Module") -> set[str]:
    """Weights of the base model that carry an adapter, named as by `wanted_layers`."""
    from peft.tuners.lora.layer import ParamWrapper
    from peft.tuners.tuners_utils import BaseTunerLayer

    names = set()
    for name, module in _base(model).named_modules():
        name = name.replace(".base_layer", "")
        if isinstance(module, ParamWrapper):
            names.add(f"{name}.{module.parameter_name}")
        elif isinstance(module, BaseTunerLayer):
            names.add(name)
    return names


def wrap(model: "PreTrainedModel", config: "PeftConfig", targets: LoraTargets, seed: int) -> "PeftModel":
    """`get_peft_model` with adapters in float32, drawn from `seed`, and a check of what was really adapted.

    torch's global generator is left as it was.
    """
    import torch
    from peft import get_peft_model

    wanted = wanted_layers(model, targets)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            wrapped = get_peft_model(model, config, autocast_adapter_dtype=True)
        except ValueError as error:
            raise ConfigError(f"PEFT cannot adapt what was asked for: {error}") from error
    _float32_copies(wrapped)
    check_adapted(wrapped, wanted)
    return wrapped


def _float32_copies(model: "PeftModel") -> None:
    """Train whole modules in float32 too, which PEFT copies in the base's precision: AdamW's epsilon is zero in
    float16, and small updates are lost in bfloat16. What flows in and out of them is cast where the base is narrower.
    """
    import torch
    from peft.utils import ModulesToSaveWrapper

    dtype = model.get_base_model().dtype
    if dtype == torch.float32:
        return

    def widen(module, inputs):
        return tuple(x.float() if torch.is_floating_point(x) else x for x in inputs)

    def narrow(module, inputs, output):
        return output.to(dtype) if isinstance(output, torch.Tensor) else output

    for wrapper in model.modules():
        if isinstance(wrapper, ModulesToSaveWrapper):
            for module in wrapper.modules_to_save.values():
                module.float()
                module.register_forward_pre_hook(widen)
                if wrapper is not model.get_base_model().get_output_embeddings():  # nothing follows on logits
                    module.register_forward_hook(narrow)


def check_adapted(model: "PeftModel", wanted: dict[str, tuple[int, int, int]]) -> None:
    """Compare, module by module, what carries an adapter with what was asked.

    Raises:
        ConfigError: PEFT left one out, or added one; it says nothing itself.
    """
    adapted = adapted_layers(model)
    for names, what in ((wanted.keys() - adapted, "was asked for and not"), (adapted - wanted.keys(), "was")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            without = "" if "not" in what else " without being asked for"
            raise ConfigError(
                f"{min(names)}{more} {what} adapted{without}; PEFT treats such names of this family in its own way. "
                "Leave target_modules out, so that the family's table is used."
            )


def summary(model: "nn.Module") -> str:
    """Adapted, frozen and trainable numbers per kind of module, as a table to print.

    A kind is a module's last two names without layer numbers ("self_attn.q_proj"). `adapted` counts the
    weights that carry an adapter and `frozen` those that do not, both without the adapters' own; `trainable` counts
    what the optimizer sees, in the row of the module it belongs to.
    """
    adapted, rows = adapted_layers(model), {}
    for name, parameter in _base(model).named_parameters():
        name = re.sub(r"\.(base_layer|original_module)\b", "", name)
        owner = re.split(r"\.(?:lora_|vera_|ranknum\.|modules_to_save\.)", name)[0]  # of the adapter's own numbers
        own = owner != name
        owner = owner if own else name.rpartition(".")[0]
        row = rows.setdefault(_kind(owner), Counter())
        if not own:
            carries = name in adapted or (owner in adapted and name.endswith(".weight"))
            row["adapted" if carries else "frozen"] += 0 if parameter.requires_grad else parameter.numel()
        if parameter.requires_grad:
            row["trainable"] += parameter.numel()
    total = sum(rows.values(), Counter())
    width = max(map(len, [*rows, "module"]))
    lines = [f"{'module':{width}} {'adapted':>15} {'frozen':>15} {'trainable':>15}"]
    for kind, row in [*rows.items(), ("total", total)]:
        lines.append(f"{kind:{width}} {row['adapted']:15,} {row['frozen']:15,} {row['trainable']:15,}")
    return "\n".join(lines)


def _kind(name: str) -> str:
    parts = [part for part in name.split(".") if not part.isdigit()]
    tower = "vision: " if any(part.startswith("vision_") for part in parts) else ""
    return tower + ".".join(parts[-2:])


def is_quantised(model: "nn.Module") -> bool:
    """Whether transformers loaded the base in 4 or 8 bits."""
    return bool(getattr(model, "is_quantized", False))


def saving(model: "PreTrainedModel", modules_to_save: list[str] | None) -> dict:
    """PEFT's arguments for modules trained whole; of tied embeddings one copy is trained, and they stay tied.

    Raises:
        ConfigError: a name fits no module; PEFT would train nothing for it and say nothing.
    """
    names, ends = list(modules_to_save or ()), (model.get_input_embeddings(), model.get_output_embeddings())
    modules = dict(model.named_modules())
    for target in names:
        if not any(_ends(name, target) for name in modules):
            near = near_matches(target, {name.rpartition(".")[2] for name in modules})
            raise ConfigError(f"modules_to_save names {target!r}, but the model has no such module.{near}")
    saved = [m for name, m in modules.items() if any(_ends(name, target) for target in names)]
    tied = model.config.get_text_config().tie_word_embeddings and any(m is end for m in saved for end in ends)
    return {"modules_to_save": names or None, "ensure_weight_tying": tied}


def _base(model: "nn.Module") -> "nn.Module":
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
