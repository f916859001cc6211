"""The model card of a trained or merged folder, from what the run recorded. It states, and praises nothing."""

import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from ftkit.models import base_record, embedded, tiny

FILE = "README.md"
_RUN_FILE, _RECEIPT_FILE = "ftkit_run.json", "merge_receipt.json"
_SETTINGS = (
    *("lora_r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "use_rslora", "use_lora_plus"),
    *("learning_rate", "lr_scheduler_type", "warmup_ratio", "weight_decay", "max_grad_norm", "optim"),
    *("num_epochs", "max_steps", "batch_size", "gradient_accumulation_steps", "max_seq_length", "seed"),
)
_METRICS = ("steps", "train_loss", "eval_loss", "eval_perplexity", "eval_tokens")


def write_card(folder: str | Path, run: str | Path | None = None) -> Path:
    """Write `README.md` into `folder`, an adapter's or a merged model's, and return its path.

    Args:
        folder: where the card goes; a merged model's holds its receipt.
        run: the folder of the training run; default `folder` itself.
    """
    folder, run = Path(folder), Path(run or folder)
    beside = folder / f".{FILE}"
    beside.write_text(card(folder, run), encoding="utf-8")
    os.replace(beside, folder / FILE)
    return folder / FILE


def card(folder: Path, run: Path) -> str:
    """The text of the card."""
    record, adapter = _read(run / _RUN_FILE), _read(run / "adapter_config.json")
    receipt = _read(folder / _RECEIPT_FILE)
    settings, base = record.get("config", {}), base_record.read(run)
    source = settings.get("model_name") or adapter.get("base_model_name_or_path") or "unknown"
    license_, stated = base_license(source)
    whole = not (folder / "adapter_config.json").is_file()
    front = {
        "base_model": source,
        "library_name": "transformers" if whole else "peft",
        "pipeline_tag": "text-generation",
    }
    if license_:
        front["license"] = license_
    kind = "Merged model" if receipt else "Model" if whole else "Adapter"
    method = record.get("method") or adapter.get("peft_type", "").lower() or "unknown"
    held = f", trained on a base in 4 bits ({base.quantization})" if base and base.quantization else ""
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {kind}: {_name(source)}, fine-tuned",
        f"Base model: `{source}`. Method: {method}{held}.",
        _load_lines(whole, receipt),
        _section("Data", _data(record)),
        _section("Settings", _table(settings, _SETTINGS)),
        _section("Metrics", _table(record.get("metrics", {}), _METRICS)),
        _section("Merge", _merge(receipt)),
        _section("Versions", _table(record.get("versions", {}) | receipt.get("versions", {}))),
        _section(
            "Licence", f"The base model's licence: {license_ or 'not found'} ({stated}). It holds for this model too."
        ),
        "It has the limits of its base model and of its data. It was not tested for safety.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def base_license(source: str) -> tuple[str | None, str]:
    """The licence that a base model's own card states, and where that was found."""
    if source == embedded.NAME or embedded.FOLDER_PREFIX in source:
        return "apache-2.0", "stated by SmolLM2-135M-Instruct's publisher"
    if source in tiny.TINY:
        return None, "random weights made by ftkit, which come under ftkit's own licence"
    readme = Path(source) / FILE
    if not Path(source).is_dir():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(source, FILE) if re.fullmatch(r"[\w.-]+/[\w.-]+", source) else None
        readme = Path(found) if isinstance(found, str) else None
    text = readme.read_text(encoding="utf-8", errors="replace") if readme and readme.is_file() else ""
    match = re.match(r"---\n(.*?)\n---", text, flags=re.DOTALL)
    try:
        stated = (yaml.safe_load(match[1]) or {}).get("license") if match else None
    except (yaml.YAMLError, AttributeError):
        stated = None
    if isinstance(stated, str):
        return stated, "stated by the base model's card"
    return None, "no card of the base model on this machine states one; look at its page"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _name(source: str) -> str:
    return Path(source).name


def _load_lines(whole: bool, receipt: dict[str, Any]) -> str:
    if whole:
        dtype = "" if receipt.get("dtype") == "4-bit" else f", dtype={receipt.get('dtype', 'float32')!r}"
        code = f'AutoModelForCausalLM.from_pretrained("this folder"{dtype})'
        return f"```python\nfrom transformers import AutoModelForCausalLM\n\nmodel = {code}\n```".replace("'", '"')
    return '```python\nfrom ftkit.models import load\n\nmodel, tokenizer = load("this folder")\n```'


def _data(record: dict[str, Any]) -> str:
    if not record:
        return ""
    found = record.get("data_sha256", "")
    return f"`{record['config'].get('data_dir')}`; SHA-256 of the encoded rows: `{found}`."


def _merge(receipt: dict[str, Any]) -> str:
    if not receipt:
        return ""
    lines = [
        f"Merged onto the {receipt['onto']} base, saved in {receipt['dtype']}. Changes against base plus adapter in "
        f"float32, on {receipt['prompts']} prompts:\n",
        "| merged onto | largest change of a logit | mean | KL (nats) | answers changed |",
        "|---|---|---|---|---|",
    ]
    for target, found in receipt["changes"].items():
        lines.append(
            f"| {target} | {found['max_logit']:.2g} | {found['mean_logit']:.2g} | {found['kl']:.2g} "
            f"| {found['answers']:.0%} |"
        )
    return "\n".join(lines)


def _table(values: dict[str, Any], names: tuple[str, ...] | None = None) -> str:
    rows = [(name, values[name]) for name in names or values if values.get(name) is not None]
    if not rows:
        return ""
    shown = (
        f"| {name} | {value:.4g} |" if isinstance(value, float) else f"| {name} | {value} |" for name, value in rows
    )
    return "\n".join(["| | |", "|---|---|", *shown])


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""
