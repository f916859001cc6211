"""Packing: nothing is lost, and no row sees another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.packing import PACKABLE, best_fit, fit, join
from ftkit.errors import ConfigError
from ftkit.loss import trained_positions_only
from ftkit.models import load
from ftkit.scratch import packing as scratch
from ftkit.training.collator import Collator

LENGTHS = st.lists(st.integers(1, 40), max_size=60)
FAMILIES = ["llama3", "llama4", "smollm", "qwen3", "qwen3-moe", "deepseek-v3", "gemma3", "gemma3-vision"]


def row(ids, first_target=1):
    return {"input_ids": list(ids), "labels": [-100] * first_target + list(ids)[first_target:]}


@settings(max_examples=1000, deadline=None)
@given(LENGTHS)
def test_best_fit_is_the_one_from_first_principles(lengths):
    packs = best_fit(lengths, 40)
    assert packs == scratch.best_fit(lengths, 40)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in pack) <= 40 for pack in packs)
    # no two places could be one
    fill = sorted(sum(lengths[i] for i in pack) for pack in packs)
    assert len(fill) < 2 or fill[0] + fill[1] > 40


def test_a_row_that_is_too_long_is_refused():
    with pytest.raises(ConfigError, match="1 rows are longer than the 8 tokens"):
        best_fit([3, 9], 8)


def test_positions_restart_and_no_target_lies_across_a_border():
    packed = join([row([5, 6, 7], 0), row([8, 9], 0)])
    assert packed["position_ids"] == [0, 1, 2, 0, 1]
    assert packed["labels"] == [-100, 6, 7, -100, 9]
    batch = Collator(0)([packed, join([row([3, 4])])])
    assert "attention_mask" not in batch
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]


def draw(seed, *lengths):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(256, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_have_the_logits_that_they_have_alone(family, attention):
    model, _ = load(f"tiny-{family}", attn_implementation=attention, verbose=False)
    assert model.config.model_type in PACKABLE
    rows = draw(0, 70, 90, 30)
    batch = Collator(0)([join([row(ids) for ids in rows]), join([row(ids) for ids in rows[:2]])])
    batch.pop("labels")
    with torch.no_grad():
        packed = model(**batch, use_cache=False).logits
        for i, start, ids in ((0, 0, rows[0]), (0, 70, rows[1]), (0, 160, rows[2]), (1, 70, rows[1])):
            alone = model(torch.tensor([ids]), use_cache=False).logits[0]
            torch.testing.assert_close(packed[i, start : start + len(ids)], alone, atol=1e-5, rtol=0)


def test_what_another_row_holds_changes_no_bit():
    model, _ = load("tiny-llama3", verbose=False)
    first, second = draw(1, 20, 30)
    other = [(token + 1) % 256 for token in first]
    losses = []
    with trained_positions_only(model), torch.no_grad():
        for before in (first, other):
            batch = Collator(0)([join([{"input_ids": before, "labels": [-100] * 20}, row(second)])])
            losses.append(model(**batch)["loss"])
    assert torch.equal(*losses)


def test_the_mask_from_first_principles_gives_the_same_logits():
    model, _ = load("tiny-llama3", attn_implementation="eager", verbose=False)
    packed = join([row(ids) for ids in draw(2, 12, 7, 9)])
    ids, positions = torch.tensor([packed["input_ids"]]), torch.tensor([packed["position_ids"]])
    mask = scratch.block_diagonal_causal_mask(positions[0])
    additive = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)[None, None]
    with torch.no_grad():
        by_positions = model(ids, position_ids=positions, use_cache=False).logits
        by_mask = model(ids, position_ids=positions, attention_mask=additive, use_cache=False).logits
    torch.testing.assert_close(by_positions, by_mask, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def model():
    """One layer: the property is asked a thousand times."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=256, initializer_range=0.2, **sizes)).eval()


def trained_tokens(batches):
    """Each trained token with its position in its own row, over all batches, as a multiset."""
    found = []
    for batch in batches:
        positions = batch.get("position_ids", torch.arange(batch["labels"].shape[1]).expand_as(batch["labels"]))
        on = batch["labels"] != -100
        found += zip(batch["labels"][on].tolist(), positions[on].tolist(), strict=True)
    return sorted(found)


def loss_of(model, batches) -> float:
    with trained_positions_only(model), torch.no_grad():
        total = sum(model(**batch, num_items_in_batch=1)["loss"].double() for batch in batches)
    return float(total / sum((batch["labels"] != -100).sum() for batch in batches))


ROWS = st.lists(
    st.tuples(st.lists(st.integers(0, 255), min_size=2, max_size=12), st.integers(1, 11)).map(
        lambda drawn: row(drawn[0], min(drawn[1], len(drawn[0]) - 1))
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=1000, deadline=None)
@given(rows=ROWS, pad=st.integers(0, 255), size=st.integers(2, 3), data=st.data())
def test_pad_id_batch_size_packing_and_order_change_neither_what_is_trained_nor_the_loss(model, rows, pad, size, data):
    plain = [Collator(0)(rows)]
    order = data.draw(st.permutations(rows))
    batched = [Collator(pad)(order[i : i + size]) for i in range(0, len(order), size)]
    packs = best_fit([len(r["input_ids"]) for r in order], 16)
    packed = [Collator(pad)([join([order[i] for i in pack]) for pack in packs])]
    assert trained_tokens(plain) == trained_tokens(batched) == trained_tokens(packed)
    expected = loss_of(model, plain)
    assert loss_of(model, batched) == pytest.approx(expected, abs=2e-5)
    assert loss_of(model, packed) == pytest.approx(expected, abs=2e-5)


def test_for_flash_attention_packed_rows_are_one_row_with_the_same_targets_and_loss(model):
    from transformers.modeling_flash_attention_utils import _is_packed_sequence

    rows = [join([row(ids) for ids in draw(seed, *lengths)]) for seed, lengths in ((3, (7, 5)), (4, (4, 2, 3)))]
    plain, flat = Collator(0)(rows), Collator(0, one_row=True)(rows)
    assert flat["input_ids"].shape == (1, 24)
    # Transformers looks for borders in batches of one row alone; in others its FlashAttention would see across them.
    assert not _is_packed_sequence(plain["position_ids"], 2) and _is_packed_sequence(flat["position_ids"], 1)
    assert trained_tokens([plain]) == trained_tokens([flat])
    assert loss_of(model, [flat]) == pytest.approx(loss_of(model, [plain]), abs=1e-6)
    single = [row(ids) for ids in draw(5, 4, 6)]  # rows that are not packed have their mask, and stay as they are
    assert torch.equal(Collator(0, one_row=True)(single)["attention_mask"], Collator(0)(single)["attention_mask"])


@settings(max_examples=1000, deadline=None)
@given(
    ids=st.lists(st.integers(0, 9), min_size=1, max_size=20),
    start=st.integers(0, 20),
    limit=st.integers(1, 20),
    too_long=st.sampled_from(["drop", "truncate"]),
)
def test_e7_10_a_row_that_is_kept_fits_and_has_a_target(ids, start, limit, too_long):
    whole = row(ids, min(start, len(ids)))
    kept = fit(whole, limit, too_long)
    learns = any(label != -100 for label in whole["labels"][1:])
    if kept is not None:
        assert len(kept["input_ids"]) == len(kept["labels"]) <= limit
        assert any(label != -100 for label in kept["labels"][1:])
        assert kept["input_ids"] == ids[: len(kept["input_ids"])]
    else:
        assert len(ids) > limit or not learns
    if len(ids) <= limit and learns:
        assert kept == whole
