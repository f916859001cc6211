"""A conversation becomes token ids in one place, for training, evaluation and generation alike.

The tokenizer's own chat template renders; the rendered text is encoded once, without further special tokens, because
the template has already written the BOS. What is trained is decided by position: an assistant's answer and the token
that ends its turn, nothing before and nothing after.

A template may write an earlier turn differently once the conversation goes on (Qwen 3 takes the think block away). Such
a turn is trained as a row of its own, which ends with it: there it stands as generation will write it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ftkit.data.pieces import Encoder
from ftkit.errors import ConfigError, DataError
from ftkit.models.families import stop_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100  # what torch's cross-entropy leaves out
TRAIN_ON = ("last", "all", "full")
ON_MISMATCH = ("raise", "common_prefix")


@dataclass(frozen=True)
class Encoded:
    """Token rows of one conversation.

    Attributes:
        rows: each with `input_ids` and `labels`, equally long; labels are -100 where nothing is trained.
        ends: for each row how many messages of the conversation it holds (0: the row is plain text).
        mismatches: trained turns whose generation prompt is not an exact prefix of the training ids; their mask begins
            at the first token that differs. Always 0 under `on_mismatch="raise"`.
    """

    rows: list[dict[str, list[int]]]
    ends: list[int]
    mismatches: int = 0


def render_prompt(tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]], tools: Any = None) -> str:
    """The text the model continues with its answer. A final assistant message, the reference, is left out."""
    if messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return _render(tokenizer, [messages], tools, add_generation_prompt=True)[0]


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]], tools: Any = None) -> list[int]:
    """Ids of `render_prompt`: what `generate` starts from, and the untrained head of `encode`'s ids."""
    return Encoder(tokenizer)([render_prompt(tokenizer, messages, tools)])[0]


def encode(
    tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]], tools: Any = None
) -> dict[str, list[int]]:
    """Ids and labels of a conversation whose last message is the assistant's, that answer being trained.

    Returns:
        `input_ids` and `labels`, equally long: `labels` repeats the ids of the last answer and of the token that ends
        it, and is -100 elsewhere. Ids after that token (ChatML's newline) are dropped, since nothing reads them.

    Raises:
        DataError: the prompt is not an exact prefix of the conversation, in text or in ids, or the template does not
            end the answer with a token that generation stops at. Either would train something else than is generated.
    """
    return encode_rows(tokenizer, [{"messages": messages, "tools": tools}])[0].rows[0]


def encode_rows(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[dict[str, Any]],
    *,
    train_on: Literal["last", "all", "full"] = "last",
    on_mismatch: Literal["raise", "common_prefix"] = "raise",
    encoder: Encoder | None = None,
) -> list[Encoded]:
    """Ids and labels of rows in the messages format, or of plain `text`; many at once is faster than one by one.

    Args:
        tokenizer: with a chat template.
        rows: `messages` (with `tools` where there are any), the last message being the assistant's, or `text`.
        train_on: "last" trains the last answer; "all" every answer of the assistant, each with its stop token; "full"
            every token up to the last stop token, prompts included. Plain text is trained in full in any case, and
            gets the tokenizer's BOS, where it has one, and EOS.
        on_mismatch: where a turn's prompt is no exact prefix of the training ids (a template that rewrites it, or a
            tokenizer that merges across the seam), "raise" refuses the row; "common_prefix" trains from the first
            token that differs and counts the case.
        encoder: of this tokenizer; who asks often keeps one, which remembers words. None makes one.

    Raises:
        ConfigError: an unknown `train_on` or `on_mismatch`.
        DataError: as in `encode`.
    """
    for name, value, known in (("train_on", train_on, TRAIN_ON), ("on_mismatch", on_mismatch, ON_MISMATCH)):
        if value not in known:
            raise ConfigError(f"{name} must be one of {', '.join(known)}, not {value!r}.")
    encoder = encoder or Encoder(tokenizer)
    stops = set(stop_token_ids(tokenizer))
    plans, pairs = [], []
    for row in rows:
        ends = None
        if "text" not in row:
            ends = [i + 1 for i, message in enumerate(row["messages"]) if message["role"] == "assistant"]
            ends = ends if train_on == "all" else ends[-1:]
            pairs += [(row["messages"][: end - 1], row["messages"][:end], row.get("tools")) for end in ends]
        plans.append(ends)
    rendered = iter(_rendered(tokenizer, pairs))
    texts: list[str] = []
    for row, ends in zip(rows, plans, strict=True):
        if ends is None:
            texts.append(row["text"])
            continue
        for _ in ends:
            prompt, whole = next(rendered)
            if on_mismatch == "raise" and not whole.startswith(prompt):
                _refuse(tokenizer, *encoder([prompt, whole]))
            texts += [prompt, whole]
    ids = iter(encoder(texts))
    encoded = []
    for ends in plans:
        if ends is None:
            encoded.append(Encoded([_whole_text(tokenizer, next(ids))], [0]))
            continue
        turns = [_turn(tokenizer, next(ids), next(ids), stops, on_mismatch) for _ in ends]
        made, at = _together(turns, full=train_on == "full")
        encoded.append(Encoded(made, [ends[i] for i in at], sum(mismatch for *_, mismatch in turns)))
    return encoded


def _turn(tokenizer, prompt: list[int], whole: list[int], stops: set[int], on_mismatch: str):
    """(ids up to the turn's stop token, where its answer begins, whether its prompt is no prefix)."""
    start = len(prompt)
    mismatch = whole[:start] != prompt
    if mismatch:
        if on_mismatch == "raise":
            _refuse(tokenizer, prompt, whole)
        start = _parting(prompt, whole)
    end = next((i for i in range(len(whole) - 1, start - 1, -1) if whole[i] in stops), None)
    if end is None:
        raise DataError(
            "the chat template ends the assistant's turn with none of the tokens that generation stops at ("
            f"{', '.join(tokenizer.convert_ids_to_tokens(sorted(stops)))}): the model would never learn to stop."
        )
    return whole[: end + 1], start, mismatch


def _together(turns, full: bool) -> tuple[list[dict[str, list[int]]], list[int]]:
    """As few rows as hold every turn as it was rendered, and the turn that each row ends with, in order."""
    rows, at, left = [], [], list(range(len(turns)))
    while left:
        last = left[-1]
        ids = turns[last][0]
        held = [i for i in left if ids[: len(turns[i][0])] == turns[i][0]]
        labels = ids[:] if full else [IGNORE_INDEX] * len(ids)
        for i in held:
            labels[turns[i][1] : len(turns[i][0])] = turns[i][0][turns[i][1] :]
        rows.insert(0, {"input_ids": ids, "labels": labels})
        at.insert(0, last)
        left = [i for i in left if i not in held]
    return rows, at


def _whole_text(tokenizer, ids: list[int]) -> dict[str, list[int]]:
    # What the tokenizer itself puts in front of a text: some have a BOS token and do not use it.
    first = tokenizer("")["input_ids"][:1]
    bos = first if first == [tokenizer.bos_token_id] else []
    ids = [*bos, *ids, tokenizer.eos_token_id]
    return {"input_ids": ids, "labels": [IGNORE_INDEX] * len(bos) + ids[len(bos) :]}


def _refuse(tokenizer, prompt_ids: list[int], input_ids: list[int]) -> None:
    shared = _parting(prompt_ids, input_ids)
    raise DataError(
        f"the rendered prompt is not a prefix of the rendered conversation: they part at token {shared}, "
        f"{tokenizer.decode(prompt_ids[shared : shared + 8])!r} against "
        f"{tokenizer.decode(input_ids[shared : shared + 8])!r}; this chat template cannot be trained on as it is."
    )


def _parting(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _rendered(tokenizer, pairs: list[tuple[list, list, Any]]) -> list[tuple[str, str]]:
    """(prompt, whole) of each (messages before an answer, messages through it, tools)."""
    made: list[tuple[str, str]] = [("", "")] * len(pairs)
    plain = [i for i, (*_, tools) in enumerate(pairs) if tools is None]
    for some in [plain, *([i] for i, (*_, tools) in enumerate(pairs) if tools is not None)]:
        if some:
            tools = pairs[some[0]][2]
            prompts = _render(tokenizer, [pairs[i][0] for i in some], tools, add_generation_prompt=True)
            wholes = _render(tokenizer, [pairs[i][1] for i in some], tools, add_generation_prompt=False)
            for i, *both in zip(some, prompts, wholes, strict=True):
                made[i] = tuple(both)
    return made


def _render(tokenizer, conversations: list[list], tools, add_generation_prompt: bool) -> list[str]:
    """The texts of conversations with the same tools: the template's own overhead is paid once for all."""
    if tokenizer.chat_template is None:
        raise DataError(
            f"{tokenizer.name_or_path or 'the tokenizer'} has no chat template; set tokenizer.chat_template."
        )
    if not all(conversations):
        raise DataError("the conversation begins with the assistant's answer: there is nothing that it answers.")
    from jinja2 import TemplateError

    try:
        # Thinking families answer without thinking: their empty think block then belongs to the prompt.
        return tokenizer.apply_chat_template(
            conversations,
            tools=tools,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=False,
        )
    except (TemplateError, TypeError, ValueError) as error:  # the last two come from its filters and from the tools
        raise DataError(f"the chat template refuses the conversation: {error}") from None
