import dataclasses
import json

import numpy as np
import pytest

from ftkit.data.config import DataConfig
from ftkit.errors import ConfigError
from ftkit.evaluation.config import EvaluationConfig
from ftkit.fields import field_docs
from ftkit.training.config import FullFineTuningConfig, LoRAConfig, TrainingConfig
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
        ({"seed": -1}, "seed must be at least 0 and below 2**32, not -1"),
        ({"seed": 2**32}, "seed must be at least 0"),
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


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lora_r": "8"}, "lora_r must be a whole number, not '8'."),
        ({"batch_size": 2.0}, "batch_size must be a whole number, not 2.0."),
        ({"max_steps": True}, "max_steps must be a whole number, not True."),
        ({"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'."),
        ({"packing": 1}, "packing must be true or false, not 1."),
        ({"target_modules": (1,)}, "target_modules must be a list of names, not [1]."),
        ({"output_dir": None}, "output_dir must be text, not None."),
    ],
)
def test_a_value_of_another_type_is_refused_in_python_too(settings, says):
    with pytest.raises(ConfigError) as error:
        LoRAConfig(**settings)
    assert str(error.value) == says


def test_the_help_says_which_schedule_has_no_warm_up():
    texts = field_docs(FullFineTuningConfig)
    for name in ("warmup_ratio", "lr_scheduler_type"):
        assert "constant has no warm-up" in " ".join(texts[name].split())


def test_what_python_gives_becomes_what_a_file_would_give(tmp_path):
    given = {"output_dir": tmp_path, "lora_r": np.int64(8), "learning_rate": np.float32(0.5), "num_epochs": 2}
    config = LoRAConfig(**given, target_modules="q_proj", modules_to_save=["norm"], report_to="tensorboard")
    assert (config.output_dir, config.lora_r, config.learning_rate) == (str(tmp_path), 8, 0.5)
    assert (config.target_modules, config.modules_to_save, config.report_to) == (
        ("q_proj",),
        ("norm",),
        ("tensorboard",),
    )
    assert json.loads(json.dumps(dataclasses.asdict(config)))["lora_r"] == 8
    assert DataConfig(model_name=tmp_path).model_name == str(tmp_path)
    assert EvaluationConfig(model_path=tmp_path).model_path == str(tmp_path)
