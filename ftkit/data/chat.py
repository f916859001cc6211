"""A conversation becomes token ids in one place, for training, evaluation and generation alike.

The tokenizer's own chat template renders; the rendered text is encoded once, without further special tokens, because
the template has already written the BOS. What is trained is decided by position: the last assistant's answer and the
token that ends its turn, nothing before and nothing after.
"""

from typing import TYPE_CHECKING, Any

from ftkit.errors import DataError
from ftkit.models.families import stop_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100  # what torch's cross-entropy leaves out


def render_prompt(tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]]) -> str:
    """The text the model continues with its answer. A final assistant message, the reference, is left out."""
    if messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return _render(tokenizer, messages, add_generation_prompt=True)


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]]) -> list[int]:
    """Ids of `render_prompt`: what `generate` starts from, and the untrained head of `encode`'s ids."""
    return _ids(tokenizer, render_prompt(tokenizer, messages))


def encode(tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Ids and labels of a conversation whose last message is the assistant's.

    Returns:
        `input_ids` and `labels`, equally long: `labels` repeats the ids of the last answer and of the token that ends
        it, and is -100 elsewhere. Ids after that token (ChatML's newline) are dropped, since nothing reads them.

    Raises:
        DataError: the prompt is not an exact prefix of the conversation, in text or in ids, or the template does not
            end the answer with a token that generation stops at. Either would train something else than is generated.
    """
    prompt, whole = render_prompt(tokenizer, messages), _render(tokenizer, messages, add_generation_prompt=False)
    prompt_ids, input_ids = _ids(tokenizer, prompt), _ids(tokenizer, whole)
    if not whole.startswith(prompt) or input_ids[: len(prompt_ids)] != prompt_ids:
        shared = next(
            (i for i, (a, b) in enumerate(zip(prompt_ids, input_ids, strict=False)) if a != b), len(input_ids)
        )
        raise DataError(
            f"the rendered prompt is not a prefix of the rendered conversation: they part at token {shared}, "
            f"{tokenizer.decode(prompt_ids[shared : shared + 8])!r} against "
            f"{tokenizer.decode(input_ids[shared : shared + 8])!r}; this chat template cannot be trained on as it is."
        )
    stops = set(stop_token_ids(tokenizer))
    end = next((i for i in range(len(input_ids) - 1, len(prompt_ids) - 1, -1) if input_ids[i] in stops), None)
    if end is None:
        raise DataError(
            "the chat template ends the assistant's turn with none of the tokens that generation stops at ("
            f"{', '.join(tokenizer.convert_ids_to_tokens(sorted(stops)))}): the model would never learn to stop."
        )
    answer = input_ids[len(prompt_ids) : end + 1]
    return {"input_ids": prompt_ids + answer, "labels": [IGNORE_INDEX] * len(prompt_ids) + answer}


def _render(tokenizer, messages, add_generation_prompt: bool) -> str:
    if tokenizer.chat_template is None:
        raise DataError(
            f"{tokenizer.name_or_path or 'the tokenizer'} has no chat template; set tokenizer.chat_template."
        )
    # Thinking families answer without thinking: their empty think block then belongs to the prompt.
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, enable_thinking=False
    )


def _ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
