"""The number format and the attention kernel for this machine, with the reason for each.

The choice is a pure function of the hardware's facts, so that every kind of machine can be tested on any.
"""

import os
import platform
from dataclasses import dataclass
from importlib.util import find_spec

from ftkit.errors import ModelError, near_matches

DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")
BF16_CAPABILITY = (8, 0)  # CUDA compute capability of the first NVIDIA GPUs with bfloat16 units (Ampere)


@dataclass(frozen=True)
class Hardware:
    """What decides precision and attention.

    Attributes:
        device: torch's device string, such as "cpu", "cuda" or "cuda:1".
        name: what a reader calls it: "this CPU", or the GPU's product name.
        bf16: whether it multiplies bfloat16 in hardware; emulated bfloat16 is slower than float32 and does not count.
        capability: CUDA compute capability, None where the device is no CUDA GPU.
        flash_attn: whether the flash-attn package is installed.
    """

    device: str
    name: str
    bf16: bool
    capability: tuple[int, int] | None = None
    flash_attn: bool = False


@dataclass(frozen=True)
class Choice:
    """Device, dtype (a name in `DTYPES`) and attention implementation, and why."""

    device: str
    dtype: str
    attn_implementation: str
    dtype_reason: str
    attn_reason: str

    @property
    def torch_dtype(self):
        import torch

        return getattr(torch, self.dtype)

    def __str__(self) -> str:
        return (
            f"{self.dtype} ({self.dtype_reason}), "
            f"attention {self.attn_implementation} ({self.attn_reason}), on {self.device}"
        )


def detect(device: str = "auto") -> Hardware:
    """The hardware behind `device`; "auto" is the first CUDA GPU (this process's own under torchrun), else the CPU.

    Raises:
        ModelError: `device` is no device torch knows, or not present here.
    """
    import torch

    if device == "auto":
        rank = os.environ.get("LOCAL_RANK")
        device = ("cuda" if rank is None else f"cuda:{rank}") if torch.cuda.is_available() else "cpu"
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise ModelError(f"device={device!r} is not a device: use 'auto', 'cpu', 'cuda' or 'cuda:<index>'.") from None
    flash_attn = find_spec("flash_attn") is not None
    if parsed.type == "cpu":
        return Hardware(device, "this CPU", bf16=cpu_multiplies_bf16(), flash_attn=flash_attn)
    if parsed.type != "cuda":
        return Hardware(device, f"device {parsed.type}", bf16=False, flash_attn=flash_attn)
    if not torch.cuda.is_available() or (parsed.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device={device!r} is not present: torch sees {torch.cuda.device_count()} CUDA GPUs here.")
    capability = torch.cuda.get_device_capability(parsed)
    return Hardware(
        device,
        torch.cuda.get_device_name(parsed),
        bf16=capability >= BF16_CAPABILITY,
        capability=capability,
        flash_attn=flash_attn,
    )


def cpu_multiplies_bf16() -> bool:
    """Whether the CPU has bfloat16 multiplication: AVX512-BF16 or AMX-BF16 on x86, the bf16 extension on ARM."""
    import torch

    # `torch.cuda.is_bf16_supported` and its like also answer yes for emulation; the capability flags do not.
    flags = torch.cpu.get_capabilities()
    if platform.machine().lower() in ("aarch64", "arm64"):
        return bool(flags.get("bf16"))
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


def choose(
    hardware: Hardware,
    *,
    dtype: str = "auto",
    attn_implementation: str = "auto",
    tiny: bool = False,
    supports_flash: bool = True,
) -> Choice:
    """The precision and attention for `hardware`.

    Args:
        hardware: from `detect`, or made by hand.
        dtype: "auto" or the dtype to use.
        attn_implementation: "auto" or the implementation to use.
        tiny: a tiny random model, which "auto" keeps in float32 with sdpa on every machine.
        supports_flash: whether the model's code can call flash attention.

    Raises:
        ModelError: an unknown value, or flash attention where it cannot run.
    """
    _check("dtype", dtype, DTYPES)
    _check("attn_implementation", attn_implementation, ATTENTIONS)
    if dtype == "auto":
        dtype, dtype_reason = _dtype(hardware, tiny)
    else:
        dtype_reason = "as asked"

    obstacle = _flash_obstacle(hardware, dtype, tiny, supports_flash)
    if attn_implementation == "auto":
        attn_implementation, attn_reason = ("sdpa", obstacle) if obstacle else ("flash_attention_2", "available here")
    elif attn_implementation == "flash_attention_2" and obstacle:
        raise ModelError(f"attn_implementation='flash_attention_2' cannot run: {obstacle}; use 'auto' or 'sdpa'.")
    else:
        attn_reason = "as asked"
    return Choice(hardware.device, dtype, attn_implementation, dtype_reason, attn_reason)


def _dtype(hardware: Hardware, tiny: bool) -> tuple[str, str]:
    if tiny:
        return "float32", "tiny models are for exact comparisons"
    if hardware.bf16:
        return "bfloat16", f"{hardware.name} multiplies bf16 in hardware"
    if hardware.capability is not None:
        return "float16", f"{hardware.name} has no bf16 units; fp16 needs loss scaling, which the trainers do"
    if hardware.device == "cpu":
        return "float32", f"{hardware.name} does not multiply bf16 in hardware"
    return "float32", f"half precision is not tested on {hardware.name}"


def _flash_obstacle(hardware: Hardware, dtype: str, tiny: bool, supports_flash: bool) -> str:
    """Why flash attention cannot run; the empty string where it can."""
    if tiny:
        return "tiny models use the same kernels everywhere"
    if not hardware.flash_attn:
        return "flash-attn is not installed"
    if hardware.capability is None or hardware.capability < BF16_CAPABILITY:
        return "flash attention needs a CUDA GPU of capability 8.0 or later"
    if dtype == "float32":
        return "flash attention needs half precision"
    if not supports_flash:
        return "this architecture has no flash attention"
    return ""


def _check(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        hint = near_matches(str(value), allowed)
        raise ModelError(f"{argument}={value!r} is unknown: use {', '.join(map(repr, allowed))}.{hint}")
