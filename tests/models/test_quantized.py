"""Loading in 4 bits: what is, how exactly, and what is left as it was."""

import json
import subprocess
import sys

import bitsandbytes as bnb
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from ftkit.errors import ConfigError, MissingDependency, ModelError
from ftkit.models import Quantization, base_record, load, lora_targets
from ftkit.models.four_bit import FourBitTensor, hold_in_four_bits
from ftkit.models.quantized import dequantize, quantized_weights, settings_of, share_in_four_bits
from ftkit.models.tiny import TINY

IDS = torch.arange(40).reshape(2, 20) + 30
DENSE = ("tiny-llama3", "tiny-qwen3", "tiny-gemma3", "tiny-smollm")
every = pytest.mark.parametrize("name", TINY)
# By hand, from the configurations: weights that are no linear layer of the decoder and no expert.
KEPT_WIDE = {"embed_tokens", "lm_head", "gate", "router", "weights_proj"}


def quantised(name, **changes):
    return load(name, dtype="float32", quantization=Quantization(**changes), verbose=False)[0]


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def belongs_in_four_bits(name, parameter):
    vision = "vision" in name or "multi_modal" in name
    return parameter.ndim >= 2 and not vision and not KEPT_WIDE & set(name.split("."))


@every
def test_what_is_in_4_bits(wide, name):
    plain, _ = load(wide(name), dtype="float32", quantization=None, verbose=False)
    wanted = {name: p for name, p in plain.named_parameters() if belongs_in_four_bits(name, p)}
    model = quantised(wide(name))
    packed = {name: (weight, tensors) for name, weight, tensors in quantized_weights(model)}
    assert packed.keys() == wanted.keys()
    numbers = sum(p.numel() for p in wanted.values())
    held = sum(t.numel() * t.element_size() for _, tensors in packed.values() for t in tensors)
    assert 8 * held / numbers == pytest.approx(4.127, abs=0.05)  # small matrices leave an outer scale half used
    assert share_in_four_bits(model) == pytest.approx(numbers / sum(p.numel() for p in plain.parameters()))
    assert share_in_four_bits(model) > 0.6
    for name, p in plain.named_parameters():
        found = model.get_parameter(name)
        if name in wanted:
            continue
        assert torch.equal(found, p)  # what is wide is untouched
    assert not any(p.requires_grad for name, p in model.named_parameters() if name in packed)


@every
def test_e10_2_nothing_frozen_is_widened(wide, name):
    """peft's prepare_model_for_kbit_training would make float32 of the embeddings, norms and head."""
    model = load(wide(name), dtype="bfloat16", quantization=Quantization(), verbose=False)[0]
    packed = {name for name, _, _ in quantized_weights(model)}
    kept = {name: p.dtype for name, p in model.named_parameters() if name not in packed}
    in_float32 = {name for name, dtype in kept.items() if dtype != torch.bfloat16}
    assert all("weights_proj" in name for name in in_float32)  # DeepSeek-V3.2's own wish


@pytest.mark.parametrize("name", DENSE)
def test_dense_families_are_what_transformers_loads(wide, name):
    packing = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    theirs = AutoModelForCausalLM.from_pretrained(wide(name), dtype=torch.float32, quantization_config=packing)
    ours = quantised(wide(name))
    assert [type(m) for m in ours.modules()] == [type(m) for m in theirs.modules()]
    for mine, peer in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, peer)
    linear = sum(isinstance(m, bnb.nn.Linear4bit) for m in ours.modules())
    assert linear == 7 * ours.config.num_hidden_layers


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_types_and_double_quantisation(wide, quant_type, double):
    plain, _ = load(wide("tiny-llama3"), dtype="float32", verbose=False)
    asked = Quantization(quant_type, double, "float32")
    model = quantised(wide("tiny-llama3"), **vars(asked))
    assert settings_of(model) == asked
    errors, bits = [], []
    for name, weight, tensors in quantized_weights(model):
        original = plain.get_parameter(name)
        errors.append((dequantize_one(weight) - original).norm() / original.norm())
        bits.append(8 * sum(t.numel() * t.element_size() for t in tensors) / original.numel())
    low, high = {"nf4": (0.09, 0.094), "fp4": (0.115, 0.125)}[quant_type]
    assert all(low < error < high for error in errors)
    assert max(bits) < (4.14 if double else 4.51) and min(bits) > (4.12 if double else 4.49)


def dequantize_one(weight):
    if isinstance(weight, FourBitTensor):
        return weight.dequantize()
    return bnb.functional.dequantize_4bit(weight.data, weight.quant_state)


@pytest.mark.parametrize("kind", ["tiny", "wide"])
@every
def test_written_out_it_computes_the_same(wide, name, kind):
    model = quantised(name if kind == "tiny" else wide(name))
    before, plain = (
        logits(model),
        logits(load(name if kind == "tiny" else wide(name), dtype="float32", verbose=False)[0]),
    )
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    written = dequantize(model)
    torch.testing.assert_close(logits(written), before, atol=1e-5, rtol=1e-5)
    assert (before - plain).abs().max() > 1e-2  # it was in 4 bits
    assert {p.dtype for p in written.parameters()} == {torch.float32} and settings_of(written) is None
    assert (written.get_input_embeddings().weight is written.get_output_embeddings().weight) == tied
    assert not [m for m in written.modules() if isinstance(m, bnb.nn.Linear4bit)]


def test_evaluating_leaves_the_weights_as_they_are(wide):
    """bitsandbytes repacks a layer for inference on CPUs with AVX512-BF16, and a later merge reads nonsense."""
    model = load(wide("tiny-llama3"), dtype="bfloat16", quantization=Quantization(), verbose=False)[0]
    before = [weight.data.clone() for _, weight, _ in quantized_weights(model)]
    logits(model)
    for kept, (_, weight, _) in zip(before, quantized_weights(model), strict=True):
        assert torch.equal(kept, weight.data) and not getattr(weight.quant_state, "packing_format_for_cpu", False)
    assert not any(m.support_avx512bf16_for_cpu for m in model.modules() if isinstance(m, bnb.nn.Linear4bit))


@pytest.mark.parametrize("width", [16, 48, 96, 64, 30])
def test_rows_that_are_no_whole_blocks_are_right(width):
    """bitsandbytes 0.50 errs by up to 0.4 on such rows on CPUs with AVX-512."""
    torch.manual_seed(0)
    linear, x = nn.Linear(width, 64, bias=False), torch.randn(5, width, requires_grad=True)
    weight = linear.weight.detach().clone()
    hold_in_four_bits(linear, "weight", quant_type="nf4", double=False)
    found = linear.weight.dequantize()
    assert (found - weight).norm() / weight.norm() < 0.1
    torch.testing.assert_close(linear(x), x @ found.T)
    (gradient,) = torch.autograd.grad(linear(x).sum(), x)
    torch.testing.assert_close(gradient, found.sum(0).expand(5, -1))
    assert torch.equal(linear.weight[3], found[3]) and torch.equal(linear.weight[-1], found[-1])


def test_a_layer_in_4_bits_keeps_nothing_wide_for_the_backward_pass():
    linear, kept = nn.Linear(256, 256), []
    hold_in_four_bits(linear, "weight", quant_type="nf4", double=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        linear(torch.randn(3, 256, requires_grad=True))
    assert kept and all(isinstance(t, FourBitTensor) or t.numel() <= 3 * 256 for t in kept)


def test_a_module_that_is_moved_computes_with_the_bits_that_were_moved():
    """Another device is not at hand: what stands for the move is a tensor of the same shape that holds other bits."""
    layer = nn.Linear(64, 64, bias=False)
    moved = FourBitTensor.quantize(2 * layer.weight, quant_type="nf4", double=True)
    hold_in_four_bits(layer, "weight", quant_type="nf4", double=True)
    x = torch.randn(3, 64)
    before = layer(x)
    layer._apply(lambda weight: moved)
    assert type(layer.weight) is FourBitTensor and not layer.weight.requires_grad
    torch.testing.assert_close(layer(x), 2 * before, atol=1e-5, rtol=1e-5)
    assert layer.to(torch.bfloat16).weight.dequantize().dtype == torch.bfloat16


def test_one_expert_is_that_part_of_the_whole_from_either_end():
    experts = FourBitTensor.quantize(torch.randn(4, 8, 16), quant_type="nf4", double=True)
    for index in (0, 3, -1, -4):
        assert torch.equal(experts[index], experts.dequantize()[index])


def test_a_weight_in_4_bits_is_not_written_to():
    linear = nn.Linear(64, 64)
    hold_in_four_bits(linear, "weight", quant_type="nf4", double=True)
    with pytest.raises(RuntimeError, match="cannot be written to"), torch.no_grad():
        linear.weight.add_(1.0)


def test_without_bitsandbytes_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependency, match=r"pip install .ftkit\[qlora\]"):
        quantised("tiny-llama3")


def test_what_is_wrong_is_said():
    with pytest.raises(ConfigError, match="quant_type must be one of nf4, fp4, not 'nf5'"):
        Quantization("nf5")
    with pytest.raises(ConfigError, match="compute_dtype"):
        Quantization(compute_dtype="int8")
    with pytest.raises(ModelError, match="is unknown"):
        load("tiny-llama3", quantization="4bit")
    with pytest.raises(ModelError, match="is for an adapter's folder"):
        load("tiny-llama3", quantization="dequantized")


def test_loading_wide_needs_no_bitsandbytes():
    code = "import sys; from ftkit.models.loading import load; assert 'bitsandbytes' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def adapter(tmp_path):
    """Of a quantised base, with its record."""
    from peft import LoraConfig, get_peft_model

    base = quantised("tiny-qwen3")
    record = base_record.of(base)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=lora_targets(base).target_modules))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    base_record.write(record, tmp_path)
    return tmp_path


def test_an_adapters_base_is_loaded_as_it_was_trained(adapter):
    trained, _ = load(str(adapter), verbose=False)
    assert settings_of(trained.get_base_model()) == Quantization(compute_dtype="float32")
    plain, _ = load(str(adapter), quantization=None, verbose=False)
    assert settings_of(plain.get_base_model()) is None
    written, _ = load(str(adapter), quantization="dequantized", verbose=False)
    torch.testing.assert_close(logits(written), logits(trained), atol=1e-5, rtol=1e-5)
    assert (logits(plain) - logits(trained)).abs().max() > 1e-2


def test_another_base_is_refused(adapter):
    with pytest.raises(ModelError, match="was trained on another base than tiny-qwen3 is now: its embedding differs"):
        load(str(adapter), seed=7, verbose=False)
    (adapter / base_record.FILE).write_text("{}")
    with pytest.raises(ModelError, match="is no record of a base"):
        load(str(adapter), verbose=False)
    (adapter / base_record.FILE).unlink()
    load(str(adapter), seed=7, verbose=False)  # as PEFT alone does


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_record_fits_its_base_in_another_precision(dtype):
    record = base_record.of(load("tiny-qwen3", verbose=False)[0])
    record.check(load("tiny-qwen3", dtype=dtype, verbose=False)[0], "here")


OWN_CODE = """
from transformers import Qwen3Config, Qwen3ForCausalLM

class OwnConfig(Qwen3Config):
    model_type = "own"

class OwnForCausalLM(Qwen3ForCausalLM):
    config_class = OwnConfig
"""


def test_a_model_with_code_of_its_own_is_loaded_without_a_question(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    for part in load("tiny-qwen3", dtype="float32", verbose=False):
        part.save_pretrained(folder)
    (folder / "own.py").write_text(OWN_CODE, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    config |= {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    asked = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    model, _ = load(str(folder), dtype="float32", quantization=Quantization(), trust_remote_code=True, verbose=False)
    assert type(model).__name__ == "OwnForCausalLM" and share_in_four_bits(model) > 0.5
    assert asked == []
