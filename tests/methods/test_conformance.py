"""The table of methods and properties: every cell is a test here."""

import json
import subprocess
import sys

import bitsandbytes as bnb
import pytest
import torch
from peft.tuners.lora import LoraLayer

from ftkit.errors import ConfigError
from ftkit.methods.adapted import wanted_layers
from ftkit.methods.by_name import attach
from ftkit.methods.conformance import PROPERTIES, cell, table
from ftkit.methods.lora_plus import parameter_groups
from ftkit.methods.registry import FEATURES, METHODS, REASONS, trained_numbers
from ftkit.models import Quantization, load, lora_targets
from ftkit.models.quantized import dequantize, quantized_weights
from ftkit.models.tiny import TINY
from ftkit.scratch.merge import merge, unmerge
from ftkit.training.config import LoRAConfig

both = pytest.mark.parametrize("kind", ["scratch", "production"])
every = pytest.mark.parametrize("method", METHODS)
MAY_BE_REFUSED = ("lora_dropout", "use_rslora", "use_lora_plus", "fused_experts", "quantised_base")
EXPERTS = "tiny-qwen3-moe"


def cells(column, refused):
    return pytest.mark.parametrize("method", [m for m in METHODS if bool(cell(m, column)) == refused])


@both
@every
def test_identity(lab, kind, method):
    torch.testing.assert_close(lab.logits(lab.make(kind, method)), lab.logits(lab.base()), atol=2e-6, rtol=1e-5)


@every
def test_equal(lab, method):
    ours, theirs = lab.scratch(method), lab.production(method).model
    lab.disturb(theirs)
    lab.copy(theirs, ours)
    torch.testing.assert_close(lab.logits(ours), lab.logits(theirs), atol=1e-6, rtol=1e-5)
    assert (lab.logits(ours) - lab.logits(lab.base())).abs().max() > 1e-2  # the adapter does something
    lab.gradients(ours), lab.gradients(theirs)
    compared = 0
    for name, layer in lab.layers(ours).items():
        for part, mine in lab.parts(layer).items():
            if mine.requires_grad:
                peft = lab.twin(name, theirs, part).grad.reshape(mine.shape)
                torch.testing.assert_close(mine.grad, peft, atol=1e-6, rtol=1e-4)
                compared += 1
    assert compared == sum(p.requires_grad for p in theirs.parameters())


@both
@every
def test_merge(lab, kind, method):
    model = lab.make(kind, method)
    lab.disturb(model)
    before = lab.logits(model)
    if kind == "production":
        model = model.merge_and_unload()
        assert not [name for name, _ in model.named_parameters() if "lora" in name or "vera" in name]
    else:
        merge(model)
        assert not lab.layers(model)
    torch.testing.assert_close(lab.logits(model), before, atol=1e-5, rtol=1e-5)


@both
@every
def test_round_trip(lab, kind, method):
    model = lab.make(kind, method)
    lab.disturb(model)
    before, logits = {name: p.detach().clone() for name, p in model.named_parameters()}, lab.logits(model)
    if kind == "production":
        model.merge_adapter()
        merged = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        model.unmerge_adapter()
    else:
        adapters = merge(model)
        merged = {f"{name}.base.weight" for name in adapters}
        unmerge(model, adapters)
    assert len(merged) == 7 * 2
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name], atol=2e-6, rtol=0)
    torch.testing.assert_close(lab.logits(model), logits, atol=1e-5, rtol=1e-5)


@both
@every
def test_count(lab, kind, method):
    base = lab.base()
    layers = wanted_layers(base, lora_targets(base)).values()
    expected = sum(n * trained_numbers(method, lab.R, d_in, d_out) for n, d_in, d_out in layers)
    trained = sum(p.numel() for p in lab.make(kind, method).parameters() if p.requires_grad)
    assert trained == expected


@both
@every
def test_gradients(lab, kind, method):
    model = lab.make(kind, method)
    lab.disturb(model)
    got = {name for name, gradient in lab.gradients(model).items() if gradient.abs().sum() > 0}
    declared = {
        **dict.fromkeys(("lora", "rslora", "lora+", "delta-lora", "pissa"), ("A", "B")),
        "lora-fa": ("B",),
        "vera": ("d", "b"),
        "dora": ("A", "B", "m") if kind == "scratch" else ("A", "B", "magnitude_vector"),
        "adalora": ("P", "Q", "E") if kind == "scratch" else ("A", "B", "E"),
    }[method]
    wraps = {"scratch": ".{}", "production": ".vera_lambda_{}.default" if method == "vera" else ".lora_{}.default"}
    endings = [wraps[kind].format(part) for part in declared]
    wanted = [n for n, _ in model.named_parameters() if n.removesuffix(".weight").endswith(tuple(endings))]
    assert len(wanted) == len(declared) * 7 * 2 and got == set(wanted)
    assert got == {name for name, p in model.named_parameters() if p.requires_grad}


def test_reload_in_a_process_with_peft_alone(lab, tmp_path):
    lab.base().save_pretrained(str(tmp_path / "base"))
    expected = {}
    for method in METHODS:
        adapter = lab.production(method)
        lab.disturb(adapter.model)
        expected[method] = lab.logits(adapter.model)
        adapter.save(str(tmp_path / method))
    code = f"""
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
ids, found = torch.arange(40).reshape(2, 20) + 30, {{}}
for method in {list(METHODS)!r}:
    base = AutoModelForCausalLM.from_pretrained({str(tmp_path / "base")!r})
    with torch.no_grad():
        found[method] = PeftModel.from_pretrained(base, {str(tmp_path)!r} + "/" + method).eval()(ids).logits
torch.save(found, {str(tmp_path / "logits")!r})
assert not any(name.startswith("ftkit") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    found = torch.load(tmp_path / "logits")
    for method in METHODS:
        torch.testing.assert_close(found[method], expected[method], atol=1e-5, rtol=1e-5, msg=method)
        assert (expected[method] - lab.logits(lab.base())).abs().max() > 1e-2
        record = json.loads((tmp_path / method / "adapter_config.json").read_text())
        assert record["inference_mode"] and record["base_model_name_or_path"] == lab.MODEL
        assert not [p for p in (tmp_path / method).iterdir() if p.suffix in (".bin", ".pt", ".pkl")]


@every
def test_reload_by_name(lab, method, tmp_path):
    from ftkit.models import load

    adapter = lab.production(method)
    lab.disturb(adapter.model)
    adapter.save(str(tmp_path))
    loaded, _ = load(str(tmp_path), verbose=False)
    torch.testing.assert_close(lab.logits(loaded), lab.logits(adapter.model), atol=1e-5, rtol=1e-5)


@every
def test_reload_of_the_readable_version(lab, method):
    model = lab.scratch(method)
    lab.disturb(model)
    fresh = lab.scratch(method)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad or name.endswith(".A")}
    assert not fresh.load_state_dict(trained, strict=False).unexpected_keys
    assert torch.equal(lab.logits(fresh), lab.logits(model))


@every
def test_resume(lab, method, tmp_path):
    def begun():
        adapter = lab.production(method)
        trained = [p for p in adapter.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        adapter.begin(12)
        return adapter, optimizer

    def go(adapter, optimizer, steps):
        for step in steps:
            adapter.model.train()
            adapter.model(lab.ids + step, labels=lab.ids + step).loss.backward()
            adapter.before_step(step)
            optimizer.step()
            adapter.after_step(step)
            optimizer.zero_grad()

    whole, _ = whole_run = begun()
    go(*whole_run, range(1, 13))
    stopped, optimizer = begun()
    go(stopped, optimizer, range(1, 7))
    stopped.save_state(str(tmp_path))
    resumed, again = begun()
    resumed.restore(str(tmp_path))
    again.load_state_dict(optimizer.state_dict())
    go(resumed, again, range(7, 13))
    expected, found = whole.state(), resumed.state()
    assert expected.keys() == found.keys() and expected
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@both
@every
def test_checkpointing(lab, kind, method):
    model = lab.make(kind, method).train()
    lab.disturb(model)
    plain, calls = lab.gradients(model), []
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    first = next(module for name, module in model.named_modules() if name.endswith("layers.0.mlp"))
    first.register_forward_pre_hook(lambda *_: calls.append(1))
    again = lab.gradients(model)
    assert len(calls) == 2  # the layer was computed once more in the backward pass
    assert plain.keys() == again.keys()
    for name in plain:
        torch.testing.assert_close(again[name], plain[name], atol=1e-6, rtol=1e-5)


@cells("lora_dropout", refused=False)
def test_lora_dropout(lab, method):
    model = lab.production(method, lora_dropout=0.5).model
    lab.disturb(model)
    with torch.no_grad():
        model.train()
        assert not torch.equal(model(lab.ids).logits, model(lab.ids).logits)
    without = lab.production(method).model
    lab.disturb(without)
    assert torch.equal(lab.logits(model), lab.logits(without))


@cells("use_rslora", refused=False)
def test_use_rslora(lab, method):
    scales = []
    for alpha in (lab.ALPHA, lab.ALPHA / lab.R**0.5):
        model = lab.production(method, use_rslora=True, lora_alpha=alpha).model
        scales.append({m.scaling["default"] for m in model.modules() if isinstance(m, LoraLayer)})
    assert scales == [{lab.ALPHA / lab.R**0.5}, {lab.ALPHA / lab.R}]


@cells("use_lora_plus", refused=False)
def test_use_lora_plus(lab, method):
    model = lab.production(method).model
    of = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, learning_rate=1.0, weight_decay=0.1, ratio=16.0, embedding_learning_rate=0.1)
    rates = {of[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert all(rate == (16.0 if "lora_B" in name else 1.0) for name, rate in rates.items())
    assert len(rates) == sum(p.requires_grad for p in model.parameters())


@cells("fused_experts", refused=False)
def test_fused_experts(lab, method):
    model = lab.production(method, model=EXPERTS).model
    lab.disturb(model)
    got = [name for name, g in lab.gradients(model).items() if "experts" in name and g.abs().sum() > 0]
    assert got
    before = lab.logits(model)
    torch.testing.assert_close(lab.logits(model.merge_and_unload()), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "column"), [(m, c) for m in METHODS for c in METHODS[m].refuses if c != "quantised_base"]
)
def test_an_empty_cell_is_a_refusal_with_its_reason(lab, method, column):
    reason = REASONS[METHODS[method].refuses[column]]
    asked = {"lora_dropout": 0.1, "use_rslora": True, "use_lora_plus": True, "lora_alpha": 8.0}
    if column == "fused_experts":
        with pytest.raises(ConfigError, match="name its attention in target_modules") as error:
            lab.production(method, model=EXPERTS)
    else:
        with pytest.raises(ConfigError) as error:
            LoRAConfig(method=method, **{column: asked[column]})
    assert reason in str(error.value) and column in str(error.value)


@pytest.mark.parametrize("method", [m for m in METHODS if "quantised_base" in METHODS[m].refuses])
def test_a_quantised_base_is_refused_where_it_would_have_to_change(lab, method, wide):
    with pytest.raises(ConfigError, match="a quantised base cannot hold"):
        attach(four_bits(wide(lab.MODEL)), method, r=4)


def four_bits(name):
    return load(name, dtype="float32", quantization=Quantization(), verbose=False)[0]


@cells("quantised_base", refused=False)
def test_quantised_base(lab, method, wide):
    """On 4 bits a method computes what it computes on the base written out, and trains what it declares."""
    model = attach(four_bits(wide(lab.MODEL)), method, r=lab.R).model
    base = model.get_base_model()
    assert sum(isinstance(m, bnb.nn.Linear4bit) for m in base.modules()) == 7 * 2
    torch.testing.assert_close(lab.logits(model), lab.logits(four_bits(wide(lab.MODEL))), atol=2e-6, rtol=1e-5)
    packed = {name: weight.data.clone() for name, weight, _ in quantized_weights(model)}
    twin = attach(dequantize(four_bits(wide(lab.MODEL))), method, r=lab.R).model
    lab.disturb(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained.keys() == {name for name, p in twin.named_parameters() if p.requires_grad}
    for name, p in trained.items():
        twin.get_parameter(name).data.copy_(p)
        assert p.dtype == torch.float32
    torch.testing.assert_close(lab.logits(model), lab.logits(twin), atol=1e-5, rtol=1e-5)
    ours, theirs = lab.gradients(model), lab.gradients(twin)
    assert ours.keys() == theirs.keys() == trained.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-4)
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    optimizer.step()
    for name, weight, _ in quantized_weights(model):
        assert torch.equal(weight.data, packed[name])


@pytest.mark.parametrize("model", TINY)
def test_quantised_base_of_every_family(lab, model, wide):
    """Experts and DeepSeek's MLPs, which are adapted as parameters, and narrow layers, which are held by ftkit."""
    for name in (model, wide(model)):
        adapted = attach(four_bits(name), "lora", r=lab.R).model
        lab.disturb(adapted)
        twin = attach(dequantize(four_bits(name)), "lora", r=lab.R).model
        for key, p in adapted.named_parameters():
            if p.requires_grad:
                twin.get_parameter(key).data.copy_(p)
        torch.testing.assert_close(lab.logits(adapted), lab.logits(twin), atol=1e-5, rtol=1e-5)
        ours, theirs = lab.gradients(adapted), lab.gradients(twin)
        assert ours.keys() == theirs.keys()
        for key, gradient in ours.items():
            torch.testing.assert_close(gradient, theirs[key], atol=1e-5, rtol=1e-3)


def test_reload_on_4_bits_in_a_process_with_peft_alone(lab, wide, tmp_path):
    base, expected = wide("tiny-llama3"), {}
    for method in METHODS:
        if not cell(method, "quantised_base"):
            adapter = attach(four_bits(base), method, r=lab.R)
            lab.disturb(adapter.model)
            expected[method] = lab.logits(adapter.model)
            adapter.save(str(tmp_path / method))
    code = f"""
import sys, torch, bitsandbytes as bnb
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
ids, found = torch.arange(40).reshape(2, 20) + 30, {{}}
for method in {list(expected)!r}:
    packing = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    base = AutoModelForCausalLM.from_pretrained({base!r}, dtype=torch.float32, quantization_config=packing)
    model = PeftModel.from_pretrained(base, {str(tmp_path)!r} + "/" + method).eval()
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        found[method] = model(ids).logits
torch.save(found, {str(tmp_path / "logits")!r})
assert not any(name.startswith("ftkit") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    found = torch.load(tmp_path / "logits")
    for method in expected:
        torch.testing.assert_close(found[method], expected[method], atol=1e-5, rtol=1e-5, msg=method)
        by_name, _ = load(str(tmp_path / method), dtype="float32", verbose=False)
        torch.testing.assert_close(lab.logits(by_name), expected[method], atol=1e-5, rtol=1e-5, msg=method)


@pytest.mark.parametrize("model", ["tiny-qwen3", "tiny-gemma3", "tiny-gemma3-vision", "tiny-smollm"])
@every
def test_reload_and_merge_on_every_dense_family(lab, method, model, tmp_path):
    from ftkit.models import load

    adapter = lab.production(method, model=model)
    lab.disturb(adapter.model)
    adapter.save(str(tmp_path))
    before = lab.logits(adapter.model)
    loaded, _ = load(str(tmp_path), verbose=False)
    torch.testing.assert_close(lab.logits(loaded), before, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lab.logits(loaded.merge_and_unload()), before, atol=1e-5, rtol=1e-5)
    assert (before - lab.logits(lab.base(model))).abs().max() > 1e-2


@every
def test_the_formula_that_is_shown_is_the_one_that_counts(method):
    shown = METHODS[method].trains.replace("r_0", "r0")
    for part in ("(", "d_out"):
        shown = shown.replace(f"r {part}", f"r * {part}").replace(f"r0 {part}", f"r0 * {part}")
    assert eval(shown, {"r": 10, "r0": 15, "d_in": 7, "d_out": 5}) == trained_numbers(method, 10, 7, 5)


def test_the_table_is_whole():
    for column in PROPERTIES:
        assert any(name.startswith("test_" + column.replace(" ", "_")) for name in globals()), column
    assert set(MAY_BE_REFUSED) < set(PROPERTIES) and set(MAY_BE_REFUSED) < set(FEATURES)
    assert all(not cell(m, c) for m in METHODS for c in PROPERTIES if c not in MAY_BE_REFUSED)
    for method in METHODS.values():
        assert set(method.refuses) <= set(FEATURES) and set(method.refuses.values()) <= set(REASONS)
    lines = table().splitlines()
    assert lines[0].split() == " ".join(PROPERTIES).split() and len(lines) > len(METHODS) + 2
    for method, line in zip(METHODS, lines[1:], strict=False):
        marks = line.split()[1:]
        assert len(marks) == len(PROPERTIES)
        assert [mark == "·" for mark in marks] == [not cell(method, column) for column in PROPERTIES]
