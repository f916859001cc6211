"""Answers to many prompts at once, greedily, stopping where the family's turns end."""

import sys
from typing import TYPE_CHECKING, Any

from ftkit.data.chat import encode_prompt
from ftkit.models.families import stop_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    conversations: list[list[dict[str, Any]] | dict[str, Any]],
    *,
    max_new_tokens: int = 256,
    batch_size: int = 16,
    progress: bool = True,
) -> list[str]:
    """The model's answer to each conversation, in their order.

    Args:
        conversations: messages, or rows with `messages` and, where there are any, `tools`; a last assistant message,
            the reference, is not shown to the model.
        max_new_tokens: an answer that has not stopped by then is cut there.
        batch_size: prompts at once; they are batched by length and padded on the left, so the answers do not depend on
            it but for rounding.
        progress: draw a bar on stderr.

    Returns:
        Decoded answers without special tokens.
    """
    import torch
    from tqdm.std import tqdm
    from transformers import GenerationConfig

    rows = [one if isinstance(one, dict) else {"messages": one} for one in conversations]
    prompts = [encode_prompt(tokenizer, row["messages"], row.get("tools")) for row in rows]
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=stop_token_ids(tokenizer, model),
        pad_token_id=tokenizer.pad_token_id,
    )
    answers = [""] * len(prompts)
    model.eval()
    bar = tqdm(total=len(prompts), desc="generating", unit="answer", disable=not progress, file=sys.stderr)
    with torch.inference_mode(), bar:
        for start in range(0, len(prompts), batch_size):
            chosen = by_length[start : start + batch_size]
            ids, mask = _left_padded([prompts[i] for i in chosen], tokenizer.pad_token_id)
            out = model.generate(ids.to(model.device), attention_mask=mask.to(model.device), generation_config=settings)
            texts = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for i, text in zip(chosen, texts, strict=True):
                answers[i] = text
            bar.update(len(chosen))
    return answers


def _left_padded(rows: list[list[int]], pad_token_id: int):
    """`input_ids` and `attention_mask`, (rows, longest): new tokens must follow a row's last token, not padding."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[pad_token_id] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask
