"""Loading in 4 bits: which weights, how, and what stays wide.

Dettmers et al., *QLoRA: Efficient Finetuning of Quantized LLMs*, arXiv 2305.14314. In 4 bits go the decoder's linear
layers and its fused experts, which Transformers leaves as they are. Embeddings, output head, norms, routers and a
vision tower stay in the precision of the load; none of them is widened to float32.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftkit.errors import ConfigError, MissingDependency, near_matches
from ftkit.models.families import family_of

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

    from ftkit.models.four_bit import FourBitTensor

QUANT_TYPES = ("nf4", "fp4")
COMPUTE_DTYPES = ("auto", "float32", "bfloat16", "float16")
INSTALL = 'pip install "ftkit[qlora]"'


@dataclass(frozen=True)
class Quantization:
    """How a base is held in 4 bits.

    Attributes:
        quant_type: "nf4" or "fp4".
        use_double_quant: keep the scales in 8 bits too: 4.127 bits a weight instead of 4.5.
        compute_dtype: precision in which a linear layer multiplies; "auto" is that of the load.

    Raises:
        ConfigError: an unknown value.
    """

    quant_type: str = "nf4"
    use_double_quant: bool = True
    compute_dtype: str = "auto"

    def __post_init__(self) -> None:
        for name, allowed in (("quant_type", QUANT_TYPES), ("compute_dtype", COMPUTE_DTYPES)):
            if (value := getattr(self, name)) not in allowed:
                raise ConfigError(
                    f"{name} must be one of {', '.join(allowed)}, not {value!r}.{near_matches(str(value), allowed)}"
                )

    def __str__(self) -> str:
        return f"{self.quant_type}{', double quantisation' * self.use_double_quant}"


def require_bitsandbytes() -> None:
    """
    Raises:
        MissingDependency: bitsandbytes is not installed, or cannot be imported here.
    """
    # Transformers warns of a model without a `Linear4bit`, where `finish` still puts every weight in 4 bits.
    logging.getLogger("transformers.integrations.bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingDependency(f"Weights in 4 bits need bitsandbytes ({error}): run `{INSTALL}`.") from None


def loading_config(
    config: "PreTrainedConfig",
    quantization: Quantization,
    *,
    dtype: "torch.dtype",
    device: str,
    alone: bool = False,
    trust_remote_code: bool | None = None,
) -> "BitsAndBytesConfig":
    """What `from_pretrained` is told: the layers that become `Linear4bit`; `finish` does the rest.

    Args:
        alone: nothing follows, as for a model that is saved in 4 bits for Transformers: what PEFT would adapt as
            parameters becomes `Linear4bit` too, and fused experts stay wide.
        trust_remote_code: run the Python code that the model brings along. None: where it does, Transformers asks.
    """
    import torch
    from transformers import BitsAndBytesConfig

    model = _without_weights(config, trust_remote_code)
    compute = dtype if quantization.compute_dtype == "auto" else getattr(torch, quantization.compute_dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.quant_type,
        bnb_4bit_use_double_quant=quantization.use_double_quant,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=sorted(_not_by_transformers(model, device, alone)),
    )


def has_fused_experts(config: "PreTrainedConfig", trust_remote_code: bool | None = None) -> bool:
    """Whether `finish` will find experts that Transformers leaves wide."""
    model = _without_weights(config, trust_remote_code)
    return any(module.get_parameter(name).ndim == 3 for module, name in _to_quantize(model))


def finish(model: "PreTrainedModel", quantization: Quantization) -> None:
    """Put in 4 bits what `from_pretrained` left wide, and keep `Linear4bit` from repacking itself."""
    from ftkit.models.four_bit import BLOCK, hold_in_four_bits

    how = {"quant_type": quantization.quant_type, "double": quantization.use_double_quant}
    for module, name in _to_quantize(model):
        if module.get_parameter(name).numel() % BLOCK == 0:
            hold_in_four_bits(module, name, **how)
    guard(model)


def guard(model: "nn.Module") -> None:
    """Switch off the repacking of weights for inference on CPUs with AVX512-BF16.

    The first forward pass in evaluation mode would rewrite them in place, and what reads them afterwards, a merge as
    well as the backward pass, would take them for what they no longer are.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def quantized_weights(model: "nn.Module") -> Iterator[tuple[str, "torch.Tensor", list["torch.Tensor"]]]:
    """Every weight in 4 bits: its name, itself, and the tensors it is held in (codes and scales)."""
    from bitsandbytes.nn import Params4bit

    from ftkit.models.four_bit import FourBitTensor

    for name, weight in model.named_parameters():
        if isinstance(weight, FourBitTensor | Params4bit):
            yield name, weight, as_four_bit_tensor(weight).tensors


def parts_of(tensor: "torch.Tensor") -> list["torch.Tensor"]:
    """What `tensor` is held in: codes and scales of a weight in 4 bits, itself otherwise."""
    from ftkit.models.four_bit import FourBitTensor

    if isinstance(tensor, FourBitTensor) or getattr(tensor, "quant_state", None) is not None:
        return as_four_bit_tensor(tensor).tensors
    return [tensor]


def share_in_four_bits(model: "nn.Module") -> float:
    """Share of the base model's weights, by number, that are in 4 bits; embeddings, head and norms count in full."""
    packed = {name: as_four_bit_tensor(weight).numel() for name, weight, _ in quantized_weights(model)}
    everything = {name: p.numel() for name, p in model.named_parameters() if not re.search(r"lora_|vera_", name)}
    return sum(packed.values()) / sum((everything | packed).values())


def settings_of(model: "PreTrainedModel") -> Quantization | None:
    """How `model` is quantised; None where it is not in 4 bits."""
    if not getattr(model, "is_loaded_in_4bit", False):
        return None
    config = model.config.quantization_config
    dtype = str(config.bnb_4bit_compute_dtype).removeprefix("torch.")
    return Quantization(config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant, dtype)


def dequantize(model: "PreTrainedModel") -> "PreTrainedModel":
    """The ordinary float32 model that computes what `model` computes: its 4-bit weights written out, in place."""
    import torch
    from torch import nn

    for name, weight, _ in list(quantized_weights(model)):
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        plain = nn.Parameter(as_four_bit_tensor(weight).dequantize(torch.float32), requires_grad=False)
        if type(module) is nn.Linear or leaf != "weight":
            setattr(module, leaf, plain)
            continue
        linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, device="meta")
        linear.weight, linear.bias = plain, module.bias
        model.set_submodule(owner, linear.train(module.training))
    model.is_loaded_in_4bit = model.is_quantized = False
    model.hf_quantizer = None
    del model.config.quantization_config
    return model.float()


def as_four_bit_tensor(weight: "torch.Tensor") -> "FourBitTensor":
    """A `Linear4bit`'s weight seen as its matrix, sharing its memory."""
    from ftkit.models.four_bit import FourBitTensor

    if isinstance(weight, FourBitTensor):
        return weight
    state = weight.quant_state
    return FourBitTensor(weight.data, state, state.shape, state.dtype)


def _without_weights(config: "PreTrainedConfig", trust_remote_code: bool | None) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def _not_by_transformers(model: "PreTrainedModel", device: str, alone: bool) -> set[str]:
    """Endings of module names that `from_pretrained` must leave alone, as it reads them."""
    from torch import nn

    from ftkit.models.four_bit import BLOCK

    family = family_of(model)
    head = model.get_output_embeddings()
    skipped = {name for name, module in model.named_modules() if module is head}
    if family and family.exclude_modules:
        skipped.add(family.exclude_modules)
    targets = () if alone or family is None else family.target_parameters
    as_parameters = [target.removesuffix(".weight") for target in targets]
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module is not head:
            leaf = name.rpartition(".")[2]
            # Whole names would be a list as long as the model is deep; layers of one name are alike.
            if leaf in as_parameters or (device == "cpu" and module.in_features % BLOCK):
                skipped.add(".".join(name.split(".")[-2:]))
    return skipped


def _to_quantize(model: "PreTrainedModel") -> list[tuple["nn.Module", str]]:
    """Modules and their parameters that belong in 4 bits and are not: linear layers and fused experts."""
    from torch import nn

    family = family_of(model)
    exclude = family.exclude_modules if family else None
    head, wide = model.get_output_embeddings(), tuple(model._keep_in_fp32_modules or ())
    found = []
    for name, module in model.named_modules():
        if module is head or (exclude and re.fullmatch(exclude, name)):
            continue
        if type(module) is nn.Linear:
            if not name.endswith(wide):
                found.append((module, "weight"))
        elif "expert" in name.rpartition(".")[2]:
            found += [(module, leaf) for leaf, p in module.named_parameters(recurse=False) if p.ndim == 3]
    return found
