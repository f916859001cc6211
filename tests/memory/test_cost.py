"""Operations, time and price."""

import pytest

from ftkit.errors import ConfigError
from ftkit.memory.catalogue import architecture
from ftkit.memory.cost import flops_per_token, training_cost
from ftkit.memory.estimator import Settings
from ftkit.memory.hardware import accelerator, accelerators

ROWS, EPOCHS = 10_000, 3


def hours(method, gpu, gpus, tokens_per_row):
    return training_cost(
        "llama-3-70b",
        gpu=gpu,
        gpus=gpus,
        tokens=EPOCHS * ROWS * tokens_per_row,
        mfu=0.4,
        method=method,
        use_gradient_checkpointing=True,
        sequence_length=tokens_per_row,
    )


def test_e13_2_the_cost_table_follows_from_tokens_mfu_and_price():
    # The guide's 24, 12, 18 and 48 hours cannot all be true of the same tokens.
    expected = {
        ("full", "A100-80", 8): (9.6, 2.4),
        ("lora", "A100-80", 2): (28.9, 7.1),
        ("qlora", "A100-40", 1): (57.9, 14.1),
        ("qlora", "RTX 4090", 1): (109.5, 26.7),
    }
    for (method, gpu, gpus), (long, short) in expected.items():
        assert hours(method, gpu, gpus, 2048).hours == pytest.approx(long, rel=0.06)
        assert hours(method, gpu, gpus, 500).hours == pytest.approx(short, rel=0.06)


def test_e13_2_qlora_takes_more_gpu_hours_than_lora_at_equal_tokens():
    lora, qlora, full = (hours(method, "A100-80", 1, 2048).gpu_hours for method in ("lora", "qlora", "full"))
    assert lora < qlora < full
    assert full / lora == pytest.approx(8 / 6, rel=0.03)


def test_operations_are_6_or_8_times_the_weights_where_all_train_and_4_or_6_where_few_do():
    a = architecture("llama-3-70b")
    weights = a.count("linear", "head")
    for method, checkpointing, times in (("full", False, 6), ("full", True, 8), ("lora", False, 4), ("lora", True, 6)):
        run = Settings(method=method, rank=8, use_gradient_checkpointing=checkpointing, sequence_length=128)
        assert flops_per_token(a, run) / weights == pytest.approx(times, rel=0.01)


def test_a_mixture_of_experts_costs_its_active_parameters():
    a = architecture("qwen3-30b-a3b")
    run = Settings(method="full", use_gradient_checkpointing=False, sequence_length=128)
    active = a.active_parameters - a.count("embedding", "vector")
    assert flops_per_token(a, run) / active == pytest.approx(6, rel=0.02)


def test_lora_on_fused_experts_costs_their_whole_gradient():
    a = architecture("qwen3-30b-a3b")
    common = {"rank": 8, "use_gradient_checkpointing": False, "sequence_length": 128, "batch_size": 512}
    full, every, attention = (
        flops_per_token(a, Settings(**common, **run))
        for run in (
            {"method": "full"},
            {"method": "lora"},
            {"method": "lora", "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj")},
        )
    )
    experts = a.count("expert") * a.top_k // a.experts
    assert every - attention == pytest.approx(2 * experts, rel=0.05)  # the gradient of the active experts' weights
    assert attention < every < full


def test_price_is_gpu_hours_times_the_hourly_price():
    cost = training_cost("llama-3-8b", gpu="H100", gpus=4, tokens=10**8, mfu=0.3, price_per_gpu_hour=2.5)
    assert cost.price == pytest.approx(2.5 * 4 * cost.hours)
    assert training_cost("llama-3-8b", gpu="H100", tokens=10**8, mfu=0.3).price is None


def test_larger_batches_dequantise_less_often():
    small, large = (
        training_cost("llama-3-8b", gpu="L4", tokens=10**8, mfu=0.3, batch_size=b).dequantisation_hours for b in (1, 8)
    )
    assert small == pytest.approx(8 * large)


def test_checkpointing_dequantises_once_more():
    with_it, without = (
        training_cost(
            "llama-3-8b", gpu="L4", tokens=10**8, mfu=0.3, use_gradient_checkpointing=use
        ).dequantisation_hours
        for use in (True, False)
    )
    assert with_it == pytest.approx(1.5 * without)  # forward, backward, and the forward pass that is run again


def test_inputs_that_cannot_be_are_refused():
    for settings in ({"mfu": 0}, {"mfu": 1.5}, {"mfu": 0.4, "gpus": 0}, {"mfu": 0.4, "price_per_gpu_hour": -1}):
        with pytest.raises(ConfigError):
            training_cost("llama-3-8b", gpu="H100", tokens=10**6, **settings)


def test_every_accelerator_has_a_source_and_is_found_by_its_name():
    for row in accelerators():
        assert (
            row.source
            and row.read_at.startswith("https://")
            and row.memory_gb > 0
            and row.bandwidth_gbs > 0
            and row.tflops > 0
        )
        assert accelerator(row.name.lower()) == accelerator(row.name.replace(" ", "")) == row
    assert accelerator("a100").memory_gb == 80
    with pytest.raises(ConfigError, match="'RTX 4090'"):
        accelerator("RTX 4900")
