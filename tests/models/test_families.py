"""What PEFT really adapts with the table's targets, by name, on a model of every family."""

import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3MoeConfig

from ftkit.models import FAMILIES, family_of, load, lora_targets, stop_token_ids
from ftkit.models.tiny import TINY

ATTENTION = [f"self_attn.{name}_proj" for name in "qkvo"]
LATENT = [f"self_attn.{name}" for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")]
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
EXPERTS = ("experts.gate_up_proj", "experts.down_proj")


def layers(*kinds, prefix="model.layers"):
    return {f"{prefix}.{index}.{name}" for index, kind in enumerate(kinds) for name in kind}


def mlp(name, suffix=""):
    return [f"{name}.{projection}{suffix}" for projection in PROJECTIONS]


LLAMA4_DENSE = ATTENTION + mlp("feed_forward")
LLAMA4_MOE = ATTENTION + mlp("feed_forward.shared_expert") + [f"feed_forward.{name}" for name in EXPERTS]
DEEPSEEK = layers(
    LATENT + mlp("mlp", ".weight"),
    *[LATENT + mlp("mlp.shared_experts", ".weight") + [f"mlp.{name}" for name in EXPERTS]] * 2,
)
ADAPTED = {
    "tiny-llama3": layers(*[ATTENTION + mlp("mlp")] * 2),
    "tiny-llama4": layers(LLAMA4_DENSE, LLAMA4_MOE, LLAMA4_DENSE, LLAMA4_MOE),
    "tiny-qwen3": layers(*[ATTENTION + mlp("mlp")] * 2),
    "tiny-qwen3-moe": layers(*[ATTENTION + [f"mlp.{name}" for name in EXPERTS]] * 2),
    "tiny-deepseek-v3": DEEPSEEK,
    "tiny-deepseek-v3.2": DEEPSEEK,
    "tiny-gemma3": layers(*[ATTENTION + mlp("mlp")] * 4),
    "tiny-gemma3-vision": layers(*[ATTENTION + mlp("mlp")] * 4, prefix="model.language_model.layers"),
    "tiny-smollm": layers(*[ATTENTION + mlp("mlp")] * 2),
}
STOPS = {
    "tiny-llama3": {"<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"},
    "tiny-llama4": {"<|end_of_text|>", "<|eom|>", "<|eot|>"},
    "tiny-qwen3": {"<|im_end|>", "<|endoftext|>"},
    "tiny-qwen3-moe": {"<|im_end|>", "<|endoftext|>"},
    "tiny-deepseek-v3": {"<｜end▁of▁sentence｜>"},
    "tiny-deepseek-v3.2": {"<｜end▁of▁sentence｜>"},
    "tiny-gemma3": {"<eos>", "<end_of_turn>"},
    "tiny-gemma3-vision": {"<eos>", "<end_of_turn>"},
    "tiny-smollm": {"<|im_end|>"},
}


def with_lora(model, targets=None):
    targets = targets or lora_targets(model)
    return get_peft_model(
        model,
        LoraConfig(
            r=4,
            target_modules=targets.target_modules,
            target_parameters=targets.target_parameters or None,
            exclude_modules=targets.exclude_modules,
        ),
    )


def adapted(peft_model):
    """Names of the base model's modules that carry LoRA; for weights adapted as parameters, the parameter's name."""
    names = set()
    for name, module in peft_model.get_base_model().named_modules():
        name = name.replace(".base_layer", "")
        if isinstance(module, ParamWrapper):
            names.add(f"{name}.{module.parameter_name}")
        elif isinstance(module, LoraLayer):
            names.add(name)
    return names


def test_every_tiny_model_and_model_type_has_one_family():
    assert set(ADAPTED) == set(STOPS) == set(TINY)
    model_types = [model_type for family in FAMILIES for model_type in family.model_types]
    assert len(model_types) == len(set(model_types))
    for name in TINY:
        model, _ = load(name, device="cpu", verbose=False)
        assert family_of(model) is family_of(model.config) is not None


@pytest.mark.parametrize("name", TINY)
def test_lora_is_on_every_decoder_map_and_nowhere_else(name):
    model, tokenizer = load(name, device="cpu", verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(target|exclude)")  # a name that matches nothing
        model = with_lora(model)
    assert adapted(model) == ADAPTED[name]

    ids = tokenizer("Every expert gets some of these 64 bytes, or so the routers may hope.", return_tensors="pt")
    model(input_ids=ids.input_ids, labels=ids.input_ids).loss.backward()
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", TINY)
def test_an_adapter_loads_in_plain_peft_and_by_load(name, tmp_path):
    model, tokenizer = load(name, device="cpu", verbose=False)
    model = with_lora(model).eval()
    torch.manual_seed(0)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data.normal_(std=0.05)
    ids = tokenizer("abc", return_tensors="pt").input_ids
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    with torch.no_grad():
        trained = model(ids).logits
        plain = PeftModel.from_pretrained(load(name, device="cpu", verbose=False)[0], tmp_path).eval()
        torch.testing.assert_close(plain(ids).logits, trained)
        loaded, _ = load(str(tmp_path), device="cpu", verbose=False)
        assert isinstance(loaded, PeftModel)
        torch.testing.assert_close(loaded(ids).logits, trained)
        assert (load(name, device="cpu", verbose=False)[0](ids).logits - trained).abs().max() > 1e-3


@pytest.mark.parametrize("name", TINY)
def test_stop_tokens_are_eos_and_end_of_turn(name):
    model, tokenizer = load(name, device="cpu", verbose=False)
    ids = stop_token_ids(tokenizer, model)
    assert ids == sorted(ids)
    assert set(tokenizer.convert_ids_to_tokens(ids)) == STOPS[name]
    # The family's token is found where the generation configuration forgot it.
    model.generation_config.eos_token_id = None
    forgotten = set(tokenizer.convert_ids_to_tokens(stop_token_ids(tokenizer, model)))
    assert tokenizer.eos_token in forgotten
    if "gemma" in name:
        assert "<end_of_turn>" in forgotten


def test_qwen3_moe_layers_without_experts_are_adapted_too():
    config = Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        moe_intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        mlp_only_layers=[0],
    )
    model = with_lora(AutoModelForCausalLM.from_config(config))
    moe = [f"mlp.{name}" for name in EXPERTS]
    assert adapted(model) == layers(ATTENTION + mlp("mlp", ".weight"), ATTENTION + moe)


class Router(torch.nn.Linear):
    """A linear layer that returns something else, as routers do."""

    def forward(self, x):
        return super().forward(x), None


def test_an_unknown_model_type_gets_the_decoders_plain_linear_layers():
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = AutoModelForCausalLM.from_config(config)
    model.model.layers[0].mlp.router = Router(16, 2)
    model.vision = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(4, 4), "fc": torch.nn.Linear(4, 4)})
    assert family_of(model) is None
    assert adapted(with_lora(model)) == layers(ATTENTION + mlp("mlp"))
