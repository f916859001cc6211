"""The static numbers: against published figures, against PEFT, and against the tensors of tiny models."""

import pytest
from peft import AdaLoraConfig, LoraConfig, VeraConfig, get_peft_model

from ftkit.errors import ConfigError
from ftkit.memory.catalogue import known_models
from ftkit.memory.describe import describe
from ftkit.memory.estimator import METHODS, STATIC, estimate, estimate_memory_requirements, nf4_bytes
from ftkit.methods.lora import attach_lora
from ftkit.models import load
from ftkit.models.tiny import TINY

TEXT = [name for name in TINY if name != "tiny-gemma3-vision"]


def test_e5_3_lora_on_70b_trains_828_million_and_not_100():
    counts = {
        (64, None): 828_375_040,
        (8, None): 103_546_880,
        (64, ("q_proj", "v_proj")): 131_072_000,
        (64, ("q_proj", "k_proj", "v_proj", "o_proj")): 262_144_000,
    }
    for (rank, targets), trained in counts.items():
        found = estimate("llama-3-70b", method="lora", rank=rank, target_modules=targets)
        assert found.trainable_parameters == trained


def test_e3_1_full_fine_tuning_of_70b_holds_more_than_its_weights():
    assert estimate("llama-3-70b", method="full").static_bytes == 16 * 70_553_706_496
    assert estimate("llama-3-70b", method="full", precision="bfloat16").static_bytes == 8 * 70_553_706_496


def test_e3_2_qlora_of_70b_needs_48_gb_before_the_first_token():
    run = estimate("llama-3-70b", method="qlora", rank=64)
    assert run.components["quantized_weights"] / 1e9 == pytest.approx(35.3, abs=0.05)
    assert run.static_bytes / 1e9 == pytest.approx(47.8, abs=0.05)
    assert estimate("llama-3-70b", rank=8).static_bytes / 1e9 == pytest.approx(40.6, abs=0.05)
    wide = estimate("llama-3-70b", wide_dtype="float32")
    assert wide.static_bytes / 1e9 == pytest.approx(52.0, abs=0.05)
    simple = estimate("llama-3-70b", double_quantization=False)
    assert simple.components["quantized_weights"] / 1e9 == pytest.approx(38.5, abs=0.05)


def test_e3_3_training_embeddings_and_head_is_most_of_the_adapter():
    assert estimate("llama-3-70b", train_embeddings=True).trainable_parameters == 2_929_721_344
    assert estimate("llama-3-70b", wide_dtype="float32", train_embeddings=True).static_bytes / 1e9 == pytest.approx(
        73.0, abs=0.15
    )


def test_lora_of_70b_holds_16_bit_weights_and_16_bytes_a_trained_number():
    assert estimate("llama-3-70b", method="lora").static_bytes / 1e9 == pytest.approx(154.4, abs=0.05)


def test_e10_4_the_guides_function_counts_what_it_left_out(capsys):
    total = estimate_memory_requirements("meta-llama/Llama-3.1-70B-Instruct", batch_size=4, seq_length=2048)
    assert total > 60  # it printed 33.0
    assert "828,375,040 trained" in capsys.readouterr().out
    assert estimate_memory_requirements("gemma-3-27b") > estimate_memory_requirements("llama-3-8b")


def test_vera_and_dora_and_lora_have_the_papers_counts():
    # Hu et al., table 6 and Kopiczko et al., table 1 have no Llama; these are the methods' formulas on LLaMA-7B.
    counts = {("lora", 64): 159_907_840, ("vera", 1024): 1_589_248, ("vera", 256): 1_417_216}
    for (adapter, rank), trained in counts.items():
        found = estimate("llama-2-7b", method="lora", adapter=adapter, rank=rank)
        assert found.trainable_parameters == trained
    dora = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
    for adapter, trained in (("lora", 56_098_816), ("dora", 56_975_360)):
        found = estimate("llama-2-7b", method="lora", adapter=adapter, rank=32, target_modules=dora)
        assert found.trainable_parameters == trained


def trained(model) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", TEXT)
def test_parameters_and_adapters_are_those_of_every_family(name):
    model, _ = load(name, verbose=False)
    a = describe(model.config)
    assert a.parameters == sum(p.numel() for p in model.parameters())
    adapted = attach_lora(model, r=4, lora_alpha=8)
    assert estimate(a, method="lora", rank=4).trainable_parameters == trained(adapted)


@pytest.mark.parametrize("adapter", ["lora_fa", "dora", "adalora", "vera"])
def test_other_adapters_have_the_numbers_that_peft_gives_them(adapter):
    model, _ = load("tiny-llama3", verbose=False)
    a = describe(model.config)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = {
        "lora_fa": LoraConfig(r=4, target_modules=targets),
        "dora": LoraConfig(r=4, target_modules=targets, use_dora=True),
        "adalora": AdaLoraConfig(init_r=4, target_r=2, total_step=10, target_modules=targets),
        "vera": VeraConfig(r=4, target_modules=targets),
    }[adapter]
    adapted = get_peft_model(model, config)
    if adapter == "lora_fa":
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_A" in parameter_name:
                parameter.requires_grad_(False)
    run = estimate(a, method="lora", rank=4, adapter=adapter, precision="float32")
    assert run.trainable_parameters == trained(adapted)


@pytest.mark.parametrize("model", known_models())
@pytest.mark.parametrize("method", METHODS)
def test_bounds_hold_the_total_and_the_total_is_the_sum(model, method):
    run = estimate(model, method=method)
    assert run.lower_bytes <= run.total_bytes <= run.upper_bytes
    assert run.total_bytes == sum(run.components.values()) == run.to_dict()["total_bytes"]
    assert all(isinstance(size, int) and size >= 0 for size in run.components.values())


def test_the_table_says_for_which_batch_it_is():
    assert "a step of 3 rows of 1,024 tokens" in str(estimate("llama-3-8b", batch_size=3, sequence_length=1024))


def test_memory_grows_with_batch_sequence_and_rank():
    small = estimate("llama-3-8b", method="lora", rank=8, batch_size=1, sequence_length=512)
    for change in ({"batch_size": 2}, {"sequence_length": 1024}, {"rank": 16}):
        settings = {"rank": 8, "batch_size": 1, "sequence_length": 512} | change
        grown = estimate("llama-3-8b", method="lora", **settings)
        assert grown.lower_bytes > small.lower_bytes and grown.upper_bytes > small.upper_bytes


def test_checkpointing_and_the_chunked_loss_save_what_they_are_for():
    kept = estimate("llama-3-8b", method="lora", use_gradient_checkpointing=False)
    checkpointed = estimate("llama-3-8b", method="lora", use_gradient_checkpointing=True)
    assert checkpointed.components["activations"] < kept.components["activations"] / 5
    plain = estimate("llama-3-8b", method="lora", chunked_loss=False)
    # 4 x 2048 rows of 128,256 logits in float32 are 4.2 GB, and more than one copy exists.
    assert plain.components["logits"] > 8.4e9 > 1e9 > kept.components["logits"]


def test_fsdp_shards_what_is_static_and_nothing_else():
    one, four = (estimate("llama-3-8b", method="full", shards=n) for n in (1, 4))
    for name in STATIC:
        assert four.components[name] == -(-one.components[name] // 4)
    assert four.components["activations"] == one.components["activations"]


def test_experts_are_in_4_bit_as_the_trainer_has_them_unless_loading_alone_is_meant():
    left = estimate("qwen3-30b-a3b", method="qlora", quantize_experts=False)
    assert left.components["weights"] > 57e9 and "not in 4 bit" in str(left)
    packed = estimate("qwen3-30b-a3b", method="qlora")
    assert packed.components["weights"] < 0.1e9 and "not in 4 bit" not in str(packed)


def test_nf4_has_the_papers_bits_a_weight():
    assert 8 * nf4_bytes(2**24) / 2**24 == pytest.approx(4 + 8 / 64 + 32 / (64 * 256))
    assert 8 * nf4_bytes(2**24, double_quantization=False) / 2**24 == 4.5


def test_optimizers_hold_what_they_are_named_for():
    full = {
        name: estimate("llama-3-8b", method="full", optimizer=name).components["optimizer"] / 8_030_261_248
        for name in ("adamw", "adamw_8bit", "sgd", "sgd_momentum")
    }
    assert full == pytest.approx({"adamw": 8, "adamw_8bit": 2 + 8 / 256, "sgd": 0, "sgd_momentum": 4}, rel=1e-3)


def test_settings_that_cannot_be_are_refused_in_a_sentence():
    for settings, text in (
        ({"method": "quora"}, "'qlora'"),
        ({"batch_size": 0}, "above 0"),
        ({"optimiser": "adamw"}, "'optimizer'"),
        ({"optimizer": "adam"}, "'adamw'"),
        ({"target_modules": ("q_prj",)}, "'q_proj'"),
    ):
        with pytest.raises(ConfigError, match=text):
            estimate("llama-3-8b", **settings)
    with pytest.raises(ConfigError, match="experts"):
        estimate("qwen3-30b-a3b", method="lora", adapter="dora")
