import pytest
import torch

from ftkit.errors import ModelError
from ftkit.models import precision
from ftkit.models.precision import Hardware, choose, detect

T4 = Hardware("cuda", "Tesla T4", bf16=False, capability=(7, 5))
T4_FLASH = Hardware("cuda", "Tesla T4", bf16=False, capability=(7, 5), flash_attn=True)
A100 = Hardware("cuda", "NVIDIA A100", bf16=True, capability=(8, 0), flash_attn=True)
A100_PLAIN = Hardware("cuda", "NVIDIA A100", bf16=True, capability=(8, 0))
CPU_BF16 = Hardware("cpu", "this CPU", bf16=True)
CPU_OLD = Hardware("cpu", "this CPU", bf16=False)
CPU_FLASH = Hardware("cpu", "this CPU", bf16=True, flash_attn=True)
MPS = Hardware("mps", "device mps", bf16=False)


@pytest.mark.parametrize(
    ("hardware", "arguments", "dtype", "attention"),
    [
        (T4, {}, "float16", "sdpa"),
        (T4_FLASH, {}, "float16", "sdpa"),
        (A100, {}, "bfloat16", "flash_attention_2"),
        (A100, {"supports_flash": False}, "bfloat16", "sdpa"),
        (A100, {"dtype": "float32"}, "float32", "sdpa"),
        (A100, {"attn_implementation": "eager"}, "bfloat16", "eager"),
        (A100, {"tiny": True}, "float32", "sdpa"),
        (A100_PLAIN, {}, "bfloat16", "sdpa"),
        (CPU_BF16, {}, "bfloat16", "sdpa"),
        (CPU_BF16, {"tiny": True}, "float32", "sdpa"),
        (CPU_BF16, {"tiny": True, "dtype": "bfloat16"}, "bfloat16", "sdpa"),
        (CPU_OLD, {}, "float32", "sdpa"),
        (CPU_FLASH, {}, "bfloat16", "sdpa"),
        (MPS, {}, "float32", "sdpa"),
    ],
)
def test_choice_by_hardware(hardware, arguments, dtype, attention):
    choice = choose(hardware, **arguments)
    assert (choice.dtype, choice.attn_implementation, choice.device) == (dtype, attention, hardware.device)
    assert choice.torch_dtype is getattr(torch, dtype)


def test_the_line_names_choice_and_reasons():
    assert str(choose(CPU_BF16)) == (
        "bfloat16 (this CPU multiplies bf16 in hardware), attention sdpa (flash-attn is not installed), on cpu"
    )
    assert "Tesla T4 has no bf16 units" in str(choose(T4))


@pytest.mark.parametrize("hardware", [T4_FLASH, A100_PLAIN, CPU_FLASH])
def test_flash_attention_that_cannot_run_is_refused(hardware):
    with pytest.raises(ModelError, match="flash_attention_2"):
        choose(hardware, attn_implementation="flash_attention_2")


@pytest.mark.parametrize(("argument", "value"), [("dtype", "bf16"), ("attn_implementation", "flash")])
def test_unknown_values_are_refused_with_the_allowed_ones(argument, value):
    allowed = {"dtype": precision.DTYPES, "attn_implementation": precision.ATTENTIONS}[argument]
    with pytest.raises(ModelError) as error:
        choose(CPU_OLD, **{argument: value})
    assert all(repr(name) in str(error.value) for name in (value, *allowed))


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", {"avx512_bf16": True, "amx_bf16": False}, True),
        ("x86_64", {"avx512_bf16": False, "amx_bf16": True}, True),
        ("x86_64", {"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ("aarch64", {"neon": True, "bf16": True}, True),
        ("arm64", {"neon": True, "bf16": False}, False),
    ],
)
def test_cpu_bf16_is_read_from_the_instruction_set(monkeypatch, machine, flags, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)
    assert precision.cpu_multiplies_bf16() is expected
    assert detect("cpu").bf16 is expected


@pytest.mark.parametrize(("capability", "bf16"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_cuda_facts_come_from_the_capability(monkeypatch, capability, bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert detect() == Hardware("cuda", "a GPU", bf16, capability, detect().flash_attn)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert detect().device == "cuda:1"
    with pytest.raises(ModelError, match="2 CUDA GPUs"):
        detect("cuda:2")


def test_a_device_that_is_none_or_absent_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert detect().device == "cpu"
    with pytest.raises(ModelError, match="'gpu' is not a device"):
        detect("gpu")
    with pytest.raises(ModelError, match="not present"):
        detect("cuda")
