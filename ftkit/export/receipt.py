"""What a merge changes: the answers and the distributions of two models, measured on the same prompts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ftkit.data.chat import encode_prompt
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


@dataclass(frozen=True)
class Behaviour:
    """What a model answers, and with which logits.

    Attributes:
        answers: greedy answers, ids without the prompt.
        logits: at every position of each answer of the trained model, float32: a list of (answer, vocabulary).
    """

    answers: list[list[int]]
    logits: list[torch.Tensor]


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


@torch.no_grad()
def observe(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    along: list[list[int]] | None = None,
) -> Behaviour:
    """Greedy answers to `prompts`, and the logits along `along` (the trained model's answers; by default its own)."""
    from transformers import GenerationConfig

    model.eval()
    stops = stop_token_ids(tokenizer, model)
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id
    )
    answers = []
    for prompt in prompts:  # one by one: padding would round otherwise in one model than in another
        ids = torch.tensor([prompt], device=model.device)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        answers.append(out[0, len(prompt) :].tolist())
    logits = []
    for prompt, answer in zip(prompts, along or answers, strict=True):
        ids = torch.tensor([prompt + answer], device=model.device)
        logits.append(model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float().cpu())
    return Behaviour(answers, logits)


def change(trained: Behaviour, other: Behaviour) -> Change:
    """What `other` does otherwise; its logits must be those along the trained model's answers."""
    here, there = torch.cat(trained.logits), torch.cat(other.logits)
    difference = (there - here).abs()
    log_p, log_q = here.log_softmax(-1), there.log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    differing = sum(a != b for a, b in zip(trained.answers, other.answers, strict=True))
    return Change(
        max_logit=difference.max().item(),
        mean_logit=difference.mean().item(),
        kl=divergence.mean().clamp(min=0).item(),
        top_token=(here.argmax(-1) != there.argmax(-1)).float().mean().item(),
        answers=differing / len(trained.answers),
    )
