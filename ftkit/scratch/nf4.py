r"""Four bits a weight, to be read: NF4's code book, blocks, packing, scales of scales, and QLoRA's linear layer.

Dettmers, Pagnoni, Holtzman and Zettlemoyer, *QLoRA: Efficient Finetuning of Quantized LLMs*, arXiv 2305.14314,
section 3. Everything here gives the bits that bitsandbytes gives on a CPU; a test compares them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import nn

from ftkit.scratch.lora import LoRALinear

BLOCK = 64
"""Weights that share a scale."""
SCALE_BLOCK = 256
"""Scales that share a scale of their own, under double quantisation."""


def nf4_code() -> torch.Tensor:
    """The 16 values of NF4, ascending: (16,) float32.

    A normal weight is as likely to fall to one of them as to another: they are quantiles of the normal distribution,
    8 above zero, 7 below, and zero itself, divided by the largest.
    """

    def quantiles(n: int) -> torch.Tensor:
        # From the outermost probability inwards, without the median. Probability 1 would be infinity, so the
        # outermost lies half a step further in: 1 - (1/32 + 1/30) / 2.
        probabilities = torch.linspace(0.9677083, 0.5, n + 1)[:-1]
        return torch.tensor([NormalDist().inv_cdf(p) for p in probabilities.tolist()])

    values = torch.cat([quantiles(8), torch.zeros(1), -quantiles(7)]).sort().values
    return values / values.max()


def fp4_code() -> torch.Tensor:
    """The 15 values of a floating-point number of 4 bits, ascending: 1 sign, 2 exponent and 1 mantissa bit."""
    positive = torch.tensor([0.0625, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0]) / 12
    return torch.cat([-positive.flip(0), torch.zeros(1), positive])


def int4_code() -> torch.Tensor:
    """The 15 whole numbers from -7 to 7, divided by 7: evenly spaced values."""
    return torch.arange(-7, 8) / 7


def dynamic_code() -> torch.Tensor:
    """The 256 values in which scales are kept, ascending: (256,) float32.

    Seven powers of ten, each with twice as many steps as the one below: small scales are kept as precisely, relative
    to their size, as large ones.
    """
    values = [torch.tensor([0.0, 1.0])]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1)
        middles = 10 ** (i - 6) * (edges[:-1] + edges[1:]) / 2
        values += [middles, -middles]
    return torch.cat(values).sort().values


def nearest(values: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """Index of the value of `code` nearest to each of `values`: the midpoints between neighbours are the borders."""
    return torch.bucketize(values, (code[:-1] + code[1:]) / 2)


def nearest_by_table(values: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """As `nearest` for values from -1 to 1, looked up in a table of 65,536 places.

    So bitsandbytes quantises scales on a CPU. A value within 2e-5 of a border may fall to the other side of it.
    """
    table = nearest(torch.linspace(-1, 1, 2**16), code)
    return table[((values + 1) * (2**16 - 1) / 2 + 0.5).long()]


def blocks_of(values: torch.Tensor, size: int) -> torch.Tensor:
    """(n,) to (n / size, size), the last block filled up with zeros."""
    return nn.functional.pad(values, (0, -len(values) % size)).reshape(-1, size)


def quantize_blocks(
    values: torch.Tensor, code: torch.Tensor, size: int, find: Callable = nearest
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each block divided by its largest magnitude and rounded to `code`: indices (n,) and scales (blocks,)."""
    blocks = blocks_of(values, size)
    scales = blocks.abs().amax(dim=1)
    scaled = (blocks * (1 / scales.clamp(min=1e-38))[:, None]).clamp(-1, 1)
    return find(scaled, code).flatten()[: len(values)], scales


def dequantize_blocks(indices: torch.Tensor, scales: torch.Tensor, code: torch.Tensor, size: int) -> torch.Tensor:
    """(n,) float32: the values of the code, times the scale of their block."""
    return (blocks_of(code[indices], size) * scales[:, None]).flatten()[: len(indices)]


def pack(indices: torch.Tensor) -> torch.Tensor:
    """Two indices of 4 bits a byte, the first in the upper half: (n,) to (n / 2,) uint8, for an even n."""
    pairs = indices.reshape(-1, 2).to(torch.uint8)
    return (pairs[:, 0] << 4) | pairs[:, 1]


def unpack(packed: torch.Tensor, n: int) -> torch.Tensor:
    """The inverse of `pack`: (n,) int64."""
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:n].long()


@dataclass
class NF4Tensor:
    """A weight in 4 bits.

    Attributes:
        packed: two indices into the code book a byte.
        scales: (blocks,) float32; under double quantisation uint8, indices into `dynamic_code`.
        shape: of the weight.
        outer_scales: of blocks of 256 scales, float32; None without double quantisation.
        offset: the mean scale, which was subtracted before the scales were quantised.
    """

    packed: torch.Tensor
    scales: torch.Tensor
    shape: torch.Size
    outer_scales: torch.Tensor | None = None
    offset: torch.Tensor | None = None

    def dequantize(self) -> torch.Tensor:
        """The weight that is computed with, in float32."""
        scales = self.scales
        if self.outer_scales is not None:
            scales = dequantize_blocks(scales.long(), self.outer_scales, dynamic_code(), SCALE_BLOCK) + self.offset
        indices = unpack(self.packed, self.shape.numel())
        return dequantize_blocks(indices, scales, nf4_code(), BLOCK).reshape(self.shape)

    def bits_per_weight(self) -> float:
        """Of codes and scales; the one offset and the code books, the same for all weights, are left out."""
        tensors = [t for t in (self.packed, self.scales, self.outer_scales) if t is not None]
        return 8 * sum(t.numel() * t.element_size() for t in tensors) / self.shape.numel()


def quantize_nf4(weight: torch.Tensor, double_quantization: bool = True) -> NF4Tensor:
    """A weight of any shape in 4 bits, in blocks of 64 along its rows.

    Double quantisation keeps the scales, 32 bits for 64 weights, in 8 bits: they lie close together, so their mean is
    taken off and the rest is quantised in blocks of 256.
    """
    even = blocks_of(weight.flatten().float(), 2).flatten()  # a whole number of bytes
    indices, scales = quantize_blocks(even, nf4_code(), BLOCK)
    if not double_quantization:
        return NF4Tensor(pack(indices), scales, weight.shape)
    offset = scales.mean()
    inner, outer = quantize_blocks(scales - offset, dynamic_code(), SCALE_BLOCK, nearest_by_table)
    return NF4Tensor(pack(indices), inner.to(torch.uint8), weight.shape, outer, offset)


def relative_error(weight: torch.Tensor, code: torch.Tensor, size: int = BLOCK) -> float:
    """Root mean square of what rounding to `code` in blocks changes, relative to that of the weight."""
    flat = weight.flatten().float()
    rounded = dequantize_blocks(*quantize_blocks(flat, code, size), code, size)
    return ((rounded - flat).norm() / flat.norm()).item()


class QLoRALinear(LoRALinear):
    r"""LoRA beside a layer in 4 bits, equation 5: :math:`h = \mathrm{dequantize}(W) x + \frac{\alpha}{r} B A x`.

    W is made anew from its 4 bits in every forward pass and again in the backward pass, where the gradient of x needs
    it; nothing of its size is kept in between. It gets no gradient.

    Args:
        base: the layer to adapt; its weight is replaced by its 4 bits.
        r, lora_alpha: as for `LoRALinear`.
    """

    def __init__(self, base: nn.Linear, r: int, lora_alpha: float) -> None:
        super().__init__(base, r, lora_alpha)
        self.weight = quantize_nf4(base.weight.detach())
        self.bias = base.bias
        self.base = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d_in) to (..., d_out)."""
        y = Times4Bit.apply(x, self.weight)
        if self.bias is not None:
            y = y + self.bias
        return y + self.scaling * (x @ self.A.T) @ self.B.T  # eq. 5

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """One ordinary layer on the weight that was trained against, the dequantised one."""
        merged = nn.Linear(self.A.shape[1], self.B.shape[0], bias=self.bias is not None)
        merged.weight.copy_(self.weight.dequantize() + self.update())
        if self.bias is not None:
            merged.bias.copy_(self.bias)
        return merged


class Times4Bit(torch.autograd.Function):
    """x W^T for a frozen W in 4 bits, keeping for the backward pass the 4 bits alone."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: NF4Tensor) -> torch.Tensor:
        ctx.weight = weight
        return x @ weight.dequantize().to(x.dtype).T

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient @ ctx.weight.dequantize().to(gradient.dtype), None
