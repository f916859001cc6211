"""What a trainer says about memory before it loads."""

import pytest
from transformers import Lfm2Config, Lfm2ForCausalLM

from ftkit.errors import ModelError
from ftkit.memory.estimator import estimate
from ftkit.methods.by_name import attach
from ftkit.models.loading import load, load_tokenizer
from ftkit.training.config import LoRAConfig
from ftkit.training.lora import LoRAFineTuner
from ftkit.training.memory import memory_notice

ON_GPU = {"method": "lora", "dtype": "bfloat16", "device": "cuda"}


def test_it_warns_where_a_run_will_not_or_may_not_fit():
    config = LoRAConfig(model_name="meta-llama/Llama-3.1-8B", batch_size=1, max_seq_length=1024)
    run = estimate("llama-3-8b", method="lora", batch_size=1, sequence_length=1024)
    assert "will not fit" in memory_notice(config, available=run.static_bytes - 1, **ON_GPU)[1]
    assert "may not fit" in memory_notice(config, available=run.upper_bytes - 1, **ON_GPU)[1]
    notice, warning = memory_notice(config, available=run.upper_bytes, **ON_GPU)
    assert warning == "" and f"{run.static_bytes / 1e9:.2f} GB" in notice


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("targets", [None, ("q_proj", "v_proj")])
def test_the_notice_counts_what_delta_lora_keeps_beside(dtype, targets):
    settings = {"lora_r": 4, "target_modules": targets, "batch_size": 1, "max_seq_length": 64}
    base = load("tiny-qwen3", dtype=dtype, verbose=False)[0]
    adapter = attach(base, "delta-lora", r=4, target_modules=targets, delta_lora_start_step=0)
    adapter.begin(1)
    kept = [tensor for factors in (adapter.start, adapter.last) for pair in factors.values() for tensor in pair]
    kept += list(adapter.master.values()) if dtype == "bfloat16" else []  # a float32 base is its own
    beside = sum(tensor.nbytes for tensor in kept)

    where = {"method": "lora", "dtype": dtype, "device": "cpu"}
    names = {"precision": "float32" if dtype == "float32" else "mixed", "target_modules": targets, "device": "cpu"}
    lora = estimate("tiny-qwen3", method="lora", rank=4, batch_size=1, sequence_length=64, **names)
    config = LoRAConfig(model_name="tiny-qwen3", method="delta-lora", **settings)
    enough = lora.static_bytes + beside
    assert "will not fit" in memory_notice(config, available=enough - 1, **where)[1]
    assert "will not fit" not in memory_notice(config, available=enough, **where)[1]
    notice, warning = memory_notice(config, available=lora.upper_bytes + beside, **where)
    assert warning == "" and "Delta-LoRA keeps from its start step on" in notice


def test_the_trainer_says_it_before_it_loads(capsys):
    LoRAFineTuner(LoRAConfig(model_name="tiny-qwen3", lora_r=4)).load_model_and_tokenizer()
    out = capsys.readouterr().out
    assert out.index("memory: ") < out.index("tiny-qwen3: float32") < out.index("parameters train")


def test_a_model_that_does_not_exist_is_reported_by_loading_it(capsys):
    with pytest.raises(ModelError, match="tiny-lama3"):
        LoRAFineTuner(LoRAConfig(model_name="tiny-lama3")).load_model_and_tokenizer()
    assert "memory:" not in capsys.readouterr().out


def test_a_model_with_unknown_layers_trains_without_an_estimate(tmp_path, capsys):
    layers = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    tokenizer = load_tokenizer("tiny-qwen3")
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Lfm2Config(vocab_size=len(tokenizer), **layers, **sizes, **ends)
    for part in (Lfm2ForCausalLM(config), tokenizer):
        part.save_pretrained(tmp_path / "base")
    run = {"output_dir": str(tmp_path / "run"), "max_steps": 2, "batch_size": 1, "gradient_accumulation_steps": 1}
    row = [{"role": "user", "content": "red?"}, {"role": "assistant", "content": "green"}]
    data = {"train": [{"messages": row}] * 4}
    LoRAFineTuner(LoRAConfig(model_name=str(tmp_path / "base"), lora_r=4, **run), data).train()
    assert "memory: not estimated (model.layers.0.conv" in capsys.readouterr().out
