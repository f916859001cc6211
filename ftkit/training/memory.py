"""What a trainer says about memory before it loads anything."""

import os
import sys

from ftkit.errors import ConfigError, ModelError, UnknownLayout
from ftkit.memory.catalogue import architecture
from ftkit.memory.estimator import estimate
from ftkit.models import precision
from ftkit.models.tiny import TINY
from ftkit.training.config import TrainingConfig

_OPTIMIZERS = {"paged_adamw_32bit": "paged_adamw", "adamw_torch": "adamw"}
"""The estimator's names for what the trainers call otherwise."""


def announce_memory(config: TrainingConfig, method: str) -> None:
    """Print the prediction for `config` on this machine, and a warning on stderr where it will not or may not fit.

    A model that has layers unknown to the estimator is said not to be estimated. One that does not exist and an unknown
    target are passed over in silence: what follows says what is wrong, if anything is.
    """
    import torch

    hardware = precision.detect()
    choice = precision.choose(hardware, dtype=config.torch_dtype, tiny=config.model_name in TINY)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        available = torch.cuda.get_device_properties(choice.device).total_memory
    else:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        notice, warning = memory_notice(
            config, method, available=available, dtype=choice.dtype, device="cuda" if on_gpu else "cpu"
        )
    except UnknownLayout as error:
        print(f"memory: not estimated ({str(error).rstrip('.')})")
        return
    except (ConfigError, ModelError):
        return
    print(notice)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def memory_notice(config: TrainingConfig, method: str, *, available: int, dtype: str, device: str) -> tuple[str, str]:
    """The prediction in one line, and the warning; the warning is empty where the run fits whatever its rows.

    Args:
        config: of the run. Rows are taken to be as long as `max_seq_length` allows, for the data is not read yet.
        method: full, lora or qlora.
        available: bytes that the device has.
        dtype: of the base, and in full fine-tuning of the arithmetic, as chosen for the machine.
        device: cuda or cpu.
    """
    adapters = {}
    if method != "full":
        adapters = {
            "rank": config.lora_r,
            "target_modules": config.target_modules,
            "train_embeddings": bool(config.modules_to_save),
            "lora_dropout": config.lora_dropout,
        }
    if method == "qlora":
        adapters |= {
            "double_quantization": config.bnb_4bit_use_double_quant,
            "wide_dtype": "float32" if dtype == "float32" else "bfloat16",
            "optimizer": _OPTIMIZERS.get(config.optim, config.optim),
        }
    run = estimate(
        config.model_name,
        method=method,
        **adapters,
        batch_size=config.batch_size,
        sequence_length=config.max_seq_length,
        precision="float32" if dtype == "float32" else "autocast" if method == "full" else "mixed",
        use_gradient_checkpointing=config.use_gradient_checkpointing,
        device=device,
    )
    beside = _delta_lora_bytes(config, dtype) if getattr(config, "method", "") == "delta-lora" else 0
    static, upper = run.static_bytes + beside, run.upper_bytes + beside
    parts = "weights, gradients" if method == "full" else "weights, adapters, gradients"
    if beside:
        parts = f"weights, adapters, {beside / 1e9:.2f} GB that Delta-LoRA keeps from its start step on, gradients"
    rows = f"batches of {config.batch_size} rows of {config.max_seq_length:,} tokens"
    notice = (
        f"memory: {static / 1e9:.2f} GB for {parts} and optimizer, and up to "
        f"{(run.upper_bytes - run.static_bytes) / 1e9:.2f} GB for {rows}; this device has {available / 1e9:.1f} GB"
    )
    if static > available:
        return notice, f"{config.model_name} will not fit: its fixed part alone is larger than this device's memory."
    if upper > available:
        return notice, (
            f"{rows} may not fit. Where rows are that long, lower batch_size or max_seq_length, or set "
            "use_gradient_checkpointing=True."
        )
    return notice, ""


def _delta_lora_bytes(config: TrainingConfig, dtype: str) -> int:
    """What Delta-LoRA keeps beside: A and B twice, and beside a narrower base a float32 copy of each adapted weight."""
    names = config.target_modules
    shapes = [s for s in architecture(config.model_name).shapes if s.adapted and (names is None or s.name in names)]
    factors = sum(2 * config.lora_r * (s.d_in + s.d_out) * s.count for s in shapes)
    return 4 * (factors + (0 if dtype == "float32" else sum(s.total for s in shapes)))
