"""Published numbers of trained parameters, recomputed to the unit from real configurations without weights."""

import pytest
import torch
from transformers import AutoModel, LlamaConfig, RobertaConfig

from ftkit.methods.adapted import wanted_layers
from ftkit.methods.registry import trained_numbers
from ftkit.models.families import LoraTargets

ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
ALL, QV, DORA = ATTENTION + MLP, ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
CONFIGS = {
    "LLaMA 7B": LlamaConfig(),
    "LLaMA 13B": LlamaConfig(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40),
    "Llama 3.2 3B": LlamaConfig(
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128256,
    ),
    "RoBERTa base": RobertaConfig(),
    "RoBERTa large": RobertaConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16
    ),
}
SQUARE = {"GPT-3": (96, 12288), "GPT-2 M": (24, 1024), "GPT-2 L": (36, 1280)}  # q and v of (layers, width)


def count(model, targets, method, r):
    if model in SQUARE:
        layers, width = SQUARE[model]
        return layers * len(targets) * trained_numbers(method, r, width, width)
    with torch.device("meta"):
        body = AutoModel.from_config(CONFIGS[model])
    names = [{"q_proj": "query", "v_proj": "value"}[t] for t in targets] if "RoBERTa" in model else list(targets)
    found = wanted_layers(body, LoraTargets(names, [], None)).values()
    return sum(trained_numbers(method, r, d_in, d_out) for _, d_in, d_out in found)


@pytest.mark.parametrize(
    ("model", "targets", "method", "r", "numbers"),
    [
        # LoRA, arXiv 2106.09685: 4.7M, 37.7M, 302M; 0.3M, 0.8M
        ("GPT-3", QV, "lora", 1, 4_718_592),
        ("GPT-3", QV, "lora", 8, 37_748_736),
        ("GPT-3", QV, "lora", 64, 301_989_888),
        ("RoBERTa base", QV, "lora", 8, 294_912),
        ("RoBERTa large", QV, "lora", 8, 786_432),
        # VeRA, arXiv 2310.11454, table 1 and its instruction tuning
        ("LLaMA 7B", ALL, "vera", 256, 1_417_216),
        ("RoBERTa base", QV, "vera", 1, 18_456),
        ("RoBERTa base", QV, "vera", 16, 18_816),
        ("RoBERTa base", QV, "vera", 256, 24_576),
        ("LLaMA 7B", ALL, "lora", 64, 159_907_840),
        ("LLaMA 13B", ALL, "lora", 64, 250_347_520),
        ("LLaMA 7B", ALL, "vera", 1024, 1_589_248),
        ("LLaMA 13B", ALL, "vera", 1024, 2_416_640),
        # DoRA, arXiv 2402.09353: 0.83%, 0.84%, 0.43% of LLaMA 7B
        ("LLaMA 7B", DORA, "lora", 32, 56_098_816),
        ("LLaMA 7B", DORA, "dora", 32, 56_975_360),
        ("LLaMA 7B", DORA, "dora", 16, 28_925_952),
        # PEFT's comparison on MetaMathQA
        ("Llama 3.2 3B", QV, "lora", 32, 9_175_040),
        ("Llama 3.2 3B", QV, "rslora", 64, 18_350_080),
        ("Llama 3.2 3B", MLP, "lora", 10, 9_461_760),
        ("Llama 3.2 3B", QV, "dora", 32, 9_289_728),
        ("Llama 3.2 3B", QV, "lora-fa", 32, 3_670_016),
        ("Llama 3.2 3B", QV, "vera", 256, 129_024),
        # LitGPT's table
        ("LLaMA 7B", QV, "lora", 8, 4_194_304),
    ],
)
def test_it_comes_out_to_the_unit(model, targets, method, r, numbers):
    assert count(model, targets, method, r) == numbers


@pytest.mark.parametrize(
    ("model", "method", "r", "printed", "unit", "formula"),
    [
        ("GPT-3", "vera", 16, 2.8e6, 0.1e6, 2_362_368),  # L (d + 128 r) gives the printed 2.8M
        ("GPT-3", "vera", 256, 8.7e6, 0.1e6, 2_408_448),
        ("RoBERTa large", "vera", 16, 49.5e3, 0.1e3, 49_920),
        ("GPT-2 M", "lora", 4, 0.35e6, 0.01e6, 393_216),
        ("GPT-2 L", "lora", 4, 0.77e6, 0.01e6, 737_280),
    ],
)
def test_these_do_not_come_out_as_printed(model, method, r, printed, unit, formula):
    assert count(model, QV, method, r) == formula
    assert abs(formula - printed) > unit / 2  # more than rounding
