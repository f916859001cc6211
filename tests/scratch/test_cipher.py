"""The small task: a row is a word and its cipher, the loss is that of the answer, and a model learns it."""

import torch

from ftkit.models import load
from ftkit.scratch import cipher


def test_a_row_is_a_word_a_mark_and_each_letter_in_the_cipher():
    key = cipher.cipher(3)
    assert sorted(key.tolist()) == list(range(cipher.LETTERS)) and not torch.equal(key, cipher.cipher())
    word = cipher.words(5, seed=1)
    ids = cipher.rows(word, key)
    assert ids.shape == (5, 2 * cipher.WORD + 1) and (ids[:, cipher.WORD] == cipher.MARK).all()
    assert torch.equal(ids[:, cipher.WORD + 1 :], key[ids[:, : cipher.WORD]])


def test_the_loss_is_transformers_with_the_word_and_the_mark_left_out():
    model, _ = load("tiny-llama3", verbose=False)
    ids = cipher.rows(cipher.words(4, seed=1), cipher.cipher(3))
    labels = ids.clone()
    labels[:, : cipher.WORD + 1] = -100
    with torch.no_grad():
        torch.testing.assert_close(cipher.loss(model, ids), model(ids, labels=labels).loss)


def test_fitting_lowers_the_loss_and_calls_its_hooks_around_each_step():
    model, _ = load("tiny-llama3", verbose=False)
    calls = []
    losses = cipher.fit(
        model,
        model.parameters(),
        cipher.cipher(),
        steps=40,
        seed=1,
        lr=1e-2,
        before=lambda step: calls.append(("before", step)),
        after=lambda step: calls.append(("after", step)),
    )
    assert losses[-1] < losses[0] - 1 and len(losses) == 40
    assert calls[:3] == [("before", 1), ("after", 1), ("before", 2)] and calls[-1] == ("after", 40)
    assert 0 <= cipher.accuracy(model, cipher.rows(cipher.words(4, seed=2), cipher.cipher())) <= 1
