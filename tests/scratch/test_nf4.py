"""NF4 from scratch against bitsandbytes, bit for bit, and QLoRA's layer against the one that trains."""

import math

import bitsandbytes as bnb
import pytest
import torch
from bitsandbytes.functional import create_dynamic_map, dequantize_4bit, get_4bit_type, quantize_4bit
from torch import nn

from ftkit.scratch.nf4 import (
    QLoRALinear,
    dynamic_code,
    fp4_code,
    int4_code,
    nf4_code,
    pack,
    quantize_blocks,
    quantize_nf4,
    relative_error,
    unpack,
)

# Of two blocks and more: the scale of a single block is its own mean, and what is left of it is 0 whatever the code.
SHAPES = [
    *((65,), (128,), (129,), (2, 64), (3, 64), (128, 1), (25, 5), (7, 64), (64, 64), (100, 33), (64, 128), (256, 64)),
    *((64, 256), (1000, 17), (192, 576), (576, 192), (300, 300), (2, 3, 64), (4, 32, 64), (512, 513)),
]


def weights(shape, std=0.02):
    return std * torch.randn(shape, generator=torch.Generator().manual_seed(math.prod(shape)))


def test_the_code_books_are_bitsandbytes():
    assert torch.equal(nf4_code(), get_4bit_type("nf4", device="cpu"))
    assert torch.equal(dynamic_code(), create_dynamic_map())
    assert torch.equal(fp4_code(), get_4bit_type("fp4", device="cpu").unique())
    assert len(nf4_code().unique()) == 16 and len(fp4_code()) == len(int4_code()) == 15


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_codes_scales_and_weights_are_bitsandbytes_to_the_bit(shape, double):
    weight = weights(shape)
    ours = quantize_nf4(weight, double_quantization=double)
    theirs, state = quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=double)
    assert torch.equal(ours.packed, theirs.flatten())
    assert torch.equal(ours.scales, state.absmax)
    if double:
        assert torch.equal(ours.outer_scales, state.state2.absmax) and torch.equal(ours.offset, state.offset)
    assert torch.equal(ours.dequantize(), dequantize_4bit(theirs, state).reshape(shape))


def test_twenty_shapes():
    assert len(set(SHAPES)) == 20


def test_a_block_of_zeros_stays_zero():
    weight = torch.zeros(4, 64)
    weight[1] = 1
    assert torch.equal(quantize_nf4(weight, double_quantization=False).dequantize(), weight)


@pytest.mark.parametrize(("double", "bits"), [(False, 4.5), (True, 4 + 8 / 64 + 32 / (64 * 256))])
def test_bits_per_weight(double, bits):
    weight = weights((512, 512))
    assert quantize_nf4(weight, double).bits_per_weight() == bits
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    stored = [packed, state.absmax, *([state.state2.absmax] if double else [])]
    assert 8 * sum(t.numel() * t.element_size() for t in stored) / weight.numel() == bits
    assert bits == pytest.approx(4.127, abs=5e-4) or bits == 4.5


def test_every_value_is_used_about_as_often():
    indices, _ = quantize_blocks(torch.randn(64 * 4000, generator=torch.Generator().manual_seed(0)), nf4_code(), 64)
    share = torch.bincount(indices, minlength=16) / len(indices)
    entropy = -(share * share.log2()).sum()
    assert entropy > 3.8  # of 4 bits: blocks are divided by their own maximum, which a quantile does not know of


def test_e6_1_nf4_rounds_normal_weights_better_than_fp4_and_int4():
    """The guide calls NF4 optimal; what can be shown is that it errs less than the others on normal weights."""
    weight = weights((1024, 1024))
    nf4, fp4, int4 = (relative_error(weight, code()) for code in (nf4_code, fp4_code, int4_code))
    assert nf4 == pytest.approx(0.092, abs=2e-3) and fp4 == pytest.approx(0.122, abs=2e-3)
    assert nf4 < int4 < fp4
    # And that it is not the best code there is: on evenly distributed weights, even spacing wins.
    even = torch.rand(1024, 1024, generator=torch.Generator().manual_seed(0)) - 0.5
    assert relative_error(even, int4_code()) < relative_error(even, nf4_code())


@pytest.mark.parametrize("n", [2, 8, 64])
def test_unpacking_undoes_packing(n):
    indices = torch.randint(16, (n,))
    assert len(pack(indices)) == n / 2 and torch.equal(unpack(pack(indices), n), indices)


@pytest.mark.parametrize("bias", [True, False])
def test_qloras_layer_is_pefts(bias):
    from peft import LoraConfig
    from peft.tuners.lora.bnb import Linear4bit

    torch.manual_seed(0)
    base = nn.Linear(128, 64, bias=bias)
    quantised = bnb.nn.Linear4bit(128, 64, bias=bias, compute_dtype=torch.float32, quant_type="nf4")
    quantised.load_state_dict(base.state_dict())
    quantised.support_avx512bf16_for_cpu = False
    theirs = Linear4bit(quantised.to("cpu"), "default", LoraConfig(r=4, lora_alpha=6), r=4, lora_alpha=6)
    ours = QLoRALinear(base, r=4, lora_alpha=6)
    nn.init.normal_(ours.B)
    theirs.lora_A["default"].weight.data.copy_(ours.A)
    theirs.lora_B["default"].weight.data.copy_(ours.B)
    x = torch.randn(2, 10, 128)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(one) for layer, one in zip((ours, theirs), inputs, strict=True)]
    torch.testing.assert_close(*outputs, atol=1e-6, rtol=1e-5)
    assert (outputs[0] - base(x)).abs().max() > 1e-2  # 4 bits and an adapter
    for output in outputs:
        output.square().mean().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, atol=1e-6, rtol=1e-5)
    for mine, peft in ((ours.A, theirs.lora_A), (ours.B, theirs.lora_B)):
        torch.testing.assert_close(mine.grad, peft["default"].weight.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.merge()(x), outputs[0].detach(), atol=1e-5, rtol=1e-5)


def test_the_layer_keeps_nothing_of_the_weights_size_for_the_backward_pass():
    layer, kept = QLoRALinear(nn.Linear(256, 256, bias=False), r=2, lora_alpha=4), []
    x = torch.randn(1, 256, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        layer(x)
    assert kept and max(kept) <= 2 * 256  # A and B, x and Ax
