"""What a training step really holds: bytes counted on the tensors themselves.

Nothing here knows the formulas of `ftkit.memory.estimator`; the two are compared in tests and in the book.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ftkit.loss import trained_positions_only
from ftkit.models.quantized import parts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Measurement:
    """Bytes of one training step.

    Attributes:
        parameters: all parameters, each storage once; of a 4-bit weight its packed bytes and its scales.
        trainable: the parameters that got a gradient.
        gradients: those gradients.
        optimizer: the optimizer's states, without step counters and code tables.
        saved: what autograd kept between forward and backward pass, each storage once, without parameters.
        held: what was alive between forward and backward pass, made by the forward pass. With checkpointing this also
            has the layers' inputs, which autograd's hooks do not see.
        peak: most bytes alive at once of what the step made: activations, logits, gradients, and work space that
            operators return. On CUDA: the allocator's peak above what was allocated before the step.
    """

    parameters: int
    trainable: int
    gradients: int
    optimizer: int
    saved: int
    held: int
    peak: int


def measure_step(
    model: nn.Module,
    batch: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    autocast: bool = False,
) -> Measurement:
    """Run one training step with the loss of `ftkit.loss` and count.

    Args:
        model: a causal model, or a PEFT model on one, without gradients so far. It is trained by this step.
        batch: from `ftkit.training.collator.Collator`.
        optimizer: over the trainable parameters; without one its bytes are 0.
        autocast: run the forward pass under bfloat16 autocast.
    """
    base: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = batch["input_ids"].device
    own = {part.untyped_storage().data_ptr() for p in model.parameters() for part in parts_of(p)}
    # The storages themselves are kept, so that no address is used twice.
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        for part in parts_of(tensor):
            storage = part.untyped_storage()
            if storage.data_ptr() not in own:
                saved[storage.data_ptr()] = storage
        return tensor

    model.train()
    cast = torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext()
    with Alive() as alive:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        with trained_positions_only(base), torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept), cast:
            loss = model(**batch)["loss"]
        held, kept = alive.total(), sum(storage.nbytes() for storage in saved.values())
        saved.clear()
        loss.backward()
        peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else alive.peak
    if optimizer is not None:
        optimizer.step()
    trained = [p for p in model.parameters() if p.grad is not None]
    return Measurement(
        parameters=_nbytes(model.parameters()),
        trainable=_nbytes(trained),
        gradients=_nbytes(p.grad for p in trained),
        optimizer=optimizer_bytes(optimizer) if optimizer is not None else 0,
        saved=kept,
        held=held,
        peak=peak,
    )


class Alive(TorchDispatchMode):
    """Within the block, follows every storage that an operator returns, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, self.total())
        return result

    def total(self) -> int:
        """Bytes alive now."""
        self.storages = {key: (ref, size) for key, (ref, size) in self.storages.items() if not ref.expired()}
        return sum(size for _, size in self.storages.values())


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the optimizer's states, without step counters and the code tables of 8-bit states."""
    tensors = (
        value
        for state in optimizer.state.values()
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and value.ndim and not name.startswith("qmap")
    )
    return _nbytes(tensors)


def _nbytes(tensors: Iterable[torch.Tensor]) -> int:
    storages = {}
    for tensor in tensors:
        for part in parts_of(tensor):
            storages[part.untyped_storage().data_ptr()] = part.untyped_storage()
    return sum(storage.nbytes() for storage in storages.values())
