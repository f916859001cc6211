"""LoRA-FA's saving, counted in bytes kept for the backward pass, and the two ways to lose it."""

import torch
from torch import nn

from ftkit.methods.saved_bytes import ROWS, decoder, measure, saved_for_backward, table


def test_the_count_is_the_inputs_that_the_gradients_need():
    """A linear layer keeps its input for its weight's gradient, and nothing when the weight is frozen."""
    x = torch.randn(32, 100, requires_grad=True)
    layer = nn.Linear(100, 7)
    assert saved_for_backward(layer, lambda: layer(x)) == 32 * 100 * 4
    layer.requires_grad_(False)
    assert saved_for_backward(layer, lambda: layer(x)) == 0


def test_a_storage_counts_once_whoever_keeps_it():
    x = torch.randn(32, 100, requires_grad=True)
    layers = nn.ModuleList([nn.Linear(100, 7), nn.Linear(100, 5)])
    assert saved_for_backward(layers, lambda: [layer(x) for layer in layers]) == 32 * 100 * 4


def test_freezing_a_keeps_the_small_products_instead_of_the_inputs():
    config, tokens, r = decoder(), 4 * 128, 8
    saved = measure("lora", r=r) - measure("lora-fa", r=r)
    # A layer reads 4 inputs: of q, k, v; of o; of gate and up; of down. Attention's output is kept by attention anyway,
    # the others by LoRA alone.
    d, ffn = config.hidden_size, config.intermediate_size
    assert saved == config.num_hidden_layers * tokens * 4 * (2 * d + ffn)
    assert saved / measure("lora", r=r) > 0.2


def test_trap_1_dropout_keeps_more_than_the_saving():
    assert measure("lora-fa", lora_dropout=0.1) > measure("lora") > measure("lora-fa")


def test_trap_2_one_trained_a_keeps_the_input_that_its_neighbours_share():
    one_of_each_group = ("v_proj", "o_proj", "up_proj", "down_proj")
    assert measure("lora-fa", train_a_of=one_of_each_group) == measure("lora")  # q, k and gate are frozen for nothing
    assert measure("lora-fa", train_a_of=("v_proj",)) > measure("lora-fa")


def test_lora_fa_keeps_least():
    kept = {method: measure(method) for method in ROWS}
    assert min(kept, key=kept.get) == "lora-fa"
    # VeRA's b needs BAx, as large as the output; DoRA's length needs the product before it is rescaled.
    assert kept["dora"] > kept["vera"] > kept["lora"]


def test_qlora_keeps_what_lora_keeps_and_no_weights():
    """The weight is made anew from its 4 bits in the backward pass: what is kept are LoRA's inputs."""
    assert measure("qlora") == measure("lora")
    assert measure("qlora", dtype=torch.bfloat16) <= measure("lora", dtype=torch.bfloat16)


def test_the_table_has_a_row_a_method():
    lines = table(batch=1, length=16).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(ROWS)
    assert all(float(line.split()[2]) > float(line.split()[1]) for line in lines[2:])
