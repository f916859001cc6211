"""The configurations behind the catalogue, as published, and the script that writes it.

python -m ftkit.memory.configurations        rewrites ftkit/memory/catalogue.json
"""

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ftkit.memory.catalogue import FILE
from ftkit.memory.describe import describe

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

GEMMA_NOTE = "The text decoder alone: the vision tower of the published checkpoint is not counted."


def _llama(hidden, layers, heads, kv_heads, ffn, vocabulary=128_256, tied=False) -> "PreTrainedConfig":
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=ffn,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
    )


def _qwen3(hidden, layers, heads, ffn, tied=False) -> "PreTrainedConfig":
    from transformers import Qwen3Config

    return Qwen3Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=ffn,
        vocab_size=151_936,
        tie_word_embeddings=tied,
    )


def _qwen3_moe(hidden, layers, heads, kv_heads, moe_ffn) -> "PreTrainedConfig":
    from transformers import Qwen3MoeConfig

    return Qwen3MoeConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=moe_ffn,
        vocab_size=151_936,
        tie_word_embeddings=False,
    )


def _gemma3(hidden, layers, heads, kv_heads, head_dim, ffn, vocabulary=262_208, window=1024) -> "PreTrainedConfig":
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=ffn,
        vocab_size=vocabulary,
        sliding_window=window,
        # Five sliding layers, then one that sees everything.
        layer_types=["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)],
        tie_word_embeddings=True,
    )


def _llama4_scout() -> "PreTrainedConfig":
    from transformers import Llama4TextConfig

    return Llama4TextConfig(
        hidden_size=5120,
        num_hidden_layers=48,
        num_attention_heads=40,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=8192,
        intermediate_size_mlp=16_384,
        interleave_moe_layer_step=1,
        num_local_experts=16,
        num_experts_per_tok=1,
        vocab_size=202_048,
        tie_word_embeddings=False,
    )


def _deepseek(version: str) -> "PreTrainedConfig":
    """DeepSeek's sizes are the defaults of the configuration classes; the layer for multi-token prediction is not
    part of the model that transformers trains."""
    import transformers

    return getattr(transformers, f"Deepseek{version}Config")()


MODELS: dict[str, tuple[Callable[[], "PreTrainedConfig"], tuple[str, ...], str]] = {
    # name: configuration, other names, note
    "llama-2-7b": (lambda: _llama(4096, 32, 32, 32, 11_008, 32_000), ("llama-7b",), ""),
    "llama-2-13b": (lambda: _llama(5120, 40, 40, 40, 13_824, 32_000), ("llama-13b",), ""),
    "llama-2-70b": (lambda: _llama(8192, 80, 64, 8, 28_672, 32_000), (), ""),
    "llama-3-8b": (lambda: _llama(4096, 32, 32, 8, 14_336), ("llama-3.1-8b",), ""),
    "llama-3-70b": (lambda: _llama(8192, 80, 64, 8, 28_672), ("llama-3.1-70b", "llama-3.3-70b"), ""),
    "llama-3.1-405b": (lambda: _llama(16_384, 126, 128, 8, 53_248), (), ""),
    "llama-3.2-1b": (lambda: _llama(2048, 16, 32, 8, 8192, tied=True), (), ""),
    "llama-3.2-3b": (lambda: _llama(3072, 28, 24, 8, 8192, tied=True), (), ""),
    "llama-4-scout": (
        _llama4_scout,
        ("llama-4-scout-17b-16e",),
        "The text decoder alone: the vision tower of the published checkpoint is not counted.",
    ),
    "qwen3-0.6b": (lambda: _qwen3(1024, 28, 16, 3072, tied=True), (), ""),
    "qwen3-1.7b": (lambda: _qwen3(2048, 28, 16, 6144, tied=True), (), ""),
    "qwen3-4b": (lambda: _qwen3(2560, 36, 32, 9728, tied=True), (), ""),
    "qwen3-8b": (lambda: _qwen3(4096, 36, 32, 12_288), (), ""),
    "qwen3-14b": (lambda: _qwen3(5120, 40, 40, 17_408), (), ""),
    "qwen3-32b": (lambda: _qwen3(5120, 64, 64, 25_600), (), ""),
    "qwen3-30b-a3b": (lambda: _qwen3_moe(2048, 48, 32, 4, 768), (), ""),
    "gemma-3-1b": (lambda: _gemma3(1152, 26, 4, 1, 256, 6912, 262_144, 512), (), ""),
    "gemma-3-4b": (lambda: _gemma3(2560, 34, 8, 4, 256, 10_240), (), GEMMA_NOTE),
    "gemma-3-12b": (lambda: _gemma3(3840, 48, 16, 8, 256, 15_360), (), GEMMA_NOTE),
    "gemma-3-27b": (lambda: _gemma3(5376, 62, 32, 16, 128, 21_504), (), GEMMA_NOTE),
    "deepseek-v3": (
        lambda: _deepseek("V3"),
        ("deepseek-r1", "deepseek-v3.1"),
        "The published total also counts the router's correction biases, which are buffers; neither counts the layer "
        "for multi-token prediction.",
    ),
    "deepseek-v3.2": (
        lambda: _deepseek("V32"),
        (),
        "The published total also counts the router's correction biases, which are buffers; neither counts the layer "
        "for multi-token prediction. The indexer runs without gradients.",
    ),
    "smollm2-135m": (lambda: _llama(576, 30, 9, 3, 1536, 49_152, tied=True), ("embedded",), ""),
    "smollm2-360m": (lambda: _llama(960, 32, 15, 5, 2560, 49_152, tied=True), (), ""),
    "smollm2-1.7b": (lambda: _llama(2048, 24, 32, 32, 8192, 49_152, tied=True), (), ""),
}


def generate() -> str:
    """The catalogue as the text of its file, one line a shape."""
    models = {}
    for name, (configuration, aliases, note) in MODELS.items():
        architecture = describe(configuration(), note)
        models[name] = {
            "aliases": list(aliases),
            "total_parameters": architecture.parameters,
            "total_with_buffers": architecture.parameters + architecture.buffers,
            "active_parameters": architecture.active_parameters,
            "architecture": architecture.to_dict(),
        }
    lines = ["{"]
    for i, (name, model) in enumerate(models.items()):
        shapes = model["architecture"].pop("shapes")
        lines.append(f'{json.dumps(name)}: {json.dumps(model)[:-2]}, "shapes": [')
        lines.append(",\n".join(f"  {json.dumps(shape)}" for shape in shapes))
        lines.append("]}}" + "," * (i < len(models) - 1))
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    beside = FILE.with_suffix(".tmp")
    beside.write_text(generate(), encoding="utf-8")
    os.replace(beside, FILE)
    print(f"{FILE}: {len(MODELS)} models")
