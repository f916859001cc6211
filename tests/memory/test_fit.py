"""What fits."""

from dataclasses import replace

import pytest

from ftkit.errors import ConfigError
from ftkit.memory.catalogue import architecture
from ftkit.memory.estimator import estimate
from ftkit.memory.fit import cheapest, fits, largest, largest_model, smallest_card
from ftkit.memory.hardware import accelerator


def test_e3_2_qlora_of_70b_fits_neither_24_nor_40_gb():
    for gpu, answer in (("RTX 4090", "no"), ("A100-40", "no"), ("A100-80", "yes")):
        run = estimate("llama-3-70b", batch_size=1, sequence_length=2048)
        assert fits(run, gpu) == answer


def test_between_the_bounds_the_answer_is_perhaps():
    run = estimate("llama-3-8b", method="lora", batch_size=1)
    between = (run.lower_bytes + run.upper_bytes) / 2 / 1e9
    assert fits(run, replace(accelerator("L4"), memory_gb=between)) == "perhaps"


@pytest.mark.parametrize("what", ["batch_size", "sequence_length", "rank"])
def test_the_largest_fits_and_one_more_does_not(what):
    settings = {"method": "qlora", "batch_size": 1, "sequence_length": 1024, "rank": 8}
    found = largest(what, "llama-3-8b", "RTX 4090", **settings)
    assert found > 1
    assert fits(estimate("llama-3-8b", **(settings | {what: found})), "RTX 4090") == "yes"
    assert fits(estimate("llama-3-8b", **(settings | {what: found + 1})), "RTX 4090") != "yes"


def test_nothing_is_largest_where_not_even_one_row_fits():
    assert largest("batch_size", "llama-3-70b", "T4") == 0
    with pytest.raises(ConfigError, match="'batch_size'"):
        largest("batchsize", "llama-3-8b", "T4")


def test_the_lighter_the_method_the_larger_the_model():
    sizes = [
        architecture(largest_model("RTX 4090", method=m, batch_size=1)).parameters for m in ("full", "lora", "qlora")
    ]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]


def test_the_cheapest_run_fits_and_none_that_fits_costs_less():
    prices = {"RTX 4090": 0.5, "A100-80": 2.0}
    run = {"tokens": 10**7, "mfu": 0.4, "batch_size": 1, "rank": 16}
    best = cheapest("llama-3-8b", prices=prices, **run)
    assert fits(best.memory, best.gpu) == "yes"
    for name, price in prices.items():
        only = cheapest("llama-3-8b", prices={name: price}, **run)
        assert only is None or best.cost.price <= only.cost.price
    assert cheapest("llama-3.1-405b", prices={"T4": 0.2}, gpus=(1,), **run) is None


def test_the_smallest_card_holds_the_upper_bound():
    run = estimate("llama-3-8b", batch_size=1)
    card = smallest_card(run)
    assert run.upper_bytes <= card.memory_bytes
    assert smallest_card(estimate("llama-3.1-405b", method="full")) is None
