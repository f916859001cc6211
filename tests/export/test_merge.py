import pytest

from ftkit.errors import ConfigError, ModelError
from ftkit.export.merge import merge_and_save
from ftkit.methods.lora import attach_lora
from ftkit.models import load


@pytest.fixture
def adapter(tmp_path):
    """An adapter that changes its base, saved as PEFT saves it."""
    import torch

    base, tokenizer = load("tiny-llama3", verbose=False)
    model = attach_lora(base, r=4, lora_alpha=8)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    tokenizer.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def test_float32_keeps_the_logits_and_bfloat16_says_what_it_rounds(adapter, tmp_path):
    exact = merge_and_save(adapter, tmp_path / "exact")
    rounded = merge_and_save(adapter, tmp_path / "rounded", dtype="bfloat16")
    assert exact < 1e-5 < rounded


def test_a_wrong_merge_is_refused_and_leaves_nothing(adapter, tmp_path, monkeypatch):
    from peft import LoraModel

    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())  # drops the adapter instead
    with pytest.raises(ModelError, match="merge is wrong"):
        merge_and_save(adapter, tmp_path / "merged")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter"]


def test_what_is_wrong_is_one_sentence(adapter, tmp_path):
    with pytest.raises(ModelError, match="holds no adapter"):
        merge_and_save(tmp_path / "nothing", tmp_path / "merged")
    with pytest.raises(ConfigError, match="is not empty"):
        merge_and_save(adapter, adapter)
    with pytest.raises(ConfigError, match="dtype must be"):
        merge_and_save(adapter, tmp_path / "merged", dtype="int8")
