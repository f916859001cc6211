"""What a merge changes: the answers and the distributions of two models, measured on the same prompts.

Only the trained model writes its answers token by token. The others read them, all positions at once: a greedy answer
is the trained model's up to the first position where another token is the likeliest.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ftkit.data.chat import encode_prompt
from ftkit.errors import ModelError
from ftkit.evaluation.generate import complete
from ftkit.models.families import stop_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RANDOM_PROMPTS, RANDOM_TOKENS = 4, 32
"""How many rows of random ids, and how long, where there are no prompts."""


@dataclass(frozen=True)
class Change:
    """What a model does otherwise than the trained one.

    Attributes:
        max_logit, mean_logit: largest and mean absolute difference of a logit.
        kl: mean Kullback-Leibler divergence of its next-token distribution from the trained one, in nats.
        top_token: share of positions at which another token is the likeliest.
        answers: share of greedy answers that differ.
    """

    max_logit: float
    mean_logit: float
    kl: float
    top_token: float
    answers: float

    def __str__(self) -> str:
        return (
            f"logits by up to {self.max_logit:.2g} (mean {self.mean_logit:.2g}), KL {self.kl:.2g}, "
            f"{self.answers:.0%} of answers"
        )


def prompt_ids(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    conversations: list[list[dict[str, Any]]] | None,
) -> list[list[int]]:
    """The prompts of `conversations`, rendered as for training; rows of random ids where there are none."""
    if conversations:
        return [encode_prompt(tokenizer, messages) for messages in conversations]
    size = min(len(tokenizer), model.get_input_embeddings().num_embeddings)
    plain = torch.tensor(sorted(set(range(size)) - set(tokenizer.all_special_ids)))
    generator = torch.Generator().manual_seed(0)
    return plain[torch.randint(len(plain), (RANDOM_PROMPTS, RANDOM_TOKENS), generator=generator)].tolist()


def greedy(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: list[list[int]], max_new_tokens: int
) -> list[list[int]]:
    """The model's likeliest answer to each prompt, ids up to and with the stop token.

    Raises:
        ModelError: a prompt fills the model's context.
    """
    answers = complete(model, tokenizer, prompts, max_new_tokens=max_new_tokens)
    if None in answers:
        raise ModelError(
            f"prompt {answers.index(None) + 1} fills the context of the model, which leaves no room for an answer to "
            "compare; give shorter prompts."
        )
    return answers


@torch.no_grad()
def logits_along(model: "PreTrainedModel", prompts: list[list[int]], answers: list[list[int]]) -> list[torch.Tensor]:
    """The model's logits at every position of `answers`, float32: a list of (answer, vocabulary)."""
    model.eval()
    logits = []
    for prompt, answer in zip(prompts, answers, strict=True):  # one by one: padding would round otherwise
        ids = torch.tensor([prompt + answer], device=model.device)
        logits.append(model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float().cpu())
    return logits


def greedy_from(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[list[int]],
    max_new_tokens: int,
    answers: list[list[int]],
    logits: list[torch.Tensor],
) -> list[list[int]]:
    """`greedy` of a model that has read the trained model's `answers` with `logits`: only what stands behind its first
    other choice is still to be written."""
    stops, found, open_rows = stop_token_ids(tokenizer, model), [], []
    for row, (answer, seen) in enumerate(zip(answers, logits, strict=True)):
        chosen = seen.argmax(-1).tolist()
        same = next((at for at, pair in enumerate(zip(answer, chosen, strict=True)) if pair[0] != pair[1]), None)
        found.append(answer if same is None else answer[:same] + [chosen[same]])
        if same is not None and chosen[same] not in stops and len(found[row]) < max_new_tokens:
            open_rows.append(row)
    begun = [prompts[row] + found[row] for row in open_rows]
    for row, rest in zip(open_rows, complete(model, tokenizer, begun, max_new_tokens=max_new_tokens), strict=True):
        found[row] = (found[row] + (rest or []))[:max_new_tokens]  # none where the context is full
    return found


def change(trained: list[torch.Tensor], other: list[torch.Tensor]) -> Change:
    """What another model does otherwise, from both models' logits along the trained one's answers."""
    here, there = torch.cat(trained), torch.cat(other)
    difference = (there - here).abs()
    log_p, log_q = here.log_softmax(-1), there.log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    differing = sum(not torch.equal(a.argmax(-1), b.argmax(-1)) for a, b in zip(trained, other, strict=True))
    return Change(
        max_logit=difference.max().item(),
        mean_logit=difference.mean().item(),
        kl=divergence.mean().clamp(min=0).item(),
        top_token=(here.argmax(-1) != there.argmax(-1)).float().mean().item(),
        answers=differing / len(trained),
    )
