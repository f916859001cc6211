"""The guide's cases of choosing a method."""

import pytest

from ftkit.errors import ConfigError, ModelError
from ftkit.memory.fit import fits
from ftkit.memory.recommendation import RULES, recommend
from ftkit.training.config import FullFineTuningConfig, LoRAConfig
from ftkit.training.memory import memory_notice


def test_e13_2_the_guides_hardware_for_70b():
    # One 4090 or a 40 GB A100 for QLoRA, two A100 for LoRA, eight for full fine-tuning: none of the four holds.
    for gpu, gpus in (("RTX 4090", 1), ("A100-40", 1)):
        assert recommend("llama-3-70b", rows=10_000, gpu=gpu, gpus=gpus).method is None
    assert recommend("llama-3-70b", rows=10_000, gpu="A100-80", gpus=2).method == "qlora"
    assert recommend("llama-3-70b", rows=200_000, gpu="A100-80", gpus=8, goal="maximum").method == "lora"
    assert recommend("llama-3-70b", rows=10_000, gpu="A100-80").method == "qlora"


def test_a_consumer_card_trains_8b_with_adapters():
    assert recommend("llama-3-8b", rows=10_000, gpu="RTX 4090").method in ("lora", "qlora")
    assert recommend("llama-3-8b", rows=10_000, gpu="T4").method == "qlora"


def test_full_fine_tuning_needs_a_goal_rows_and_cards():
    machine = {"gpu": "A100-80", "gpus": 4}
    assert recommend("llama-3-8b", rows=200_000, goal="knowledge", **machine).method == "full"
    assert recommend("llama-3-8b", rows=200_000, goal="behaviour", **machine).method == "lora"
    few = recommend("llama-3-8b", rows=5_000, goal="knowledge", **machine)
    assert few.method == "lora" and any("100,000" in reason for reason in few.reasons)


@pytest.mark.parametrize("goal", ["behaviour", "knowledge"])
@pytest.mark.parametrize("rows", [500, 200_000])
@pytest.mark.parametrize("gpu", ["T4", "A100-80", "B200"])
def test_the_path_follows_the_flowchart_to_the_method(gpu, rows, goal):
    found = recommend("llama-3-8b", rows=rows, gpu=gpu, goal=goal)
    at = next(iter(RULES))
    for name, answer in found.path:
        assert name == at
        at = RULES[name].yes if answer else RULES[name].no
    assert at == (found.method or "nothing")


def test_every_answer_of_the_flowchart_leads_further_down():
    order = [*RULES, "full", "lora", "qlora", "nothing"]
    for name, question in RULES.items():
        assert order.index(question.yes) > order.index(name) and order.index(question.no) > order.index(name)


def test_few_rows_bring_the_advice_to_prompt_first():
    assert "prompt" in recommend("llama-3-8b", rows=20, gpu="A100-80").reasons[0]


@pytest.mark.parametrize("model", ["llama-3.2-1b", "llama-3-8b", "qwen3-30b-a3b", "llama-3-70b"])
@pytest.mark.parametrize("gpu", ["T4", "RTX 4090", "A100-80", "H200"])
def test_what_is_recommended_fits(model, gpu):
    found = recommend(model, rows=5_000, gpu=gpu)
    assert found.reasons
    assert (found.method is None) == (fits(found.memory, gpu) != "yes")
    assert (found.method is None) == (not found.settings)


def test_the_settings_make_a_configuration():
    found = recommend("llama-3-8b", rows=5_000, gpu="A100-80")
    config = LoRAConfig(model_name="meta-llama/Llama-3.1-8B", **found.settings)
    assert config.lora_alpha == 2 * config.lora_r
    assert config.batch_size * config.gradient_accumulation_steps == 32


def test_inputs_that_cannot_be_are_refused():
    for wrong in ({"goal": "behavior"}, {"rows": 0}, {"gpu": "T5"}):
        with pytest.raises(ConfigError):
            recommend("llama-3-8b", **({"rows": 10, "gpu": "T4"} | wrong))
    with pytest.raises(ModelError):
        recommend("llama-9", rows=10, gpu="T4")


def test_full_fine_tuning_is_estimated_as_its_trainer_runs():
    found = recommend("llama-3.2-1b", rows=200_000, gpu="A100-80", goal="knowledge")
    assert found.method == "full"
    config = FullFineTuningConfig(model_name="meta-llama/Llama-3.2-1B", **found.settings)
    run = {"available": found.memory.upper_bytes, "dtype": "bfloat16", "device": "cuda"}
    assert memory_notice(config, "full", **run)[1] == ""
    assert "may not fit" in memory_notice(config, "full", **run | {"available": found.memory.upper_bytes - 1})[1]


def test_advice_with_several_cards_says_that_the_trainers_do_not_share():
    def said(gpus: int, model: str) -> list[str]:
        found = recommend(model, rows=5_000, gpu="A100-80", gpus=gpus)
        return [reason for reason in found.reasons if "FSDP, which ftkit's trainers do not do" in reason]

    assert said(1, "llama-3-8b") == []
    assert len(said(2, "llama-3-8b")) == 1 and said(2, "llama-3-8b")[0].startswith("2 cards")
    assert "or more cards, which needs" in said(1, "deepseek-v3")[0]  # nothing fits
    assert len(said(2, "deepseek-v3")) == 1
