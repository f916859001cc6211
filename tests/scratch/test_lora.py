"""LoRA from scratch against PEFT's, which the trainers use."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from ftkit.models import load
from ftkit.scratch.lora import LoRALinear, add_lora

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.fixture
def pair():
    """The same tiny model with LoRA from scratch and from PEFT, holding the same A and a B that is not zero."""
    torch.manual_seed(0)
    base, _ = load("tiny-llama3", verbose=False)
    ours = add_lora(copy.deepcopy(base), ATTENTION, r=3, lora_alpha=12)
    theirs = get_peft_model(base, LoraConfig(r=3, lora_alpha=12, target_modules=list(ATTENTION)))
    for name, module in ours.named_modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.B, std=0.1)
            peft_module = theirs.get_base_model().get_submodule(name)
            peft_module.lora_A["default"].weight.data.copy_(module.A)
            peft_module.lora_B["default"].weight.data.copy_(module.B)
    return ours, theirs


def test_forward_and_gradients_equal_pefts(pair):
    ours, theirs = pair
    ids = torch.arange(40).reshape(2, 20) + 30
    a, b = ours(ids, labels=ids), theirs(ids, labels=ids)
    torch.testing.assert_close(a.logits, b.logits, atol=1e-6, rtol=1e-5)
    a.loss.backward()
    b.loss.backward()
    compared = 0
    for name, module in ours.named_modules():
        if isinstance(module, LoRALinear):
            peft_module = theirs.get_base_model().get_submodule(name)
            for mine, peft in ((module.A, peft_module.lora_A), (module.B, peft_module.lora_B)):
                torch.testing.assert_close(mine.grad, peft["default"].weight.grad, atol=1e-6, rtol=1e-4)
                compared += 1
    assert compared == 2 * 4 * ours.config.num_hidden_layers


def test_counts_equal_pefts_and_the_closed_form(pair):
    ours, theirs = pair
    trained = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    layers = [m for m in ours.modules() if isinstance(m, LoRALinear)]
    assert trained == theirs.get_nb_trainable_parameters()[0]
    assert trained == sum(3 * (m.base.in_features + m.base.out_features) for m in layers)


def test_e5_1_shapes_on_a_rectangular_layer():
    layer = LoRALinear(nn.Linear(7, 5), r=2, lora_alpha=4)
    assert layer.A.shape == (2, 7) and layer.B.shape == (5, 2) and layer(torch.ones(3, 7)).shape == (3, 5)


def test_e5_1_it_starts_as_the_layer_it_wraps():
    linear, x = nn.Linear(7, 5), torch.randn(4, 7)
    assert torch.equal(LoRALinear(linear, r=2, lora_alpha=4)(x), linear(x))


def test_a_is_initialised_as_pefts():
    torch.manual_seed(3)
    ours = LoRALinear(nn.Linear(50, 20), r=4, lora_alpha=8).A
    peft_layer = get_peft_model(nn.Sequential(nn.Linear(50, 20)), LoraConfig(r=4, target_modules=["0"]))
    theirs = peft_layer.base_model.model[0].lora_A["default"].weight
    bound = 1 / 50**0.5
    for a in (ours, theirs):
        assert a.abs().max() <= bound and a.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)


def test_merging_is_the_unmerged_forward_and_leaves_the_base():
    layer = LoRALinear(nn.Linear(7, 5), r=2, lora_alpha=4)
    nn.init.normal_(layer.B)
    before, x = layer.base.weight.clone(), torch.randn(6, 7)
    torch.testing.assert_close(layer.merge()(x), layer(x))
    assert torch.equal(layer.base.weight, before)
