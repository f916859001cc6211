import dataclasses

import pytest

from ftkit.errors import ConfigError
from ftkit.fields import field_docs
from ftkit.training.config import LoRAConfig, TrainingConfig
from ftkit.training.finetuner import FineTuner


def test_every_field_has_its_help():
    docs = field_docs(LoRAConfig)
    assert list(docs) == [field.name for field in dataclasses.fields(LoRAConfig)]
    assert all(text.endswith(".") and len(text) > 20 for text in docs.values())


@pytest.mark.parametrize(("kind", "missing"), [(TrainingConfig, "settle"), (FineTuner, "load_model_and_tokenizer")])
def test_what_a_child_must_say_is_missed_when_it_is_made(kind, missing):
    child = type("Child", (kind,), {})
    with pytest.raises(TypeError, match=f"abstract.*{missing}"):
        child()


def test_e12_1_the_scale_stays_two_whatever_the_rank():
    assert all(LoRAConfig(lora_r=r).lora_alpha / r == 2 for r in (1, 8, 64))
    assert not LoRAConfig().use_rslora


def test_e0_2_e3_3_e9_7_unsafe_and_costly_defaults_are_off():
    config = LoRAConfig()
    assert (config.trust_remote_code, config.use_wandb, config.modules_to_save) == (False, False, None)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lora_r": 0}, "lora_r must be above 0, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"max_steps": -3}, "max_steps"),
        ({"lora_dropout": 1.0}, "lora_dropout must be at least 0 and below 1"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"torch_dtype": "bfloat"}, "Did you mean 'bfloat16'"),
        ({"attn_implementation": "flash"}, "attn_implementation must be one of"),
        ({"lr_scheduler_type": "cosin"}, "Did you mean 'cosine'"),
        ({"max_nonfinite_steps": -1}, "max_nonfinite_steps must not be negative"),
        ({"early_stopping_patience": 0}, "early_stopping_patience must be above 0"),
        ({"method": "adalora", "early_stopping_patience": 2}, "before its ranks have shrunk"),
        ({"packing": True, "group_by_length": True}, "drop one of them"),
        ({"attn_implementation": "flash_attention_2", "use_flash_attention": False}, "contradicts"),
        ({"run_name": "x"}, "use_wandb is False"),
        ({"target_modules": ("q_proj",), "modules_to_save": ("q_proj",)}, "either adapted or trained whole"),
        ({"target_modules": ()}, "nothing would be trained"),
    ],
)
def test_a_contradiction_is_refused_when_it_is_made(settings, says):
    with pytest.raises(ConfigError) as error:
        LoRAConfig(**settings)
    assert says in str(error.value)
