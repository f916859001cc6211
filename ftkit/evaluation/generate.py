"""Answers to many prompts at once, greedily by default, stopping where the family's turns end."""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from ftkit.data.chat import encode_prompt
from ftkit.errors import ConfigError
from ftkit.evaluation.kept import complete_once
from ftkit.evaluation.prefix import shared_prefix
from ftkit.models.families import stop_token_ids

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

SMALLEST = 4
"""Rows below which a batch is not worth making smaller."""


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: without special tokens.
        tokens: generated, the stop token among them.
        finish: "stopped" at a stop token; "length": cut at `max_new_tokens` or at the end of the model's context;
            "prompt_too_long": the prompt alone fills the context, so nothing was generated.
        kept: read from the cache, where this model had put it before.
    """

    text: str
    tokens: int
    finish: Literal["stopped", "length", "prompt_too_long"]
    kept: bool = False


def generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    conversations: list[list[dict[str, Any]] | dict[str, Any]],
    **options,
) -> list[str]:
    """The texts of `generations`."""
    return [answer.text for answer in generations(model, tokenizer, conversations, **options)]


def generations(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    conversations: list[list[dict[str, Any]] | dict[str, Any]],
    *,
    max_new_tokens: int = 256,
    batch_size: int = 16,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 42,
    generation_config: "GenerationConfig | None" = None,
    keep: bool = False,
    progress: bool = True,
) -> list[Generation]:
    """The model's answer to each conversation, in their order.

    Args:
        conversations: messages, or rows with `messages` and, where there are any, `tools`; a last assistant message,
            the reference, is not shown to the model.
        max_new_tokens: an answer that has not stopped by then is cut there, or where the model's context ends.
        batch_size: prompts at once; they are batched by length and padded on the left, what all prompts begin with is
            read once, and rows that have ended leave the batch. Greedy answers do not depend on any of that but for
            rounding.
        do_sample: draw from the model's distribution, sharpened by `temperature` and cut to the most likely tokens that
            make up `top_p`, instead of taking the likeliest token. torch's global generator is left as it was.
        seed: of the drawing; the same seed and batch size give the same answers.
        generation_config: Transformers' settings instead of the four above, what it leaves open being taken from the
            model's own; without it nothing is. Stop and pad tokens are the family's in any case.
        keep: take greedy answers that this very model has given before, to the same prompts and settings, from the
            user's cache (`ftkit.evaluation.kept`), and keep the others there.
        progress: draw a bar on stderr.

    Raises:
        ConfigError: drawn answers, or a generation_config's, are to be kept.
    """
    if keep and (do_sample or generation_config is not None):
        raise ConfigError("only greedy answers can be kept; leave do_sample and generation_config, or keep, out.")
    rows = [one if isinstance(one, dict) else {"messages": one} for one in conversations]
    prompts = [encode_prompt(tokenizer, row["messages"], row.get("tools")) for row in rows]
    options = {"batch_size": batch_size, "do_sample": do_sample, "temperature": temperature, "top_p": top_p}
    options |= {"seed": seed, "generation_config": generation_config, "progress": progress}
    write = partial(complete, model, tokenizer, max_new_tokens=max_new_tokens, **options)
    kept = [False] * len(prompts)
    if keep:
        answers, kept = complete_once(model, tokenizer, prompts, max_new_tokens, write)
    else:
        answers = write(prompts)
    stops = stop_token_ids(tokenizer, model)
    return [_generation(tokenizer, ids, stops, old) for ids, old in zip(answers, kept, strict=True)]


def complete(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 16,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 42,
    generation_config: "GenerationConfig | None" = None,
    progress: bool = False,
) -> list[list[int] | None]:
    """The ids that the model writes behind each of `prompts`, up to and with a stop token; None where the prompt alone
    fills the context. Options as in `generations`."""
    import torch
    from tqdm.std import tqdm
    from transformers import GenerationConfig

    sampling = {"temperature": temperature, "top_p": top_p, "top_k": 0} if do_sample else {}
    settings = copy.copy(generation_config) or GenerationConfig(do_sample=do_sample, **sampling)
    if generation_config is not None and generation_config.max_new_tokens:
        max_new_tokens = generation_config.max_new_tokens
    settings.eos_token_id, settings.pad_token_id = stop_token_ids(tokenizer, model), tokenizer.pad_token_id
    context = context_length(model)
    room = [min(max_new_tokens, context - len(prompt)) for prompt in prompts]
    answers: list[list[int] | None] = [None] * len(prompts)
    model.eval()
    bar = tqdm(total=len(prompts), desc="generating", unit="answer", disable=not progress, file=sys.stderr)
    devices = [model.device] if model.device.type == "cuda" else []
    usual = nullcontext() if generation_config is not None else without_own_settings(model)
    with torch.inference_mode(), torch.random.fork_rng(devices=devices), usual, bar:
        torch.manual_seed(seed)
        prefix = shared_prefix(model, [prompt for prompt, limit in zip(prompts, room, strict=True) if limit > 0])
        for limit, batch in _batches(prompts, room, batch_size):
            if limit > 0:
                ids, mask = _left_padded([prompts[i] for i in batch], tokenizer.pad_token_id)
                ids, mask = ids.to(model.device), mask.to(model.device)
                cache = prefix.cache(mask) if prefix else None
                # A configuration of the user's may count from the prompt's end or search in beams: in one go.
                write = _write if generation_config is None else _write_in_one_go
                for i, new in zip(batch, write(model, settings, limit, ids, mask, cache), strict=True):
                    answers[i] = new
            bar.update(len(batch))
    return answers


@contextmanager
def without_own_settings(model: "PreTrainedModel") -> Iterator[None]:
    """Within the block `model.generate` takes from the model's own generation configuration nothing but its special
    tokens: a repetition penalty there, which Transformers adds to whatever is asked for, is neither the likeliest token
    nor the model's distribution."""
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = base.generation_config
    tokens = {name: getattr(own, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    base.generation_config = GenerationConfig(**tokens)
    try:
        yield
    finally:
        base.generation_config = own


def context_length(model: "PreTrainedModel") -> int:
    """Most tokens that the model was made for; `sys.maxsize` where its configuration names no limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def _write(model: "PreTrainedModel", settings: "GenerationConfig", limit: int, ids, mask, cache) -> list[list[int]]:
    """At most `limit` new tokens behind each row of `ids`, up to and with the first stop token.

    Where half of the rows have ended, the others go on without them: a long answer does not keep a batch busy.
    """
    import torch
    from transformers import StoppingCriteriaList

    start, stops = ids.shape[1], torch.tensor(settings.eos_token_id, device=ids.device)

    def half_ended(sequences, scores):
        ended = torch.isin(sequences[:, start:], stops).any(dim=1)
        return torch.full_like(ended, len(ended) >= SMALLEST and 2 * int(ended.sum()) >= len(ended))

    settings.return_dict_in_generate = True  # the cache too, for those that go on
    found: list[list[int]] = [[]] * len(ids)
    rows = list(range(len(ids)))
    while rows:
        settings.max_new_tokens = start + limit - ids.shape[1]
        out = model.generate(
            ids,
            attention_mask=mask,
            generation_config=settings,
            past_key_values=cache,
            stopping_criteria=StoppingCriteriaList([half_ended]),
        )
        ids, cache = out.sequences, out.past_key_values
        for row, new in zip(rows, ids[:, start:].tolist(), strict=True):
            found[row] = _ended(new, settings.eos_token_id)
        going = [at for at, row in enumerate(rows) if found[row][-1] not in settings.eos_token_id]
        if ids.shape[1] == start + limit or not going:
            break
        rows = [rows[at] for at in going]
        keep = torch.tensor(going, device=ids.device)
        ids, mask = ids[keep], torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)[keep]
        if cache is not None:
            cache.batch_select_indices(keep)
    return found


def _write_in_one_go(model: "PreTrainedModel", settings: "GenerationConfig", limit: int, ids, mask, cache):
    settings.max_new_tokens = limit
    known = {"past_key_values": cache} if cache else {}
    out = model.generate(ids, attention_mask=mask, generation_config=settings, **known)
    return [_ended(new, settings.eos_token_id) for new in out[:, ids.shape[1] :].tolist()]


def _ended(new: list[int], stops: list[int]) -> list[int]:
    # Behind a row's stop token stands padding, which may be the stop token's own id.
    return new[: next((at for at, token in enumerate(new, start=1) if token in stops), None)]


def _batches(prompts: list[list[int]], room: list[int], batch_size: int):
    """(tokens that may be generated, indices), by length: one batch's prompts all have the same room, so that a long
    one does not cut another's answer."""
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for limit, group in groupby(by_length, key=lambda i: room[i]):
        group = list(group)
        for start in range(0, len(group), batch_size):
            yield limit, group[start : start + batch_size]


def _generation(
    tokenizer: "PreTrainedTokenizerBase", ids: list[int] | None, stops: list[int], kept: bool
) -> Generation:
    if ids is None:
        return Generation("", 0, "prompt_too_long", kept)
    finish = "stopped" if ids[-1] in stops else "length"
    return Generation(tokenizer.decode(ids, skip_special_tokens=True), len(ids), finish, kept)


def _left_padded(rows: list[list[int]], pad_token_id: int):
    """`input_ids` and `attention_mask`, (rows, longest): new tokens must follow a row's last token, not padding."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[pad_token_id] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask
