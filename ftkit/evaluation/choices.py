"""Multiple choice: the answer that the model finds likeliest after the question."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftkit.data.chat import encode_prompt, render_prompt
from ftkit.evaluation.perplexity import IGNORE_INDEX, likelihoods

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def choose(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[str],
    choices: Sequence[Sequence[str]],
    **options,
) -> list[int]:
    """For each question the index of the choice with the largest log-likelihood, as `acc` of lm-evaluation-harness.

    The question is the user's turn and the choice begins the assistant's; the end of the turn is not scored. A sum
    favours short choices; with choices of very different lengths compare likelihoods per byte instead.

    Args:
        options: `batch_size` and `progress` of `likelihoods`.
    """
    sequences = []
    for question, offered in zip(questions, choices, strict=True):
        messages = [{"role": "user", "content": question}]
        start = len(encode_prompt(tokenizer, messages))
        for choice in offered:
            ids = tokenizer(render_prompt(tokenizer, messages) + choice, add_special_tokens=False)["input_ids"]
            sequences.append((ids, [IGNORE_INDEX] * start + ids[start:]))
    sizes = [len(choice.encode()) for offered in choices for choice in offered]
    found = iter(likelihoods(model, tokenizer, sequences, sizes, **options))
    best = []
    for offered in choices:
        losses = [next(found).nll for _ in offered]
        best.append(losses.index(min(losses)))
    return best
