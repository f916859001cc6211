"""What was asked against what was adapted: a silent miss is an error; and the summary's numbers."""

import pytest
from peft import LoraConfig, get_peft_model

from ftkit.errors import ConfigError
from ftkit.methods.adapted import adapted_layers, check_adapted, summary, wanted_layers
from ftkit.methods.by_name import attach
from ftkit.methods.registry import METHODS
from ftkit.models import load, lora_targets
from ftkit.models.families import LoraTargets
from ftkit.models.tiny import TINY

MLP = ["gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize("name", TINY)
def test_all_that_the_family_names_is_adapted_and_counted(name):
    base, _ = load(name, verbose=False)
    wanted = wanted_layers(base, lora_targets(base))
    adapter = attach(base, "lora", r=4)
    assert adapted_layers(adapter.model) == set(wanted)
    assert adapter.model.get_nb_trainable_parameters()[0] == sum(4 * n * (i + o) for n, i, o in wanted.values())


@pytest.mark.parametrize("name", TINY)
def test_the_closed_form_of_lora_fa_knows_which_way_experts_are_stored(name):
    from ftkit.methods.registry import trained_numbers

    base, _ = load(name, verbose=False)
    wanted = wanted_layers(base, lora_targets(base)).values()
    expected = sum(n * trained_numbers("lora-fa", 4, i, o) for n, i, o in wanted)
    assert attach(base, "lora-fa", r=4).model.get_nb_trainable_parameters()[0] == expected


@pytest.mark.parametrize("name", ["tiny-deepseek-v3", "tiny-deepseek-v3.2"])
def test_e9_6_layers_that_peft_leaves_out_in_silence_are_an_error(name):
    base, _ = load(name, verbose=False)
    wanted = wanted_layers(base, LoraTargets(MLP, [], None))
    assert len(wanted) == 9
    silent = get_peft_model(load(name, verbose=False)[0], LoraConfig(target_modules=MLP))  # no word from PEFT
    assert not set(wanted) & adapted_layers(silent)
    with pytest.raises(ConfigError, match=r"layers\.0\.mlp\.down_proj \(and 8 more\) was asked for and not adapted"):
        check_adapted(silent, wanted)
    with pytest.raises(ConfigError, match="was asked for and not adapted"):
        attach(base, "lora", r=4, target_modules=MLP)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if "fused_experts" in method.refuses])
def test_a_method_that_refuses_experts_takes_the_attention_beside_them(method, tmp_path):
    """As the message proposes; the latent attention of DeepSeek, saved and loaded again."""
    import torch

    names = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
    base, _ = load("tiny-deepseek-v3.2", verbose=False)
    adapter = attach(base, method, r=4, target_modules=names)
    assert len(adapted_layers(adapter.model)) == 5 * 3
    with torch.no_grad():
        for parameter in adapter.model.parameters():
            if parameter.requires_grad:
                parameter += 0.1
        adapter.save(str(tmp_path))
        ids = torch.arange(20)[None] + 30
        loaded, _ = load(str(tmp_path), verbose=False)
        torch.testing.assert_close(loaded(ids).logits, adapter.model.eval()(ids).logits, atol=1e-5, rtol=1e-5)


def test_a_layer_that_was_not_asked_for_is_an_error():
    model = get_peft_model(load("tiny-llama3", verbose=False)[0], LoraConfig(target_modules=["q_proj", "v_proj"]))
    with pytest.raises(ConfigError, match="v_proj .*was adapted without being asked for"):
        check_adapted(model, wanted_layers(load("tiny-llama3", verbose=False)[0], LoraTargets(["q_proj"], [], None)))


def test_what_peft_refuses_to_adapt_is_one_sentence():
    with pytest.raises(ConfigError, match="PEFT cannot adapt what was asked for"):
        attach(load("tiny-deepseek-v3", verbose=False)[0], "lora", r=4, target_modules=["gate_proj"])


@pytest.mark.parametrize("method", ["lora", "vera"])
def test_e9_6_names_that_the_vision_tower_has_too_stay_in_the_decoder(method):
    base, _ = load("tiny-gemma3-vision", verbose=False)
    model = attach(base, method, r=4, target_modules=["q_proj", "v_proj"]).model
    assert len(adapted_layers(model)) == 8 and all("language_model" in name for name in adapted_layers(model))


def test_a_tied_head_is_not_adapted():
    with pytest.raises(ConfigError, match="whose weight is also the embedding"):
        attach(load("tiny-smollm", verbose=False)[0], "lora", r=4, target_modules=["lm_head"])


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
def test_e3_3_tied_embeddings_stay_tied_when_one_of_them_is_trained(name):
    import torch

    base, tokenizer = load("tiny-smollm", verbose=False)
    model = attach(base, "lora", r=4, modules_to_save=[name]).model
    ids = torch.arange(20)[None] + 30
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    before = model.eval()(ids).logits
    merged = model.merge_and_unload()
    assert torch.equal(merged.get_input_embeddings().weight, merged.get_output_embeddings().weight)
    assert not torch.equal(merged.get_input_embeddings().weight, load("tiny-smollm", verbose=False)[0].lm_head.weight)
    torch.testing.assert_close(merged(ids).logits, before, atol=1e-5, rtol=1e-5)


def test_a_module_that_is_no_embedding_is_trained_whole_on_a_tied_model():
    base, _ = load("tiny-smollm", verbose=False)
    model = attach(base, "lora", r=4, modules_to_save=["norm"]).model
    assert not model.peft_config["default"].ensure_weight_tying
    assert [name for name, p in model.named_parameters() if p.requires_grad and "norm.modules_to_save" in name]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_head_that_is_trained_whole_gives_float32_logits_on_a_narrower_base(dtype):
    import torch

    model = attach(load("tiny-llama3", dtype=dtype, verbose=False)[0], "lora", r=4, modules_to_save=["lm_head"]).model
    ids, base = torch.arange(20)[None] + 30, model.get_base_model()
    with torch.no_grad():
        logits = model(ids).logits
        hidden = base.model(ids).last_hidden_state
    assert hidden.dtype == getattr(torch, dtype)
    assert torch.equal(logits, hidden.float() @ base.lm_head.modules_to_save["default"].weight.T)


@pytest.mark.parametrize("method", ["lora", "vera", "adalora"])
def test_what_is_drawn_depends_on_the_seed_alone_and_the_global_generator_stays(method):
    import torch

    def drawn(seed, before):
        torch.manual_seed(before)
        model = attach(load("tiny-llama3", verbose=False)[0], method, r=4, seed=seed).model
        after = torch.rand(1)
        torch.manual_seed(before)
        assert torch.equal(after, torch.rand(1))
        return torch.cat(
            [t.flatten() for name, t in model.state_dict().items() if "lora_A" in name or "vera_A" in name]
        )

    one = drawn(1, before=2)
    assert torch.equal(one, drawn(1, before=3)) and not torch.equal(one, drawn(2, before=2))


def test_vera_refuses_to_untie():
    with pytest.raises(ConfigError, match="would untie this model's embeddings"):
        attach(load("tiny-smollm", verbose=False)[0], "vera", r=4, modules_to_save=["lm_head"])


@pytest.mark.parametrize("method", ["lora", "vera", "dora", "adalora", "lora-fa"])
@pytest.mark.parametrize("name", ["tiny-llama3", "tiny-gemma3-vision"])
def test_the_summary_adds_up(name, method):
    base, _ = load(name, verbose=False)
    whole = sum(p.numel() for p in base.parameters())
    adapted = sum(i * o for _, i, o in wanted_layers(base, lora_targets(base)).values())
    model = attach(base, method, r=4).model
    rows = {line.rsplit(maxsplit=3)[0]: line.rsplit(maxsplit=3)[1:] for line in summary(model).splitlines()}
    numbers = {kind: [int(cell.replace(",", "")) for cell in cells] for kind, cells in rows.items() if kind != "module"}
    total = numbers.pop("total")
    assert total == [sum(column) for column in zip(*numbers.values(), strict=True)]
    assert total == [adapted, whole - adapted, model.get_nb_trainable_parameters()[0]]


def test_the_summary_shows_experts_routers_and_the_vision_tower_apart():
    shown = summary(attach(load("tiny-deepseek-v3.2", verbose=False)[0], "lora", r=4).model)
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines()}
    assert rows["mlp.experts"][1] == "0" and rows["mlp.gate"][0] == rows["mlp.gate"][2] == "0"
    assert rows["indexer.wk"][2] == "0" and rows["shared_experts.gate_proj"][1] == "0"
    vision = summary(attach(load("tiny-gemma3-vision", verbose=False)[0], "lora", r=4).model)
    assert all(line.split()[-1] == line.split()[-3] == "0" for line in vision.splitlines() if "vision:" in line)
