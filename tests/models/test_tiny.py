import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.models import load, load_tokenizer
from ftkit.models.tiny import POSITIONS, TINY

TEXT = "The quick brown fox, 敏捷的棕色狐狸 🦊, jumps over the lazy dog."


def tiny(name, **kwargs):
    return load(name, device="cpu", verbose=False, **kwargs)


@pytest.mark.parametrize("name", TINY)
def test_forward_and_backward_are_finite_and_logits_differ(name):
    model, tokenizer = tiny(name)
    assert model.dtype is torch.float32
    assert 20_000 < model.num_parameters() < 100_000
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    model.train()
    output = model(input_ids=ids, labels=ids)
    output.loss.backward()
    assert output.loss.isfinite()
    assert 0.3 < output.logits.std() < 3
    for parameter_name, parameter in model.named_parameters():
        unused = any(part in parameter_name for part in ("indexer", "vision_tower", "multi_modal_projector"))
        if unused:
            assert parameter.grad is None
        else:
            assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", TINY)
def test_a_seed_gives_one_model_and_leaves_the_global_generator_alone(name):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second, other = (tiny(name, seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", TINY)
def test_every_tokenizer_gives_any_text_back(name):
    tokenizer = load_tokenizer(name)

    @settings(max_examples=50, deadline=None)
    @given(st.text())
    def check(text):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text
        assert ids == list(text.encode()) or any(token in text for token in tokenizer.get_added_vocab())

    check()


@pytest.mark.parametrize("name", TINY)
def test_special_tokens_are_single_ids_and_bos_is_added_as_the_family_does(name):
    spec, tokenizer = TINY[name], load_tokenizer(name)
    for token in (*spec.special_tokens, *spec.plain_tokens):
        assert len(tokenizer(token, add_special_tokens=False).input_ids) == 1
    assert tokenizer("a").input_ids == ([tokenizer.bos_token_id] if spec.adds_bos else []) + [ord("a")]
    ids = tokenizer("".join((*spec.special_tokens, *spec.plain_tokens)), add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "".join(spec.plain_tokens)


def test_pad_tokens_are_the_families_own():
    pads = {name: (load_tokenizer(name).pad_token, load_tokenizer(name).eos_token) for name in TINY}
    assert pads["tiny-smollm"] == ("<|im_end|>", "<|im_end|>")
    assert pads["tiny-qwen3"] == ("<|endoftext|>", "<|im_end|>")
    assert pads["tiny-gemma3"] == ("<pad>", "<eos>")
    assert pads["tiny-llama3"] == ("<|finetune_right_pad_id|>", "<|eot_id|>")


@pytest.mark.parametrize("name", TINY)
def test_a_saved_model_loads_again_the_same(name, tmp_path):
    model, tokenizer = tiny(name)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokenizer_again = tiny(str(tmp_path), dtype="float32")
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert type(again) is type(model)
    assert tokenizer_again(TEXT).input_ids == ids[0].tolist()
    assert tokenizer_again.chat_template == tokenizer.chat_template
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits)


def layer_kinds(model):
    """For each decoder layer, the names of the kinds of parts it has."""
    return [{name for name, _ in layer.named_modules()} for layer in model.model.layers]


def test_each_architecture_is_the_real_one():
    def config_of(name):
        return tiny(name)[0].config

    for name in ("tiny-llama3", "tiny-qwen3", "tiny-gemma3", "tiny-smollm"):
        assert config_of(name).num_attention_heads > config_of(name).num_key_value_heads
    smollm = config_of("tiny-smollm")
    assert smollm.num_attention_heads == 3 * smollm.num_key_value_heads
    assert config_of("tiny-gemma3").layer_types == ["sliding_attention", "full_attention"] * 2

    llama4 = layer_kinds(tiny("tiny-llama4")[0])
    assert ["feed_forward.experts" in layer for layer in llama4] == [False, True, False, True]
    assert ["feed_forward.shared_expert" in layer for layer in llama4] == [False, True, False, True]
    assert all("mlp.experts" in layer for layer in layer_kinds(tiny("tiny-qwen3-moe")[0]))
    for name in ("tiny-deepseek-v3", "tiny-deepseek-v3.2"):
        layers = layer_kinds(tiny(name)[0])
        assert ["mlp.experts" in layer for layer in layers] == [False, True, True]
        assert ["mlp.shared_experts" in layer for layer in layers] == [False, True, True]
        assert all(("self_attn.indexer" in layer) == name.endswith("v3.2") for layer in layers)


@pytest.mark.parametrize("name", TINY)
def test_embeddings_are_tied_where_the_family_ties_them(name):
    model, _ = tiny(name)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == (name in ("tiny-gemma3", "tiny-gemma3-vision", "tiny-smollm"))


@pytest.mark.parametrize("name", TINY)
def test_rows_of_full_length_run(name):
    model, tokenizer = tiny(name)
    config = model.config.get_text_config()
    assert config.max_position_embeddings == POSITIONS == tokenizer.model_max_length >= 2048
    with torch.no_grad():
        assert model(torch.full((1, POSITIONS), 97)).logits.isfinite().all()


def test_the_vision_model_sees_its_image():
    model, tokenizer = tiny("tiny-gemma3-vision")
    model.model.multi_modal_projector.mm_input_projection_weight.data.normal_(std=0.1)  # zero at initialisation
    image = "<start_of_image>" + "<image_soft_token>" * model.config.mm_tokens_per_image + "<end_of_image>"
    batch = tokenizer(image + "What is this?", return_tensors="pt")
    batch["token_type_ids"] = (batch["input_ids"] == model.config.image_token_id).long()
    with torch.no_grad():
        dark, light = (model(**batch, pixel_values=torch.full((1, 3, 16, 16), v)).logits for v in (-1.0, 1.0))
    assert (dark - light).abs().max() > 1e-4


@pytest.mark.parametrize("name", TINY)
def test_generation_stops_at_the_familys_tokens(name):
    model, tokenizer = tiny(name)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    for stop in TINY[name].stops:
        stop_id = tokenizer.convert_tokens_to_ids(stop)

        def only_stop(input_ids, scores, stop_id=stop_id):
            return torch.full_like(scores, -1e9).index_fill(1, torch.tensor([stop_id]), 0.0)

        output = model.generate(ids, max_new_tokens=5, do_sample=False, logits_processor=[only_stop])
        assert output.shape[1] == ids.shape[1] + 1
