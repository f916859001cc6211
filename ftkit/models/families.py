"""The table of model families: where LoRA goes, what stays out of it, and which tokens end a turn.

A family is recognised by `config.model_type`, never by a piece of its name. PEFT's own defaults are not used: its
"all-linear" also takes expert routers (Llama 4's breaks on it), and on DeepSeek its rewriting of expert names drops
the dense and shared-expert MLPs without a word. Adapters made from this table load in plain PEFT.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Family:
    """Facts of one family.

    Attributes:
        name: what a reader calls it.
        model_types: values of `config.model_type` that belong to it.
        target_modules: linear layers that LoRA adapts, as last parts of module names.
        target_parameters: weights adapted as parameters, as endings of parameter names: experts that are one fused
            3-D tensor, and linear layers that PEFT would lose as modules. PEFT allows no dropout and no DoRA on these.
        exclude_modules: regular expression over full module names that are left alone although their last part
            matches; None where there are none.
        without_gradient: regular expression over full names of parameters that text does not reach, or no gradient,
            so that full fine-tuning leaves them alone; None where there are none.
        stop_tokens: tokens that end an assistant's turn, beside the eos of the generation configuration.
        notes: what else to know.
    """

    name: str
    model_types: tuple[str, ...]
    target_modules: tuple[str, ...]
    target_parameters: tuple[str, ...] = ()
    exclude_modules: str | None = None
    without_gradient: str | None = None
    stop_tokens: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True)
class LoraTargets:
    """The three arguments of `peft.LoraConfig` that say what is adapted."""

    target_modules: list[str]
    target_parameters: list[str]
    exclude_modules: str | None


FAMILIES: tuple[Family, ...] = (
    Family(
        name="Llama",
        model_types=("llama",),
        target_modules=ATTENTION + MLP,
        stop_tokens=("<|eot_id|>", "<|eom_id|>", "<|im_end|>"),
        notes="Llama 2, 3 and the SmolLM models, which share its architecture.",
    ),
    Family(
        name="Llama 4",
        model_types=("llama4", "llama4_text"),
        target_modules=ATTENTION + MLP,
        target_parameters=("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"),
        exclude_modules=r".*(vision_model|multi_modal_projector).*",
        without_gradient=r".*(vision_model|multi_modal_projector).*",
        stop_tokens=("<|eot|>", "<|eom|>"),
        notes="Dense and shared-expert MLPs are linear layers, routed experts fused tensors. The router is left alone.",
    ),
    Family(
        name="Qwen 3",
        model_types=("qwen3",),
        target_modules=ATTENTION + MLP,
        stop_tokens=("<|im_end|>",),
    ),
    Family(
        name="Qwen 3 MoE",
        model_types=("qwen3_moe",),
        target_modules=ATTENTION,
        # The last three are the MLPs of layers without experts (`mlp_only_layers`), where there are any.
        target_parameters=("mlp.experts.gate_up_proj", "mlp.experts.down_proj", *(f"{name}.weight" for name in MLP)),
        stop_tokens=("<|im_end|>",),
        notes="The router `gate` is left alone.",
    ),
    Family(
        name="DeepSeek V3",
        model_types=("deepseek_v3", "deepseek_v32"),
        # q_proj exists where q_lora_rank is None, the two q_a/q_b projections elsewhere.
        target_modules=("q_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"),
        target_parameters=("mlp.experts.gate_up_proj", "mlp.experts.down_proj", *(f"{name}.weight" for name in MLP)),
        without_gradient=r".*\.indexer\..*",
        stop_tokens=("<｜end▁of▁sentence｜>",),
        notes="The router and V3.2's indexer, which runs without gradients, are left alone.",
    ),
    Family(
        name="Gemma 3",
        model_types=("gemma3_text", "gemma3"),
        target_modules=ATTENTION + MLP,
        exclude_modules=r".*(vision_tower|multi_modal_projector).*",
        without_gradient=r".*(vision_tower|multi_modal_projector).*",
        stop_tokens=("<end_of_turn>",),
        notes="The vision tower of the multimodal models is left alone. <end_of_turn> is not the tokenizer's eos.",
    ),
)


def family_of(model_or_config: "PreTrainedModel | PreTrainedConfig") -> Family | None:
    """The family of a model or configuration; None where the table does not know its `model_type`."""
    config = getattr(model_or_config, "config", model_or_config)
    for family in FAMILIES:
        if config.model_type in family.model_types:
            return family
    return None


def lora_targets(model: "PreTrainedModel") -> LoraTargets:
    """What LoRA adapts in `model`: every linear map of the decoder's attention and MLPs, experts included.

    For a model type outside the table: every linear layer of the decoder but the output head, found by type. A
    subclass of `nn.Linear` does not count (routers are written that way and return something else), bitsandbytes'
    quantised layers do. Experts that are fused tensors are not adapted by this rule, and a router written as a plain
    linear layer is: check what was adapted before training such a model.
    """
    family = family_of(model)
    if family is None:
        return LoraTargets(_plain_linears(model), [], None)
    modules = [name for name, _ in model.named_modules()]
    parameters = [name for name, _ in model.named_parameters()]
    # Only what this model has: PEFT warns about an exclusion that excludes nothing.
    excluded = family.exclude_modules is not None and any(
        re.fullmatch(family.exclude_modules, name) for name in modules if _ends(name, family.target_modules)
    )
    return LoraTargets(
        [target for target in family.target_modules if any(_ends(name, [target]) for name in modules)],
        [target for target in family.target_parameters if any(_ends(name, [target]) for name in parameters)],
        family.exclude_modules if excluded else None,
    )


def stop_token_ids(tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel | None" = None) -> list[int]:
    """Ids on which generation stops, ascending: every family's end-of-turn tokens that the vocabulary has, the
    tokenizer's eos and, where a model is given, the eos ids of its generation configuration."""
    eos = model.generation_config.eos_token_id if model is not None else None
    ids = {*(eos if isinstance(eos, list) else [eos]), tokenizer.eos_token_id}
    for token in {token for family in FAMILIES for token in family.stop_tokens}:
        token_id = tokenizer.convert_tokens_to_ids(token)
        if token_id is not None and tokenizer.convert_ids_to_tokens(token_id) == token:  # unknown ones become <unk>
            ids.add(token_id)
    return sorted(ids - {None})


def _ends(name: str, targets: "list[str] | tuple[str, ...]") -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _plain_linears(model: "PreTrainedModel") -> list[str]:
    """Names of the decoder's linear layers: the last part alone where it names nothing else in the model."""
    from torch import nn

    decoder = {id(module) for module in model.get_decoder().modules()}
    head = model.get_output_embeddings()
    names = {
        name
        for name, module in model.named_modules()
        if id(module) in decoder
        and module is not head
        and (type(module) is nn.Linear or type(module).__module__.startswith("bitsandbytes."))
        and isinstance(module, nn.Linear)
    }
    leaves = {name.rpartition(".")[2] for name in names}
    others = {
        leaf for name, _ in model.named_modules() if (leaf := name.rpartition(".")[2]) in leaves and name not in names
    }
    return sorted({name if (leaf := name.rpartition(".")[2]) in others else leaf for name in names})
