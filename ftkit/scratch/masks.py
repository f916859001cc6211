"""What is trained of a conversation, from first principles: render twice, compare, and label by position."""

from collections.abc import Collection

IGNORE = -100


def last_answer(tokenizer, messages: list[dict], stops: Collection[int]) -> dict:
    """Ids and labels of a conversation that ends with the answer to be trained.

    Args:
        tokenizer: with a chat template.
        stops: ids that end a turn; what stands behind the last one is cut off.

    Raises:
        ValueError: the prompt is not how the conversation begins.
    """
    prompt = rendered(tokenizer, messages[:-1], add_generation_prompt=True)
    ids = rendered(tokenizer, messages, add_generation_prompt=False)
    if ids[: len(prompt)] != prompt:
        raise ValueError("the prompt is not how the conversation begins")
    while ids[-1] not in stops:
        ids.pop()
    labels = [IGNORE] * len(prompt) + ids[len(prompt) :]
    return {"input_ids": ids, "labels": labels}


def every_answer(tokenizer, messages: list[dict], stops: Collection[int]) -> list[dict]:
    """One row for each answer of the assistant, which ends with it."""
    ends = [i + 1 for i, message in enumerate(messages) if message["role"] == "assistant"]
    return [last_answer(tokenizer, messages[:end], stops) for end in ends]


def rendered(tokenizer, messages: list[dict], **options) -> list[int]:
    """Ids of a conversation in the model's chat format, without thinking."""
    options |= {"tokenize": False, "enable_thinking": False}
    text = tokenizer.apply_chat_template(messages, **options)
    return tokenizer(text, add_special_tokens=False)["input_ids"]
