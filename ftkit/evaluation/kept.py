"""Greedy answers kept in the user's cache, so that a model answers a prompt once.

An answer is kept under the hash of all that decides it: the weights; the logits that the model gives to a probe, which
its configuration, precision, kernels and adapters' scale change; the longest answer and the stop tokens; the code that
generates, and the libraries' versions; and the prompt. Names and folders are no part of it. A kept answer may come from
another batch, so what holds for batches holds for it: in 16 bits a near tie may have fallen the other way.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ftkit.models.embedded import cache_root
from ftkit.models.families import stop_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Ids = list[int] | None
PROBE = 32
"""Tokens that the model is asked to read to be recognised."""


def complete_once(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[list[int]],
    max_new_tokens: int,
    write: Callable[[list[list[int]]], list[Ids]],
) -> tuple[list[Ids], list[bool]]:
    """What `write` gives for `prompts`, and for each whether it was in the cache; `write` is asked for the others."""
    file = cache_root() / "answers" / f"{_fingerprint(model, tokenizer, max_new_tokens)}.json"
    known: dict[str, Ids] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    keys = [hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:32] for prompt in prompts]
    kept = [key in known for key in keys]
    missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
    if missing:
        known |= zip(missing, write(list(missing.values())), strict=True)
        _replace(file, json.dumps(known))
    return [known[key] for key in keys], kept


def _fingerprint(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", max_new_tokens: int) -> str:
    import torch

    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        if isinstance(tensor, torch.Tensor):
            digest.update(_bytes(tensor))
    size = model.get_input_embeddings().num_embeddings
    probe = torch.arange(PROBE, device=model.device)[None] * 97 % size
    with torch.inference_mode():
        digest.update(_bytes(model.eval()(input_ids=probe).logits[:, -1]))
    about = [max_new_tokens, tokenizer.pad_token_id, stop_token_ids(tokenizer, model)]
    about += [version(name) for name in ("torch", "transformers", "peft")]
    digest.update(json.dumps(about).encode())
    for name in ("generate.py", "prefix.py", "kept.py"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:16]


def _bytes(tensor) -> bytes:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=file.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
    os.replace(beside, file)
