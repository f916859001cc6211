"""From a configuration to an `Architecture`, through the meta device: real modules, no weights."""

from collections import Counter
from typing import TYPE_CHECKING

from ftkit.errors import ModelError, UnknownLayout
from ftkit.memory.shapes import Architecture, Shape

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel


def describe(config: "PreTrainedConfig", note: str = "") -> Architecture:
    """The architecture of the text decoder that `config` describes; a vision tower is left out, and the note says so.

    Raises:
        ModelError: transformers has no causal language model for it.
        UnknownLayout: its parameters have a layout unknown here.
    """
    import torch
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    if text is not config:
        note = f"{note} The text decoder alone: the vision tower is not counted.".strip()
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(text, trust_remote_code=False)
    except ValueError as error:
        raise ModelError(
            f"model type {text.model_type!r}: transformers has no causal language model for it."
        ) from error
    shapes = _shapes(model)
    return Architecture(model_type=text.model_type, shapes=shapes, note=note, **_facts(text, model, shapes))


def _facts(config: "PreTrainedConfig", model: "PreTrainedModel", shapes: tuple[Shape, ...]) -> dict:
    def get(*names: str, default: int = 0) -> int:
        return next((v for n in names if (v := getattr(config, n, None)) is not None), default)

    latent = get("kv_lora_rank")
    head_dim = get("head_dim", default=config.hidden_size // config.num_attention_heads)
    layers = config.num_hidden_layers
    experts = next((s.stack for s in shapes if s.kind == "expert"), 0)
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    window = get("sliding_window")
    types = getattr(config, "layer_types", None) or []
    facts = {
        "hidden": config.hidden_size,
        "layers": layers,
        "heads": config.num_attention_heads,
        "kv_heads": get("num_key_value_heads", default=config.num_attention_heads),
        "head_dim": config.qk_nope_head_dim + config.qk_rope_head_dim if latent else head_dim,
        "v_head_dim": config.v_head_dim if latent else head_dim,
        "rope_dim": config.qk_rope_head_dim if latent else 0,
        "q_rank": get("q_lora_rank") if latent else 0,
        "kv_rank": latent,
        "qk_norm": bool({"q_norm", "qk_norm"} & names),
        "norm": "gemma" if config.model_type.startswith("gemma") else "llama",
        "sandwich": "pre_feedforward_layernorm" in names,
        "sliding_layers": types.count("sliding_attention") if window else 0,
        "sliding_window": window if "sliding_attention" in types else 0,
        "ffn": next((s.d_out for s in shapes if s.name == "up_proj" and s.where == "mlp"), 0),
    }
    if experts:
        expert = next((s for s in shapes if s.kind == "expert" and s.name == "gate_up_proj"), None)
        if expert is None:
            names = ", ".join(sorted({s.name for s in shapes if s.kind == "expert"}))
            raise UnknownLayout(
                f"model type {config.model_type!r} holds its experts as {names}; the estimator knows gate_up_proj and "
                "down_proj, so it cannot say what memory this model takes."
            )
        facts |= {
            "moe_layers": expert.count,
            "experts": experts,
            "top_k": config.num_experts_per_tok,
            "moe_ffn": expert.d_out // 2,
            "shared_ffn": next((s.d_out for s in shapes if s.name == "up_proj" and s.where == "shared"), 0),
        }
    return facts


def _shapes(model: "PreTrainedModel") -> tuple[Shape, ...]:
    """Every parameter and saved buffer, grouped; tensors of equal kind, name and size are counted."""
    from ftkit.models.families import lora_targets

    targets = lora_targets(model)
    beside = tuple(f".{name}.weight" for name in targets.target_modules)
    on_weight = tuple(f".{name}" for name in targets.target_parameters)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    found: Counter[Shape] = Counter()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter is embedding or parameter is head:
                continue
            full = f"{module_name}.{name}"
            adapted = "module" if full.endswith(beside) else "parameter" if full.endswith(on_weight) else ""
            found[_shape(full, module, parameter, model.config.hidden_size, adapted)] += 1
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set and buffer.ndim:
                found[Shape("buffer", name, 1, buffer.numel(), 0)] += 1
    rows, width = embedding.shape
    outer = (
        Shape("embedding", "embed_tokens", rows, width, 1),
        Shape("head", "lm_head", head.shape[1], head.shape[0], 1, tied=head is embedding),
    )
    return outer + tuple(Shape(**(vars(shape) | {"count": n})) for shape, n in found.items())


def _shape(full: str, module: "nn.Module", parameter, hidden: int, adapted: str) -> Shape:
    from torch import nn

    owner, _, name = full.rpartition(".")
    short = owner.rpartition(".")[2]
    if "indexer" in owner:
        where = "indexer"
    elif "self_attn" in owner:
        where = "attention"
    elif "shared_expert" in owner:
        where = "shared"
    elif ".experts" in owner or "router" in owner or owner.endswith(".gate"):
        where = "moe"
    else:
        where = "mlp" if ".mlp" in owner or ".feed_forward" in owner else ""
    if isinstance(module, nn.Conv1d):
        raise UnknownLayout(
            f"{full} belongs to a convolution; the estimator knows attention and MLPs, so it cannot say what memory "
            "this model takes."
        )
    if parameter.ndim == 1:
        return Shape("vector", short if name == "weight" else f"{short}.{name}", 1, parameter.numel(), 0, where=where)
    if parameter.ndim == 3:
        # Families store experts as (experts, out, in) or (experts, in, out): the width says which.
        widths = parameter.shape[1:]
        d_in, d_out = (hidden, widths.numel() // hidden)
        if name != "gate_up_proj":
            d_in, d_out = d_out, d_in
        return Shape("expert", name, d_in, d_out, 0, parameter.shape[0], adapted, where)
    if parameter.ndim != 2:
        raise UnknownLayout(
            f"{full} has {parameter.ndim} dimensions; the estimator knows vectors, matrices and experts."
        )
    kind = "router" if where == "moe" else "indexer" if where == "indexer" else "linear"
    if kind == "linear" and not isinstance(module, nn.Linear):
        raise UnknownLayout(f"{full} is a matrix outside a linear layer; the estimator does not know what it does.")
    return Shape(kind, short, parameter.shape[1], parameter.shape[0], 0, 1, adapted if kind == "linear" else "", where)
