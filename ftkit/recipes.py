"""The few training runs that the book rests on, made once and read by many chapters.

A run is kept in the user's cache under the hash of everything that decides it: ftkit's training code, the data, the
settings and the libraries' versions. Change one of them and it is made again.
"""

import hashlib
import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ftkit.data.sources import load_data
from ftkit.errors import ConfigError, near_matches
from ftkit.models.embedded import cache_root
from ftkit.training.config import RUN_FILE, FullFineTuningConfig, LoRAConfig, QLoRAConfig, TrainingConfig

# Support tickets to JSON: 208 of 640 rows, seen once. Of the learning rates 5e-4, 1e-3 and 2e-3 the middle one gave
# most exact matches on the validation rows (0.38, 0.46 and 0.41 of 96, one seed, on earlier rows: a near tie).
_LORA = {
    "data_dir": "tickets",
    "lora_r": 8,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.1,
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_steps": 52,
    "max_seq_length": 256,
    "logging_steps": 1,
    "eval_steps": 26,
    "save_steps": 26,
}
RECIPES = {
    "lora": _LORA,
    # The same but for the 4 bits and the optimizer that goes with them. Recomputing activations, QLoRA's default, would
    # save memory that there is, and cost time.
    "qlora": _LORA | {"max_grad_norm": 1.0, "use_gradient_checkpointing": False},
    # The same rows in the same order, at a tenth of LoRA's learning rate. One checkpoint: it takes three times the
    # model's size.
    "full": {
        "data_dir": "tickets",
        "learning_rate": 1e-4,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.1,
        "batch_size": 4,
        "gradient_accumulation_steps": 1,
        "use_gradient_checkpointing": False,
        "max_steps": 52,
        "max_seq_length": 256,
        "logging_steps": 1,
        "eval_steps": 26,
        "save_steps": 52,
        "save_total_limit": 1,
    },
}
"""Settings by name; what is not named here is the default of the configuration."""

_CONFIGS = {"lora": LoRAConfig, "full": FullFineTuningConfig, "qlora": QLoRAConfig}

_DECIDES = ("data", "methods", "models", "training", "loss.py")
"""Parts of ftkit whose code decides what a run learns."""


def config(name: str, model_name: str = "embedded", **overrides) -> TrainingConfig:
    """The recipe's configuration for `model_name`, with its folder in the cache as `output_dir`.

    Args:
        name: one of `RECIPES`.
        model_name: as in `ftkit.load`.
        overrides: fields to change; they are part of the run's hash.

    Raises:
        ConfigError: there is no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}; there is {', '.join(RECIPES)}.{near_matches(name, RECIPES)}")
    settings = {"model_name": model_name, **RECIPES[name], **overrides}
    return _CONFIGS[name](**settings, output_dir=str(cache_root() / "runs" / f"{name}-{_digest(settings)}"))


def fresh(name: str, model_name: str = "embedded", **overrides) -> TrainingConfig:
    """`config`, after an earlier run under it was removed: for the chapter that makes the run in the open."""
    made = config(name, model_name, **overrides)
    shutil.rmtree(made.output_dir, ignore_errors=True)
    return made


def obtain(name: str, model_name: str = "embedded", **overrides) -> Path:
    """The folder of the finished run; it is trained here and now where the cache lacks it."""
    made = config(name, model_name, **overrides)
    folder = Path(made.output_dir)
    if not (folder / RUN_FILE).is_file():
        from ftkit.training.full import FullFineTuner
        from ftkit.training.lora import LoRAFineTuner
        from ftkit.training.qlora import QLoRAFineTuner

        print(f"{folder.name} is not in the cache yet: training it")
        tuners = {"lora": LoRAFineTuner, "full": FullFineTuner, "qlora": QLoRAFineTuner}
        tuners[name](fresh(name, model_name, **overrides)).train()
    return folder


def _digest(settings: dict) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(json.dumps(load_data(settings["data_dir"]), sort_keys=True).encode())
    digest.update(" ".join(map(_version, ("torch", "transformers", "peft", "bitsandbytes"))).encode())
    package = Path(__file__).parent
    for part in _DECIDES:
        for source in sorted([package / part] if part.endswith(".py") else (package / part).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # bitsandbytes is optional
        return "missing"
