"""The cases that the calculator page shares with Python, in `tests/memory/calculator_cases.json`.

python -m tests.memory.test_calculator_cases      writes the file anew
"""

import json
from pathlib import Path

from ftkit.memory.catalogue import known_models
from ftkit.memory.estimator import METHODS, estimate

FILE = Path(__file__).with_name("calculator_cases.json")
SETTINGS = (
    {},
    {"rank": 8, "batch_size": 1, "sequence_length": 512, "use_gradient_checkpointing": False},
    {"precision": "float32", "padded": False, "device": "cpu", "chunked_loss": False, "attn_implementation": "eager"},
    {"shards": 8, "lora_dropout": 0.1, "train_embeddings": True, "optimizer": "adamw_8bit", "trained_tokens": 300},
    {"precision": "autocast", "use_gradient_checkpointing": True, "wide_dtype": "float32", "quantize_experts": False},
    {"precision": "bfloat16", "attn_implementation": "flash_attention_2", "double_quantization": False, "padded": True},
)
RESULTS = (
    *("total_parameters", "total_with_buffers", "trainable_parameters"),
    *("components", "total_bytes", "lower_bytes", "upper_bytes"),
)


def cases() -> list[dict]:
    """Every model with every method, and the settings in turn; all settings for one model of each kind."""
    found = []
    for i, model in enumerate(known_models()):
        for j, method in enumerate(METHODS):
            every = model in ("llama-3-8b", "gemma-3-4b", "qwen3-30b-a3b", "deepseek-v3.2", "llama-4-scout")
            for settings in SETTINGS if every else [SETTINGS[(i + j) % len(SETTINGS)]]:
                result = estimate(model, method=method, **settings).to_dict()
                expected = {name: result[name] for name in RESULTS}
                found.append({"model": model, "settings": {"method": method} | settings, "expected": expected})
    return found


def text() -> str:
    return "[\n" + ",\n".join(json.dumps(case) for case in cases()) + "\n]\n"


def test_the_cases_are_what_python_says():
    assert FILE.read_text() == text()


if __name__ == "__main__":
    FILE.write_text(text())
