"""A weight in 4 bits that looks like an ordinary parameter to whoever uses it.

bitsandbytes' `Linear4bit` is what quantised linear layers are, wherever it can be. Three kinds of weights cannot be:
experts fused into one 3-D tensor, linear layers that PEFT adapts as parameters (it reads their shape off the weight,
which `Linear4bit` packs into one column), and, on a CPU, layers whose rows are no whole number of blocks
(bitsandbytes 0.50 gives some of them the scales of others there, on processors with AVX-512). Those get this.
"""

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from bitsandbytes.functional import QuantState

aten = torch.ops.aten
BLOCK = 64
"""Weights that share a scale."""


class FourBitTensor(torch.Tensor):
    """Shape, dtype and device of a weight, whose numbers are made from 4 bits whenever an operator asks for them.

    The transposed view of a matrix stays in 4 bits, so that a linear layer keeps nothing wide for the backward pass.

    Attributes:
        packed: uint8, two indices a byte, of the flattened weight.
        state: bitsandbytes' scales, for the flattened weight.
        swapped: whether this is the transpose of what is packed.
    """

    packed: torch.Tensor
    state: "QuantState"
    swapped: bool

    @staticmethod
    def __new__(cls, packed: torch.Tensor, state: "QuantState", shape, dtype: torch.dtype, swapped: bool = False):
        made = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=packed.device)
        made.packed, made.state, made.swapped = packed, state, swapped
        return made

    # These two make `Module.to` swap a parameter for the one that was moved. For a tensor without them it keeps the old
    # object under the new device's name, and with it codes and scales on the old device.
    def __tensor_flatten__(self):
        return ["packed"], (self.state, self.dtype, self.swapped)

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride) -> "FourBitTensor":
        state, dtype, swapped = context
        return FourBitTensor(inner["packed"], state, size, dtype, swapped)

    @classmethod
    def quantize(cls, weight: torch.Tensor, *, quant_type: str, double: bool) -> "FourBitTensor":
        """`weight`, whose size is a whole number of blocks, in 4 bits."""
        from bitsandbytes.functional import quantize_4bit

        packed, state = quantize_4bit(
            weight.detach().flatten(), blocksize=BLOCK, quant_type=quant_type, compress_statistics=double
        )
        return cls(packed, state, weight.shape, weight.dtype)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What is held: codes and scales, without code books."""
        state = self.state
        return [self.packed, state.absmax, *([state.state2.absmax] if state.nested else [])]

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight as it is computed with, or in `dtype` without a rounding in between."""
        numbers = self._numbers(self.packed, self._scales(), dtype)
        return numbers.reshape(self.shape[::-1]).T if self.swapped else numbers.reshape(self.shape)

    def part(self, index: int) -> torch.Tensor:
        """`dequantize()[index]`, made from that part alone."""
        size = self.shape[1:].numel()
        if self.swapped or size % BLOCK:
            return self.dequantize()[index]
        index %= len(self)
        packed = self.packed.flatten()[index * size // 2 : (index + 1) * size // 2]
        scales = self._scales()[index * size // BLOCK : (index + 1) * size // BLOCK]
        return self._numbers(packed, scales).reshape(self.shape[1:])

    def _scales(self) -> torch.Tensor:
        from bitsandbytes.functional import dequantize_blockwise

        if not self.state.nested:
            return self.state.absmax
        return dequantize_blockwise(self.state.absmax, self.state.state2) + self.state.offset

    def _numbers(self, packed: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        # As one row of whole blocks, whatever the shape: see the head of this file.
        row = [2 * packed.numel()]
        made = torch.ops.bitsandbytes.dequantize_4bit.default(
            packed.reshape(-1, 1), scales, BLOCK, self.state.quant_type, row, dtype or self.dtype
        )
        return made.flatten()

    def _like(self, *, packed=None, state=None, shape=None, dtype=None, swapped=None) -> "FourBitTensor":
        return FourBitTensor(
            self.packed if packed is None else packed,
            self.state if state is None else state,
            self.shape if shape is None else shape,
            dtype or self.dtype,
            self.swapped if swapped is None else swapped,
        )

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs, weight = kwargs or {}, args[0]
        if isinstance(weight, cls):
            if func in (aten.detach.default, aten.alias.default):
                return weight._like()
            if func is aten.t.default or (func is aten.transpose.int and {d % 2 for d in args[1:]} == {0, 1}):
                if weight.ndim == 2:
                    return weight._like(shape=weight.shape[::-1], swapped=not weight.swapped)
            if func is aten.select.int and args[1] == 0:
                return weight.part(args[2])
            if func is aten.clone.default:
                return weight._like(packed=weight.packed.clone(), state=copy.deepcopy(weight.state))
            if func is aten._to_copy.default:
                device, dtype = kwargs.get("device"), kwargs.get("dtype")
                state = copy.deepcopy(weight.state)
                state.to(device or weight.device)
                return weight._like(packed=weight.packed.to(device or weight.device), state=state, dtype=dtype)
            if func is aten.set_.source_Tensor and args[1] is weight:
                return weight
            if func._schema.is_mutable:
                raise RuntimeError("A weight in 4 bits cannot be written to; merge on the dequantised model instead.")
        plain = [_plain(one) for one in args]
        return func(*plain, **{key: _plain(value) for key, value in kwargs.items()})

    def __repr__(self) -> str:
        return f"FourBitTensor({self.state.quant_type}, shape={tuple(self.shape)}, dtype={self.dtype})"


def _plain(value):
    if isinstance(value, FourBitTensor):
        return value.dequantize()
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def hold_in_four_bits(module: nn.Module, name: str, *, quant_type: str, double: bool) -> None:
    """Put a frozen parameter in 4 bits in the place of `module`'s parameter `name`."""
    weight = FourBitTensor.quantize(module.get_parameter(name), quant_type=quant_type, double=double)
    setattr(module, name, nn.Parameter(weight, requires_grad=False))
