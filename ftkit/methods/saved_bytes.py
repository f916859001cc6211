"""What a forward pass keeps for the backward pass, in bytes: where LoRA-FA's saving is, and where it is lost."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ftkit.methods.by_name import attach
from ftkit.methods.lora_fa import attach_lora_fa
from ftkit.models.loading import quantize_model
from ftkit.models.quantized import Quantization, parts_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ROWS = ("full", "lora", "qlora", "lora-fa", "vera", "dora")
"""Rows of the table, the trained whole model first; qlora is lora on a base in 4 bits."""


def saved_for_backward(model: torch.nn.Module, forward: Callable[[], object]) -> int:
    """Bytes that autograd keeps when `forward` runs.

    Each storage counts once, whoever keeps it. Parameters and buffers of `model` do not count: they are there anyway.
    """
    own = (part for tensor in (*model.parameters(), *model.buffers()) for part in parts_of(tensor))
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    kept: dict[int, torch.UntypedStorage] = {}  # the storages themselves, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        for part in parts_of(tensor):
            storage = part.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = forward()
    del graph
    return sum(storage.nbytes() for storage in kept.values())


def decoder() -> "PreTrainedConfig":
    """A Llama decoder whose activations are large beside its bookkeeping: width 256, 4 layers."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
    )


def measure(
    method: str,
    *,
    r: int = 8,
    lora_dropout: float = 0.0,
    batch: int = 4,
    length: int = 128,
    dtype: torch.dtype = torch.float32,
    config: "PreTrainedConfig | None" = None,
    train_a_of: tuple[str, ...] = (),
) -> int:
    """Bytes kept for one forward pass of a decoder, without embedding and head.

    Args:
        method: one of `ROWS`.
        r: rank.
        lora_dropout: of PEFT's layers, also where ftkit refuses it (LoRA-FA), to show what it costs.
        batch, length: rows and tokens a row.
        dtype: of base and adapters alike.
        config: the decoder; default is `decoder`'s.
        train_a_of: under "lora-fa", names of layers whose A trains after all.
    """
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config or decoder())
        ids = torch.randint(model.config.vocab_size, (batch, length))
        if method == "full":
            body = model.model
        elif method == "lora-fa":
            # Not by `attach`, which refuses the dropout that is to be shown.
            adapted = attach_lora_fa(model, r=r, lora_alpha=2 * r, lora_dropout=lora_dropout)
            for name, parameter in adapted.named_parameters():
                if "lora_A" in name and any(f".{layer}." in name for layer in train_a_of):
                    parameter.requires_grad_()
            body = adapted.get_base_model().model
        else:
            if method == "qlora":
                model, method = quantize_model(model, Quantization()), "lora"
            body = attach(model, method, r=r, lora_dropout=lora_dropout).model.get_base_model().model
        body = body.to(dtype).train()
        # The embedding's output must ask for a gradient, as it does when a layer below trains.
        inputs = body.embed_tokens(ids).detach().requires_grad_()
        return saved_for_backward(body, lambda: body(inputs_embeds=inputs, use_cache=False).last_hidden_state)


def table(**settings) -> str:
    """MiB kept for the backward pass by method, without and with dropout; arguments of `measure`."""
    lines = [f"{'method':10} {'dropout 0':>10} {'dropout 0.1':>12}   MiB kept for the backward pass"]
    for method in ROWS:
        none = measure(method, **settings) / 2**20
        some = "" if method == "full" else f"{measure(method, lora_dropout=0.1, **settings) / 2**20:.1f}"
        note = "  ftkit refuses the dropout" * (method == "lora-fa")
        lines.append(f"{method:10} {none:10.1f} {some:>12}{note}")
    return "\n".join(lines)
