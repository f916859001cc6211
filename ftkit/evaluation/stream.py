"""One answer, token by token as it is generated: what a terminal shows."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ftkit.data.chat import encode_prompt
from ftkit.errors import DataError
from ftkit.evaluation.generate import without_own_settings
from ftkit.models.families import stop_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def stream(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    messages: list[dict[str, Any]],
    write: Callable[[str], object],
    *,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> str:
    """The model's answer to `messages`, as `ftkit.evaluation.generate` gives it, each piece written when it is there.

    Args:
        write: called with each piece of text; pieces never split a character.
        max_new_tokens: an answer that has not stopped by then is cut there.
        temperature: 0 takes the likeliest token; above, tokens are drawn from torch's global generator, which the
            caller seeds.
        top_p: draw from the likeliest tokens that together have this probability.

    Returns:
        The whole answer without special tokens.

    Raises:
        DataError: the conversation and its answer do not fit into the model's positions.
    """
    import torch
    from transformers import GenerationConfig, TextStreamer

    class Streamer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            pieces.append(text)
            write(text)

    ids, pieces = encode_prompt(tokenizer, messages), []
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and len(ids) + max_new_tokens > positions:
        raise DataError(
            f"the conversation has {len(ids):,} tokens, which with max_new_tokens={max_new_tokens:,} is more than the "
            f"{positions:,} that the model takes; begin a new one, or lower max_new_tokens."
        )
    drawn = {"do_sample": False}
    if temperature:
        drawn = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=stop_token_ids(tokenizer, model),
        pad_token_id=tokenizer.pad_token_id,
        **drawn,
    )
    prompt = torch.tensor([ids], device=model.device)
    with torch.inference_mode(), without_own_settings(model):
        model.eval().generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=settings,
            streamer=Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
        )
    return "".join(pieces)
