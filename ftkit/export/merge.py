r"""An adapter and its base become one ordinary model, checked before it is called done, with a receipt.

The merged weight is :math:`W + \frac{\alpha}{r} B A`, added in float32 and rounded once to the saved precision. Which W
is the question under QLoRA. The adapter was trained beside the weights that 4 bits stand for. On those the merge is
exact; on the original ones it is another function, and quantised once more it is a third. All are measured.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ftkit.errors import ConfigError, ModelError
from ftkit.export.card import write_card
from ftkit.export.receipt import Change, change, greedy, greedy_from, logits_along, prompt_ids
from ftkit.folders import open_to_others, refuse_to_overwrite
from ftkit.models import base_record
from ftkit.models.loading import load
from ftkit.models.quantized import Quantization, guard, loading_config

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RECEIPT_FILE = "merge_receipt.json"
TARGETS = ("dequantized", "original", "requantized")
DTYPES = ("float32", "bfloat16", "float16")
PROMPTS, NEW_TOKENS = 8, 48
"""Prompts that are measured on, and the longest answer to one, in tokens."""

FLOAT32_TOLERANCE = 1e-3
"""Largest accepted difference of a logit, relative to their spread, where there should be none: rounding gives about
1e-6, a wrong merge (tied weights, a missed layer) gives 0.1 and more."""

Look = Callable[["PreTrainedModel"], list[torch.Tensor]]
"""A model to its logits along the trained model's answers."""


@dataclass(frozen=True)
class Receipt:
    """What was merged onto what, and how the result differs from the model that was trained.

    Attributes:
        run, output_dir: the adapter's folder and the merged model's.
        onto: the weights it was merged onto: one of `TARGETS`.
        dtype: precision of the saved weights; 4-bit for "requantized".
        base: name of the base model.
        quantization: how the base was held in training; None where it was not in 4 bits.
        prompts: how many were measured on; random ids where the run's own data could not be read.
        changes: target to what a merge onto it changes, against base plus adapter in float32. That of `onto` is of the
            reloaded folder, its rounding to `dtype` included.
        reload_difference: largest difference between a logit of the reloaded folder and of the model that was saved.
        trained_answers, merged_answers: greedy answers before and after, as text.
        versions: of the libraries.
    """

    run: str
    output_dir: str
    onto: str
    dtype: str
    base: str
    quantization: dict[str, Any] | None
    prompts: int
    changes: dict[str, Change]
    reload_difference: float
    trained_answers: list[str]
    merged_answers: list[str]
    versions: dict[str, str]

    def __str__(self) -> str:
        lines = [
            f"merged onto the {self.onto} base, saved in {self.dtype} in {self.output_dir}, and reloaded",
            f"what each merge changes against base plus adapter, on {self.prompts} prompts:",
        ]
        for target, found in self.changes.items():
            lines.append(f"  {'*' if target == self.onto else ' '} {target:12} {found}")
        return "\n".join(lines)


def merge_and_save(
    run: str | Path, output_dir: str | Path, dtype: str = "float32", *, trust_remote_code: bool = False
) -> float:
    """`merge` onto the weights that the adapter was trained beside.

    Returns:
        The largest difference between a logit of the reloaded folder and of base plus adapter, in float32.
    """
    receipt = merge(run, output_dir, dtype=dtype, compare=False, trust_remote_code=trust_remote_code)
    return receipt.changes[receipt.onto].max_logit


def merge(
    run: str | Path,
    output_dir: str | Path,
    *,
    onto: str | None = None,
    dtype: str = "float32",
    prompts: list[list[dict[str, Any]]] | None = None,
    max_new_tokens: int = NEW_TOKENS,
    compare: bool = True,
    trust_remote_code: bool = False,
) -> Receipt:
    """Write base plus adapter as a model folder that Transformers loads without PEFT, with its receipt.

    Takes memory for the model in float32, once at a time.

    Args:
        run: folder of an adapter, as a trainer or PEFT saves it.
        output_dir: the merged model; must not exist or be empty.
        onto: "dequantized", the weights that the 4 bits of training stand for; "original", the base as it was before
            it was quantised; "requantized", the first, quantised again as Transformers would. Default: what is exact,
            dequantized for a run on a quantised base and original for every other, which has no other target.
        dtype: precision of the saved weights. Default float32, which keeps the whole update; bfloat16 and float16 halve
            the file and round away the part of it that is small beside W.
        prompts: conversations whose answers are compared; a last assistant message is not shown. Default: rows of
            random tokens.
        max_new_tokens: longest answer that is compared.
        compare: measure the other targets too; each loads the base once more.
        trust_remote_code: run Python code that the base's hub repository brings along. Off: it runs with your rights.

    Raises:
        ModelError: `run` holds no adapter, its base is not the one it was trained on, or the merged or the reloaded
            model computes something else than it should; then nothing is left behind.
        ConfigError: `output_dir` is not empty or cannot be written, or `onto` does not fit the run.
    """
    run, output = Path(run), Path(output_dir)
    if not (run / "adapter_config.json").is_file():
        raise ModelError(f"{run} holds no adapter (adapter_config.json); give the folder that training wrote.")
    refuse_to_overwrite(output)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, not {dtype!r}.")
    record = base_record.read(run)
    quantization = record.quantization if record else None
    onto = _target(onto, run, quantization, dtype)
    targets = [onto] if quantization is None or not compare else list(TARGETS)

    exactly = "dequantized" if quantization else "original"
    model, tokenizer = _load(run, exactly, trust_remote_code)
    questions = prompt_ids(model, tokenizer, prompts)
    answers = greedy(model, tokenizer, questions, max_new_tokens)
    look = partial(logits_along, prompts=questions, answers=answers)
    trained = look(model)
    base = model.active_peft_config.base_model_name_or_path
    with _work_folder(output.resolve()) as work:
        found: dict[str, list[torch.Tensor]] = {}
        chosen = work / onto
        exact = chosen if onto == exactly and dtype == "float32" else work / "exact"
        model, found[exactly] = _merge(model, trained, look)
        model.save_pretrained(str(exact))
        del model
        if onto == exactly and exact != chosen:
            _rounded(exact, dtype, trust_remote_code).save_pretrained(str(chosen))
        for target in targets:
            if target != exactly:
                saved = chosen if target == onto else None
                found[target] = _make(target, run, exact, saved, record, dtype, look, trust_remote_code)
        tokenizer.save_pretrained(str(chosen))
        compute = record.dtype if onto == "requantized" else "float32"
        usual = {"attn_implementation": "sdpa", "verbose": False, "trust_remote_code": trust_remote_code}
        reloaded, _ = load(str(chosen), dtype=compute, **usual)
        after = look(reloaded)
        difference = _difference(found[onto], after)
        if onto == "requantized" or dtype == "float32":
            _check(found[onto], after, "the reloaded folder", "what was saved")
        found[onto] = after
        merged_answers = greedy_from(reloaded, tokenizer, questions, max_new_tokens, answers, after)
        receipt = Receipt(
            run=str(run),
            output_dir=str(output),
            onto=onto,
            dtype="4-bit" if onto == "requantized" else dtype,
            base=base,
            quantization=asdict(quantization) if quantization else None,
            prompts=len(questions),
            changes={target: change(trained, found[target]) for target in targets},
            reload_difference=difference,
            trained_answers=tokenizer.batch_decode(answers, skip_special_tokens=True),
            merged_answers=tokenizer.batch_decode(merged_answers, skip_special_tokens=True),
            versions={name: version(name) for name in ("ftkit", "torch", "transformers", "peft")},
        )
        (chosen / RECEIPT_FILE).write_text(
            json.dumps(asdict(receipt), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        write_card(chosen, run)
        open_to_others(chosen)
        chosen.chmod(0o755)
        os.replace(chosen, output.resolve())
    return receipt


def _target(onto: str | None, run: Path, quantization: Quantization | None, dtype: str) -> str:
    if onto is None:
        return "dequantized" if quantization else "original"
    if onto not in TARGETS:
        raise ConfigError(f"onto must be one of {', '.join(TARGETS)}, not {onto!r}.")
    if quantization is None and onto != "original":
        raise ConfigError(
            f"onto={onto!r} is for a run on a base in 4 bits, and {run} was trained on one that was not quantised; "
            "leave it out, which is exact."
        )
    if onto == "requantized" and dtype != "float32":
        raise ConfigError(f"onto='requantized' is saved in 4 bits, so dtype={dtype!r} means nothing; leave it out.")
    return onto


def _load(run: Path, onto: str, trust_remote_code: bool) -> tuple["PeftModel", "PreTrainedTokenizerBase"]:
    how = "dequantized" if onto == "dequantized" else None
    usual = {"attn_implementation": "sdpa", "verbose": False, "trust_remote_code": trust_remote_code}
    return load(str(run), dtype="float32", quantization=how, **usual)


def _merge(model: "PeftModel", before: list[torch.Tensor], look: Look) -> "tuple[PreTrainedModel, list[torch.Tensor]]":
    """Base plus adapter as one model, in place, and its logits."""
    merged = model.merge_and_unload(safe_merge=True)
    after = look(merged)
    _check(before, after, "the merged model", "base plus adapter")
    return merged, after


def _make(
    target: str,
    run: Path,
    exact: Path,
    folder: Path | None,
    record: "base_record.BaseRecord",
    dtype: str,
    look: Look,
    trust_remote_code: bool,
) -> list[torch.Tensor]:
    """Logits of the merge onto "original" or "requantized", which is saved in `folder` if there is one."""
    if target == "requantized":
        model = _requantized(exact, record, trust_remote_code)
        found = look(model)
    else:
        adapted, _ = _load(run, "original", trust_remote_code)
        model, found = _merge(adapted, look(adapted), look)
        model = model.to(getattr(torch, dtype))
    if folder:
        model.save_pretrained(str(folder))
    return found


def _rounded(exact: Path, dtype: str, trust_remote_code: bool) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    wide = AutoModelForCausalLM.from_pretrained(exact, dtype=torch.float32, trust_remote_code=trust_remote_code)
    return wide.to(getattr(torch, dtype))


def _requantized(exact: Path, record: "base_record.BaseRecord", trust_remote_code: bool) -> "PreTrainedModel":
    """As Transformers quantises when it loads; fused experts stay wide then."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config, dtype = AutoConfig.from_pretrained(exact, trust_remote_code=trust_remote_code), getattr(torch, record.dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    packing = loading_config(
        config, record.quantization, dtype=dtype, device=device, alone=True, trust_remote_code=trust_remote_code
    )
    model = AutoModelForCausalLM.from_pretrained(
        exact,
        dtype=dtype,
        quantization_config=packing,
        device_map={"": device},
        attn_implementation="sdpa",
        trust_remote_code=trust_remote_code,
    )
    guard(model)
    return model


@contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """A folder beside `output`, gone at the end whatever happens."""
    output.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _difference(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(one, other, strict=True))


def _check(before: list[torch.Tensor], after: list[torch.Tensor], what: str, than: str) -> None:
    difference, spread = _difference(before, after), torch.cat(before).std().item()
    if not difference <= FLOAT32_TOLERANCE * spread:
        raise ModelError(
            f"the logits of {what} differ from those of {than} by up to {difference:.2g} (their spread is "
            f"{spread:.2g}), so the merge is wrong and was not kept; use the adapter as it is."
        )
