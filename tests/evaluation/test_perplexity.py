"""Perplexity against a slow reference that scores one token at a time."""

import math

import pytest
import torch

from ftkit.data import encode
from ftkit.errors import DataError, ModelError
from ftkit.evaluation.perplexity import perplexity, row_likelihoods, text_likelihoods
from ftkit.models import load

TEXTS = ["The cat sat on the mat.", "x", "", "Zwölf Boxkämpfer jagen Viktor.", "猫が好きです", "a" * 40, "ab"]
FAMILIES = ["llama3", "qwen3", "qwen3-moe", "gemma3", "gemma3-vision", "deepseek-v3", "smollm"]


def slow(model, tokenizer, text, window=None, stride=None):
    """(nats, tokens): every token after the first by a forward of its own over what stands before it."""
    ids = tokenizer(text)["input_ids"]
    nats, count, start, end = 0.0, 0, 0, min(window or len(ids), len(ids))
    for t in range(1, len(ids)):
        if t >= end:
            start, end = start + stride, min(start + stride + window, len(ids))
        with torch.no_grad():
            logits = model(torch.tensor([ids[start:t]]), use_cache=False).logits[0, -1]
        nats -= logits.double().log_softmax(-1)[ids[t]].item()
        count += 1
    return nats, count


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    model, tokenizer = load(f"tiny-{request.param}", verbose=False)
    return model, tokenizer, [slow(model, tokenizer, text) for text in TEXTS]


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_perplexity_is_that_of_a_slow_reference_for_every_batch_size(family, batch_size):
    model, tokenizer, right = family
    found = text_likelihoods(model, tokenizer, TEXTS, batch_size=batch_size, progress=False)
    assert [text.tokens for text in found] == [count for _, count in right]
    for text, (nats, _) in zip(found, right, strict=True):
        assert text.nll == pytest.approx(nats, rel=1e-6, abs=1e-6)
    loss = sum(nats for nats, _ in right) / sum(count for _, count in right)
    assert perplexity(found).perplexity == pytest.approx(math.exp(loss), rel=1e-6)


def test_e11_2_tokens_that_are_predicted_are_counted_and_nothing_else():
    model, tokenizer = load("tiny-qwen3", verbose=False)
    texts = ["ab", "The cat sat on the mat."]
    found = perplexity(text_likelihoods(model, tokenizer, texts, progress=False))
    losses = [model(**(i := tokenizer(t, return_tensors="pt")), labels=i["input_ids"]).loss.item() for t in texts]
    sizes = [len(tokenizer(t)["input_ids"]) for t in texts]
    exact = sum(loss * (n - 1) for loss, n in zip(losses, sizes, strict=True)) / (sum(sizes) - 2)
    weighted_by_n = sum(loss * n for loss, n in zip(losses, sizes, strict=True)) / sum(sizes)
    assert found.avg_loss == pytest.approx(exact, rel=1e-6) and found.total_tokens == sum(sizes) - 2
    assert abs(weighted_by_n - exact) > 1e-3  # the texts do tell the two apart


def test_e11_2_one_token_empty_and_no_texts_have_an_outcome():
    model, tokenizer = load("tiny-qwen3", verbose=False)  # no BOS
    options = {"progress": False}
    alone = perplexity(text_likelihoods(model, tokenizer, ["abc"], **options))
    among = perplexity(text_likelihoods(model, tokenizer, ["x", "abc", ""], **options))
    assert among.perplexity == pytest.approx(alone.perplexity) and (among.texts, among.left_out) == (1, 2)
    with pytest.raises(DataError, match="none of the 2 texts"):
        perplexity(text_likelihoods(model, tokenizer, ["", "x"], **options))
    with pytest.raises(DataError, match="no texts"):
        text_likelihoods(model, tokenizer, [], **options)
    llama, with_bos = load("tiny-llama3", verbose=False)
    (one,) = text_likelihoods(llama, with_bos, ["x"], **options)
    assert one.tokens == 1 and one.bytes == 1 and math.isfinite(one.nll)


@pytest.mark.parametrize(("window", "stride"), [(32, 16), (32, 31), (20, 1), (64, None)])
def test_a_long_text_is_read_in_windows_and_each_token_scored_once(window, stride):
    model, tokenizer = load("tiny-smollm", verbose=False)
    text = "the quick brown fox jumps over the lazy dog, " * 3
    (found,) = text_likelihoods(model, tokenizer, [text], window=window, stride=stride, progress=False)
    nats, count = slow(model, tokenizer, text, window, stride or window // 2)
    assert found.tokens == count == len(tokenizer(text)["input_ids"]) - 1
    assert found.nll == pytest.approx(nats, rel=1e-6)


def test_a_text_beyond_the_context_is_read_in_windows_by_itself():
    model, tokenizer = load("tiny-smollm", verbose=False)
    model.config.max_position_embeddings = 40
    text = "0123456789" * 10
    (found,) = text_likelihoods(model, tokenizer, [text], progress=False)
    assert found.nll == pytest.approx(slow(model, tokenizer, text, 40, 20)[0], rel=1e-6)
    with pytest.raises(DataError, match="stride"):
        text_likelihoods(model, tokenizer, [text], window=8, stride=8, progress=False)


def test_bits_per_byte_counts_the_bytes_of_the_predicted_text():
    model, tokenizer = load("tiny-qwen3", verbose=False)
    one, two = text_likelihoods(model, tokenizer, ["xäb", "猫b"], progress=False)
    assert one.bytes == 3 and one.bits_per_byte == pytest.approx(one.nll / math.log(2) / 3)
    assert two.bytes == 1  # a letter of three tokens: what is left when its first token is given is not counted


@pytest.mark.parametrize("family_name", ["llama3", "qwen3", "gemma3", "deepseek-v3.2"])
def test_e11_3_an_answer_is_scored_given_its_prompt(rows, family_name):
    model, tokenizer = load(f"tiny-{family_name}", verbose=False)
    for row, found in zip(rows[:3], row_likelihoods(model, tokenizer, rows[:3], progress=False), strict=True):
        encoded = encode(tokenizer, row["messages"])
        with torch.no_grad():
            logits = model(torch.tensor([encoded["input_ids"]]), use_cache=False).logits[0].double().log_softmax(-1)
        pairs = [(t - 1, label) for t, label in enumerate(encoded["labels"]) if label != -100]
        assert found.nll == pytest.approx(-sum(logits[t, label].item() for t, label in pairs), rel=1e-6)
        assert found.tokens == len(pairs) and found.bytes == len(row["messages"][-1]["content"].encode())


def test_no_logits_are_kept(monkeypatch):
    model, tokenizer = load("tiny-smollm", verbose=False)
    monkeypatch.setattr("ftkit.loss.CHUNK_LOGITS", 5 * model.lm_head.out_features)
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, out: seen.append(out.shape))
    text_likelihoods(model, tokenizer, ["abcdefghij" * 3, "abc"], progress=False)
    assert max(shape[0] for shape in seen) == 5 and sum(shape[0] for shape in seen) == 29 + 2


def test_soft_capped_logits_are_capped_and_scaled_ones_refused():
    model, tokenizer = load("tiny-gemma3", verbose=False)
    model.config.final_logit_softcapping = 2.0
    (found,) = text_likelihoods(model, tokenizer, ["some text"], progress=False)
    assert found.nll == pytest.approx(slow(model, tokenizer, "some text")[0], rel=1e-6)
    model.config.logit_scale = 0.5
    with pytest.raises(ModelError, match="logit_scale"):
        text_likelihoods(model, tokenizer, ["some text"], progress=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_reading_the_shared_beginning_once_changes_no_likelihood(name, monkeypatch):
    model, tokenizer = load(f"tiny-{name}", verbose=False)
    begin = "Answer in one word, and be quick about it: "
    turns = [(begin + "y" * n, "no" * m) for n, m in ((1, 3), (40, 1), (5, 9), (0, 1), (5, 2))]
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
        for asked, said in turns
    ]
    read = []

    def count(module, args, kwargs):  # a decoder behind a vision tower is given embeddings
        read.append(kwargs["input_ids"].numel() if "input_ids" in kwargs else kwargs["inputs_embeds"][..., 0].numel())

    hook = model.get_decoder().register_forward_pre_hook(count, with_kwargs=True)
    shared = [row_likelihoods(model, tokenizer, rows, batch_size=size, progress=False) for size in (1, 3, 5)]
    with_prefix, read[:] = sum(read), []
    monkeypatch.setattr("ftkit.evaluation.prefix.SHORTEST", 10**6)
    alone = [row_likelihoods(model, tokenizer, rows, batch_size=size, progress=False) for size in (1, 3, 5)]
    hook.remove()
    for found, right in zip(shared, alone, strict=True):
        assert [(f.tokens, f.bytes) for f in found] == [(r.tokens, r.bytes) for r in right]
        assert [f.nll for f in found] == pytest.approx([r.nll for r in right], rel=1e-6)
    # Tokens that were read; where a cache is of another kind (Gemma's windows) the prefix is of no use.
    assert (with_prefix < sum(read)) == (name not in ("gemma3", "gemma3-vision"))
