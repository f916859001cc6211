"""Shared by all tests: offline, quiet, and a small task that a tiny model can be trained on in seconds."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import pytest


@pytest.fixture
def rows():
    """Twelve conversations of different lengths."""
    words = "one two three four five six seven eight nine ten eleven twelve".split()
    return [
        {
            "messages": [
                {"role": "user", "content": "Say " + " ".join(words[: i + 1])},
                {"role": "assistant", "content": " ".join(reversed(words[: i + 1]))},
            ]
        }
        for i in range(len(words))
    ]


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """Name of a tiny model to the folder of a model like it whose widths are whole blocks of 64: as in real models,
    every linear layer that can becomes bitsandbytes' `Linear4bit` in 4 bits."""
    made = {}

    def folder(name: str) -> str:
        if name not in made:
            made[name] = _wide(name, tmp_path_factory.mktemp("wide") / name)
        return made[name]

    return folder


def _wide(name, path):
    import torch
    from transformers import AutoModelForCausalLM

    from ftkit.models.tiny import build_config, build_tokenizer

    config, tokenizer = build_config(name), build_tokenizer(name)
    text = config.get_text_config()
    text.hidden_size = 384 if name == "tiny-smollm" else 128
    text.head_dim = 64
    config.initializer_range = text.initializer_range = 0.05  # 1 / sqrt(384), see tiny.INIT_STD
    text.intermediate_size = 192
    if "deepseek" in name:
        for field in ("q_lora_rank", "kv_lora_rank", "moe_intermediate_size", "qk_head_dim"):
            setattr(text, field, 64)
        text.qk_nope_head_dim, text.qk_rope_head_dim, text.v_head_dim, text.head_dim = 48, 16, 32, 16
    if name == "tiny-qwen3-moe":
        text.moe_intermediate_size = 64
    if name == "tiny-llama4":
        text.intermediate_size, text.intermediate_size_mlp = 64, 192
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)
