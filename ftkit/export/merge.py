r"""An adapter and its base become one ordinary model, checked before it is called done.

The merged weight is :math:`W + \frac{\alpha}{r} B A`, added in float32 and rounded once to the saved precision.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ftkit.errors import ConfigError, ModelError
from ftkit.models.loading import load

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PROBE_TOKENS = 64
"""Length of the row on which the logits of adapter and merged model are compared."""

FLOAT32_TOLERANCE = 1e-3
"""Largest accepted change of a logit, relative to their spread, for a merge saved in float32: rounding gives about
1e-6, a wrong merge (tied weights, a missed layer) gives 0.1 and more."""


def merge_and_save(run: str | Path, output_dir: str | Path, dtype: str = "float32") -> float:
    """Write base plus adapter as a model folder that Transformers loads without PEFT.

    Args:
        run: folder of an adapter, as `LoRAFineTuner.train` or PEFT saves it.
        output_dir: the merged model; must not exist or be empty.
        dtype: precision of the saved weights. Default float32, which keeps the whole update; bfloat16 halves the file
            and rounds away the part of it that is small beside W.

    Returns:
        The largest difference between a logit of the reloaded folder and of base plus adapter, in float32.

    Raises:
        ModelError: `run` holds no adapter, or the reloaded logits differ; then nothing is left behind.
        ConfigError: `output_dir` is not empty.
    """
    import torch

    run, output = Path(run), Path(output_dir)
    if not (run / "adapter_config.json").is_file():
        raise ModelError(f"{run} holds no adapter (adapter_config.json); give the folder that training wrote.")
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"{output} is not empty; name another folder for the merged model.")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"dtype must be float32, bfloat16 or float16, not {dtype!r}.")
    model, tokenizer = load(str(run), dtype="float32", attn_implementation="sdpa", verbose=False)
    probe = _probe(model)
    with torch.no_grad():
        before = model(probe).logits
        merged = model.merge_and_unload(safe_merge=True)
        merged = merged.to(getattr(torch, dtype))
        output.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        try:
            merged.save_pretrained(str(beside))
            tokenizer.save_pretrained(str(beside))
            reloaded, _ = load(str(beside), dtype="float32", attn_implementation="sdpa", verbose=False)
            difference = _check(before, reloaded(probe).logits, dtype)
            if output.exists():
                output.rmdir()
            beside.chmod(0o755)
            os.replace(beside, output)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return difference


def _probe(model: "PreTrainedModel") -> "torch.Tensor":
    """One row of random ids, (1, PROBE_TOKENS): every layer is exercised without any text."""
    import torch

    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.get_text_config().vocab_size
    return torch.randint(vocabulary, (1, PROBE_TOKENS), generator=generator).to(model.device)


def _check(before: "torch.Tensor", after: "torch.Tensor", dtype: str) -> float:
    difference, spread = (after - before).abs().max().item(), before.std().item()
    if dtype == "float32" and not difference <= FLOAT32_TOLERANCE * spread:
        raise ModelError(
            f"the merged model's logits differ from the adapter's by up to {difference:.2g} (their spread is "
            f"{spread:.2g}), so the merge is wrong and was not kept; use the adapter as it is."
        )
    return difference
