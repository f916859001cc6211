"""What the guide had wrong about LoRA and its variants, by number."""

import math

import pytest
import torch
from torch import nn

from ftkit.methods.adapted import wanted_layers
from ftkit.methods.lora_plus import parameter_groups
from ftkit.methods.registry import METHODS, scale_note, trained_numbers
from ftkit.models import lora_targets
from ftkit.models.families import LoraTargets
from ftkit.training.config import LoRAConfig


@pytest.fixture(scope="module")
def llama_70b():
    """Llama 3 70B without weights."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def trained(model, r, targets=None):
    layers = wanted_layers(model, targets or lora_targets(model)).values()
    return sum(n * trained_numbers("lora", r, d_in, d_out) for n, d_in, d_out in layers)


def test_e5_1_a_is_r_by_d_in_and_b_is_d_out_by_r(lab):
    model = lab.production("lora", r=3).model.get_base_model()
    for name, (d_in, d_out) in {"self_attn.k_proj": (32, 16), "mlp.down_proj": (64, 32)}.items():
        layer = model.get_submodule(f"model.layers.0.{name}")
        assert layer.base_layer.weight.shape == (d_out, d_in)
        assert layer.lora_A["default"].weight.shape == (3, d_in)
        assert layer.lora_B["default"].weight.shape == (d_out, 3)


def test_e5_2_two_d_r_holds_for_square_weights_only(lab):
    layers = {"self_attn.q_proj": True, "self_attn.k_proj": False, "mlp.down_proj": False}
    model = lab.production("lora").model.get_base_model()
    for name, square in layers.items():
        layer = model.get_submodule(f"model.layers.0.{name}")
        count = sum(p.numel() for p in layer.parameters() if p.requires_grad)
        d_out, d_in = layer.base_layer.weight.shape
        assert count == lab.R * (d_in + d_out)
        assert (count == 2 * d_in * lab.R) == square == (d_in == d_out)


def test_e5_3_r_64_on_a_70b_model_is_828_million_not_100(llama_70b):
    whole = sum(p.numel() for p in llama_70b.parameters())
    assert whole == 70_553_706_496
    assert trained(llama_70b, 64) == 828_375_040 and 100 * 828_375_040 / whole == pytest.approx(1.1741, abs=1e-4)
    assert trained(llama_70b, 8) == 103_546_880  # the guide's 100 million is r 8
    assert trained(llama_70b, 64, LoraTargets(["q_proj", "v_proj"], [], None)) == 131_072_000
    assert trained(llama_70b, 64, LoraTargets(["q_proj", "k_proj", "v_proj", "o_proj"], [], None)) == 262_144_000


def test_e5_4_vera_is_vector_based_random_matrix_adaptation():
    assert METHODS["vera"].title == "Vector-based Random Matrix Adaptation"


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_e9_5_lora_plus_parts_the_rates_keeps_the_decay_and_leaves_embeddings_at_their_own(lab, weight_decay):
    model = lab.production("lora+", modules_to_save=["embed_tokens", "lm_head"]).model
    of = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, learning_rate=2e-4, weight_decay=weight_decay, ratio=16.0)
    rates = {of[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    for name, (rate, decay) in rates.items():
        expected = 3.2e-3 if "lora_B" in name else 1e-6 if "embed_tokens" in name else 2e-4
        assert rate == pytest.approx(expected) and decay == weight_decay, name
    assert {rate for rate, _ in rates.values()} == {2e-4, 16 * 2e-4, 1e-6}
    assert len(rates) == sum(p.requires_grad for p in model.parameters())


def test_e9_5_vectors_do_not_decay_and_without_lora_plus_there_is_one_rate(lab):
    model = lab.production("dora").model
    for group in parameter_groups(model, learning_rate=1e-3, weight_decay=0.1):
        assert group["lr"] == 1e-3
        assert {p.ndim for p in group["params"]} == ({2} if group["weight_decay"] else {1})


def test_e9_5_the_readable_groups_are_the_same(lab):
    from ftkit.scratch.lora_plus import lora_plus_groups

    ours, theirs = lab.scratch("lora+"), lab.production("lora+").model
    a, b = lora_plus_groups(ours, lr=1e-3, ratio=16.0, weight_decay=0.1)
    groups = parameter_groups(theirs, learning_rate=1e-3, weight_decay=0.1, ratio=16.0, embedding_learning_rate=1e-6)
    for mine, peft in zip((a, b), sorted(groups, key=lambda group: group["lr"]), strict=True):
        assert (mine["lr"], mine["weight_decay"]) == (peft["lr"], peft["weight_decay"])
        assert sum(p.numel() for p in mine["params"]) == sum(p.numel() for p in peft["params"])


def test_e12_1_alpha_128_at_r_64_is_a_factor_16_under_rslora_and_16_matches():
    assert scale_note(64, 128, use_rslora=False) is None
    note = scale_note(64, 128, use_rslora=True)
    assert "a factor 16 " in note and "not 2 " in note and "lora_alpha=16 would keep" in note


@pytest.mark.parametrize("settings", [{"use_rslora": True}, {"method": "rslora"}])
def test_e12_1_the_default_alpha_keeps_the_factor_2_under_rslora_too(settings):
    for r in (1, 16, 64):
        config = LoRAConfig(lora_r=r, **settings)
        assert config.use_rslora and config.lora_alpha / math.sqrt(r) == pytest.approx(2)


def test_e12_1_the_matched_alpha_gives_the_same_layer():
    from ftkit.scratch.lora import LoRALinear
    from ftkit.scratch.rslora import RsLoRALinear, matched_alpha

    lora = LoRALinear(nn.Linear(7, 5), r=4, lora_alpha=8)
    nn.init.normal_(lora.B)
    rslora = RsLoRALinear(nn.Linear(7, 5), r=4, lora_alpha=matched_alpha(8, 4))
    rslora.load_state_dict(lora.state_dict())
    x = torch.randn(3, 7)
    assert matched_alpha(128, 64) == 16 and torch.equal(rslora(x), lora(x))
