"""PiSSA: the start, PEFT's own version of it, and what is saved."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ftkit.errors import ConfigError
from ftkit.methods import rank_2r
from ftkit.methods.by_name import attach


def test_in_float32_it_is_pefts_own_initialisation(lab):
    ours = rank_2r.lora_layers(lab.production("pissa").model)
    config = LoraConfig(r=lab.R, lora_alpha=lab.ALPHA, target_modules=list(lab.NAMES), init_lora_weights="pissa")
    theirs = rank_2r.lora_layers(get_peft_model(lab.base(), config))
    assert ours.keys() == theirs.keys()
    for name in ours:
        mine, peft = ours[name], theirs[name]
        torch.testing.assert_close(mine.get_base_layer().weight, peft.get_base_layer().weight, atol=1e-6, rtol=1e-5)
        for a, b in zip(rank_2r.factors(mine), rank_2r.factors(peft), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_the_frozen_rest_holds_the_smaller_singular_values(lab):
    base = lab.base()
    for name, layer in rank_2r.lora_layers(lab.production("pissa").model).items():
        S = torch.linalg.svdvals(base.get_submodule(name).weight)
        rest = torch.linalg.svdvals(layer.get_base_layer().weight)
        torch.testing.assert_close(rest[: len(S) - lab.R], S[lab.R :], atol=1e-5, rtol=1e-4)


def test_on_a_narrower_base_it_starts_nearer_to_it_than_pefts_does(lab):
    """Mean error of residual + BA as a start for W."""

    def distance(model):
        base, layers = lab.base().bfloat16(), rank_2r.lora_layers(model).items()
        errors = []
        for name, layer in layers:
            A, B = (tensor.float() for tensor in rank_2r.factors(layer))
            start = layer.get_base_layer().weight.float() + rank_2r.scaling(layer) * B @ A
            errors.append((start - base.get_submodule(name).weight.float()).abs().mean())
        return torch.stack(errors).mean().item()

    ours = attach(lab.base().bfloat16(), "pissa", r=lab.R).model
    config = LoraConfig(r=lab.R, lora_alpha=2 * lab.R, target_modules=list(lab.NAMES), init_lora_weights="pissa")
    assert distance(ours) < 0.7 * distance(get_peft_model(lab.base().bfloat16(), config))


def test_more_singular_values_than_there_are_is_one_sentence(lab):
    with pytest.raises(ConfigError, match="PiSSA takes r=500 .* lower r"):
        lab.production("pissa", r=500)


def test_a_checkpoint_is_restored(lab, tmp_path):
    adapter = lab.production("pissa")
    lab.disturb(adapter.model)
    adapter.save_state(str(tmp_path))
    saved = lab.logits(adapter.model)
    lab.disturb(adapter.model)
    assert (lab.logits(adapter.model) - saved).abs().max() > 1e-2
    adapter.restore(str(tmp_path))
    assert torch.equal(lab.logits(adapter.model), saved)


def test_the_readable_version_is_the_same_lora_on_the_original_weight(lab):
    ours = lab.scratch("pissa")
    lab.disturb(ours)
    for name, layer in lab.layers(ours).items():
        A, B = layer.as_lora()
        rebuilt = lab.base().get_submodule(name).weight + layer.scaling * B @ A
        torch.testing.assert_close(rebuilt, layer.merge().weight, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_the_scale_is_kept_when_the_rank_doubles(lab, tmp_path, use_rslora):
    from ftkit.models import load

    adapter = lab.production("pissa", use_rslora=use_rslora)
    lab.disturb(adapter.model)
    adapter.save(str(tmp_path))
    loaded, _ = load(str(tmp_path), verbose=False)
    scales = {rank_2r.scaling(layer) for layer in rank_2r.lora_layers(loaded).values()}
    assert scales == {rank_2r.scaling(layer) for layer in rank_2r.lora_layers(adapter.model).values()}
    torch.testing.assert_close(lab.logits(loaded), lab.logits(adapter.model), atol=1e-5, rtol=1e-5)
