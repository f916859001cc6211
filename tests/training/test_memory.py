"""What a trainer says about memory before it loads."""

import pytest

from ftkit.errors import ModelError
from ftkit.memory.estimator import estimate
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


def test_the_trainer_says_it_before_it_loads(capsys):
    LoRAFineTuner(LoRAConfig(model_name="tiny-qwen3", lora_r=4)).load_model_and_tokenizer()
    out = capsys.readouterr().out
    assert out.index("memory: ") < out.index("tiny-qwen3: float32") < out.index("parameters train")


def test_a_model_that_does_not_exist_is_reported_by_loading_it(capsys):
    with pytest.raises(ModelError, match="tiny-lama3"):
        LoRAFineTuner(LoRAConfig(model_name="tiny-lama3")).load_model_and_tokenizer()
    assert "memory:" not in capsys.readouterr().out
