"""The failure gallery: each failure is seen, and each guard holds."""

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    notebook = execute(NOTEBOOKS / "failure_gallery.ipynb", folder, env={"FTKIT_CACHE": str(folder / "cache")})
    return results(notebook)["failures"]


def test_only_weighting_by_token_gives_the_gradient_of_the_whole_batch(computed):
    assert computed["accumulation"]["mean of means"] > 0.1 and computed["accumulation"]["weighted by token"] < 1e-6


def test_the_mean_of_means_depends_on_the_batch_size(computed):
    assert max(computed["by_size"].values()) - min(computed["by_size"].values()) > 1e-3


def test_16_bits_lose_a_part_of_a_small_update(computed):
    assert 0.05 < computed["lost"] < 0.5


def test_merging_into_tied_embeddings_changes_the_model(computed):
    assert computed["tied"] > 1


def test_what_goes_wrong_in_silence_elsewhere_is_refused_here(computed):
    assert "tie_word_embeddings" in computed["guards"]["tied"]
    assert "Did you mean 'gate_proj'" in computed["guards"]["names"]
    assert "does not fit" in computed["guards"]["noop"]


def test_only_the_newer_checkpointing_follows_a_frozen_input(computed):
    assert computed["follows"] == {"True": False, "False": True}


def test_e9_4_adams_epsilon_is_zero_in_float16(computed):
    assert computed["finite"] == {"torch.float16": False, "torch.float32": True}


def test_adalora_ends_with_the_ranks_that_were_asked_for(computed):
    left, layers, width = computed["ranks"]
    assert left == 2 * layers < layers * width
