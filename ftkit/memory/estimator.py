"""`estimate`: the bytes of a fine-tuning run by component, from shapes alone. No torch, no weights, no guess of a size.

Sources: Hu et al., arXiv 2106.09685 (LoRA, equation 3); Dettmers et al., arXiv 2305.14314, section 3 (NF4 in blocks of
64, scales quantised again in blocks of 256: 4 + 8/64 + 32/(64 x 256) = 4.127 bits a weight).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import ceil

from ftkit.errors import ConfigError, near_matches
from ftkit.memory.activations import Step, logits, saved_for_backward, transients
from ftkit.memory.catalogue import architecture
from ftkit.memory.shapes import Architecture, Shape

METHODS = ("full", "lora", "qlora")
ADAPTERS = ("lora", "lora_fa", "dora", "adalora", "vera")
PRECISIONS = ("mixed", "autocast", "bfloat16", "float32")
ATTENTIONS = ("sdpa", "eager", "flash_attention_2")
MOMENTS = {"adamw": 2, "adamw_8bit": 2, "paged_adamw": 2, "paged_adamw_8bit": 2, "sgd": 0, "sgd_momentum": 1}
STATIC = ("quantized_weights", "weights", "embeddings", "adapters", "gradients", "master_weights", "optimizer")
"""Components that do not depend on the batch, and that FSDP shards."""

KEPT_WIDE = ("weights_proj",)
"""Linear layers that transformers keeps out of 4 bit: the head weights of DeepSeek-V3.2's indexer."""
MARGIN = 0.08
"""Share of everything else that the upper bound adds for fragmentation and kernels' workspace: an assumption."""
CUDA_CONTEXT = 1_000_000_000
"""Bytes that the CUDA context and libraries take at most: an assumption; 0.3 to 1 GB is usual."""


@dataclass(frozen=True)
class Settings:
    """What a run does. Fields have the names of the trainers' where they mean the same."""

    method: str = "qlora"
    """full, lora or qlora."""
    rank: int = 64
    """Rank of the adapters."""
    adapter: str = "lora"
    """lora, lora_fa, dora, adalora or vera; activations are those of lora or lora_fa."""
    target_modules: tuple[str, ...] | None = None
    """Names of the adapted layers. Default: all that the family's table names."""
    train_embeddings: bool = False
    """Train copies of embeddings and head beside the adapters, as modules_to_save does."""
    lora_dropout: float = 0.0
    """Any dropout above 0 makes each LoRA keep its own input and a mask."""
    batch_size: int = 4
    """Rows a device takes at once."""
    sequence_length: int = 2048
    """Tokens in a row, padding included."""
    trained_tokens: int | None = None
    """Tokens of a batch with a label. Default: all but the first of each row."""
    padded: bool | None = None
    """Whether rows differ in length, so that attention gets a mask. Default: the bounds cover both."""
    precision: str = "mixed"
    """mixed: bf16 weights; full fine-tuning updates a float32 master copy, adapters are float32. autocast: full
    fine-tuning of float32 weights under bf16 autocast; adapters as in mixed. bfloat16 and float32: everything so."""
    optimizer: str | None = None
    """adamw, adamw_8bit, paged_adamw, paged_adamw_8bit, sgd or sgd_momentum. Default: adamw, for qlora
    paged_adamw_8bit. Paged states are counted as if they stayed on the device."""
    use_gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass. Default: on for full and qlora, off for lora."""
    attn_implementation: str = "sdpa"
    """sdpa, eager or flash_attention_2."""
    chunked_loss: bool = True
    """The loss of ftkit: trained positions only, 2**24 logits at a time. Otherwise logits of all positions."""
    double_quantization: bool = True
    """Quantise the scales of 4-bit weights again."""
    quantize_experts: bool = True
    """Whether the fused experts are in 4 bit too, as ftkit's QLoRA has them. Transformers' 4-bit loading alone leaves
    them as they are."""
    wide_dtype: str = "bfloat16"
    """Precision of what 4-bit loading leaves wide: embeddings, head, norms, routers. Float32 after
    prepare_model_for_kbit_training."""
    shards: int = 1
    """GPUs over which FSDP shards parameters, gradients and optimizer states."""
    device: str = "cuda"
    """cuda or cpu; they differ in kernels and in the margin."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("method", METHODS),
            ("adapter", ADAPTERS),
            ("precision", PRECISIONS),
            ("attn_implementation", ATTENTIONS),
            ("wide_dtype", ("bfloat16", "float32")),
            ("device", ("cuda", "cpu")),
        ):
            _one_of(name, getattr(self, name), allowed)
        if self.optimizer is not None:
            _one_of("optimizer", self.optimizer, tuple(MOMENTS))
        for name in ("rank", "batch_size", "sequence_length", "shards"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)!r}.")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora_dropout must be at least 0 and below 1, not {self.lora_dropout!r}.")

    @property
    def full(self) -> bool:
        return self.method == "full"

    @property
    def checkpointing(self) -> bool:
        return self.method != "lora" if self.use_gradient_checkpointing is None else self.use_gradient_checkpointing

    @property
    def optimizer_name(self) -> str:
        return self.optimizer or ("paged_adamw_8bit" if self.method == "qlora" else "adamw")


@dataclass(frozen=True)
class Estimate:
    """Predicted bytes on one device.

    Attributes:
        model: the name asked for.
        settings: the run.
        total_parameters: of the model, each once.
        total_with_buffers: with the buffers that a checkpoint holds, which DeepSeek's published totals count.
        active_parameters: that one token passes through.
        trainable_parameters: that the optimizer updates.
        components: bytes by component; where there are bounds, the middle between them.
        lower_bytes, upper_bytes: bounds of the total. They differ where the truth depends on kernels, on whether rows
            are padded, and in the margin.
        note: what to know about the model's entry.
    """

    model: str
    settings: Settings
    total_parameters: int
    total_with_buffers: int
    active_parameters: int
    trainable_parameters: int
    components: dict[str, int]
    lower_bytes: int
    upper_bytes: int
    note: str

    @property
    def total_bytes(self) -> int:
        """The sum of the components."""
        return sum(self.components.values())

    @property
    def static_bytes(self) -> int:
        """What does not depend on the batch: weights, adapters, gradients, master copies, optimizer states."""
        return sum(self.components[name] for name in STATIC)

    def to_dict(self) -> dict:
        """A JSON object; sizes in bytes."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "settings"}
        plain["settings"] = asdict(self.settings) | {
            "optimizer": self.settings.optimizer_name,
            "use_gradient_checkpointing": self.settings.checkpointing,
        }
        return plain | {"total_bytes": self.total_bytes, "static_bytes": self.static_bytes}

    def __str__(self) -> str:
        share = self.trainable_parameters / self.total_parameters
        lines = [
            f"{self.model}, {self.settings.method}: {self.total_parameters:,} parameters, "
            f"{self.trainable_parameters:,} trained ({share:.2%})",
            f"a step of {self.settings.batch_size:,} rows of {self.settings.sequence_length:,} tokens on one device:",
            *(f"  {name.replace('_', ' '):18}{size / 1e9:10.2f} GB" for name, size in self.components.items() if size),
            f"  {'total':18}{self.total_bytes / 1e9:10.2f} GB, between {self.lower_bytes / 1e9:.2f} and "
            f"{self.upper_bytes / 1e9:.2f}",
        ]
        if self.total_with_buffers != self.total_parameters:
            lines.append(f"  {self.total_with_buffers:,} with buffers, as published")
        if experts_kept_wide(self):
            lines.append("  The fused experts are not in 4 bit: loading in 4 bit quantises linear layers alone.")
        return "\n".join([*lines, *([f"  {self.note}"] if self.note else [])])


def estimate(model: str | Architecture, **settings) -> Estimate:
    """Predict the memory of a fine-tuning step on one device.

    Args:
        model: a name of the catalogue (at once, without torch), a folder, a `config.json` or a hub id (through the
            meta device), or an `Architecture`.
        settings: fields of `Settings`.

    Raises:
        ModelError: no such model; the text names the nearest known ones.
        ConfigError: a setting that is unknown or impossible.
    """
    for name in settings:
        if name not in Settings.__dataclass_fields__:
            raise ConfigError(f"estimate has no setting {name!r}.{near_matches(name, Settings.__dataclass_fields__)}")
    run = Settings(**settings)
    a = model if isinstance(model, Architecture) else architecture(model)
    _check_targets(a, run)
    parts = _static(a, run)
    low, high = _activations(a, run)
    step = _step(run, padded=True, autocast=False)
    loss, gathered = logits(a, step), _gathered(a, run)
    work = gathered + transients(a, step)
    margin = MARGIN * (sum(parts.values()) + high + loss[1] + work) + (CUDA_CONTEXT if run.device == "cuda" else 0)
    workspace = (gathered, work + margin)
    bounds = {"activations": (low, high), "logits": loss, "workspace": workspace}
    static = sum(parts.values())
    components = parts | {name: int(sum(bound) / 2) for name, bound in bounds.items()}
    return Estimate(
        model=model if isinstance(model, str) else a.model_type,
        settings=run,
        total_parameters=a.parameters,
        total_with_buffers=a.parameters + a.buffers,
        active_parameters=a.active_parameters,
        trainable_parameters=sum(numel * count for numel, count in trained_tensors(a, run)),
        components=components,
        lower_bytes=static + int(sum(bound[0] for bound in bounds.values())),
        upper_bytes=static + ceil(sum(bound[1] for bound in bounds.values())),
        note=a.note,
    )


def estimate_memory_requirements(model_name: str, batch_size: int = 4, seq_length: int = 2048) -> float:
    """GB (1e9 bytes) that QLoRA at rank 64 takes; prints the components.

    The guide's function of this name, on `estimate`: sizes come from the model's shapes, and an unknown name is an
    error.
    """
    result = estimate(model_name, method="qlora", batch_size=batch_size, sequence_length=seq_length)
    print(result)
    return result.total_bytes / 1e9


def trained_tensors(a: Architecture, run: Settings) -> Iterator[tuple[int, int]]:
    """(numbers in the tensor, how many of them) of all that the optimizer updates."""
    if run.full:
        # The indexer of DeepSeek-V3.2 runs without gradients.
        yield from ((s.numel, s.count) for s in a.shapes if s.kind != "buffer" and s.where != "indexer" and not s.tied)
        return
    for s in _adapted(a, run):
        down, up = run.rank * s.d_in * s.stack, run.rank * s.d_out * s.stack
        if run.adapter == "vera":
            yield from ((run.rank, s.count), (s.d_out, s.count))
            continue
        if run.adapter != "lora_fa":
            yield down, s.count
        yield up, s.count
        if run.adapter == "dora":
            yield s.d_out, s.count
        if run.adapter == "adalora":
            yield run.rank, s.count
    if run.train_embeddings:
        yield from ((s.numel, s.count) for s in a.shapes if s.kind in ("embedding", "head"))


def experts_kept_wide(result: Estimate) -> bool:
    """Whether 4-bit loading left the model's experts, most of its weights, as they were."""
    wide = result.active_parameters < result.total_parameters
    return wide and result.settings.method == "qlora" and not result.settings.quantize_experts


def nf4_bytes(numel: int, double_quantization: bool = True) -> int:
    """Bytes of one tensor in 4 bit: codes, and a scale for each block of 64; code tables (about 1 KB) not counted."""
    blocks = ceil(numel / 64)
    return ceil(numel / 2) + (blocks + 4 * ceil(blocks / 256) if double_quantization else 4 * blocks)


def optimizer_state_bytes(name: str, numel: int, width: int) -> int:
    """Bytes of the states of one tensor whose float states have `width` bytes a number.

    bitsandbytes keeps 8-bit states in blocks of 256 with a float32 scale each, and states of tensors below 4,096
    numbers in float32.
    """
    if not name.endswith("8bit"):
        return MOMENTS[name] * numel * width
    return MOMENTS[name] * (4 * numel if numel < 4096 else numel + 4 * ceil(numel / 256))


def _static(a: Architecture, run: Settings) -> dict[str, int]:
    base = 4 if run.precision == "float32" or (run.full and run.precision == "autocast") else 2
    trained = _width(run)
    parts = dict.fromkeys(STATIC, 0)
    wide = {"bfloat16": 2, "float32": 4}[run.wide_dtype] if run.method == "qlora" else base
    for s in a.shapes:
        if s.kind in ("embedding", "head"):
            parts["embeddings"] += s.total * wide
        elif run.method == "qlora" and _packed(s, run):
            parts["quantized_weights"] += nf4_bytes(s.numel, run.double_quantization) * s.count
        else:
            parts["weights"] += s.total * (4 if s.kind == "buffer" else wide)
    tensors = list(trained_tensors(a, run))
    numbers = sum(numel * count for numel, count in tensors)
    if not run.full:
        parts["adapters"] = numbers * trained + _frozen_adapters(a, run) * trained
    parts["gradients"] = numbers * trained
    if run.full and run.precision == "mixed":
        parts["master_weights"] = 4 * numbers
    width = 4 if run.precision == "mixed" else trained
    parts["optimizer"] = sum(optimizer_state_bytes(run.optimizer_name, n, width) * count for n, count in tensors)
    return {name: ceil(size / run.shards) for name, size in parts.items()}


def _packed(s: Shape, run: Settings) -> bool:
    """Whether 4-bit loading packs it: linear layers, but for those that transformers keeps wide by name."""
    if s.kind == "expert":
        return run.quantize_experts
    return s.kind in ("linear", "indexer") and s.name not in KEPT_WIDE


def _width(run: Settings) -> int:
    """Bytes of a trained parameter and of its gradient."""
    if run.precision == "bfloat16" or (run.full and run.precision == "mixed"):
        return 2
    return 4


def _adapted(a: Architecture, run: Settings) -> list[Shape]:
    return [s for s in a.shapes if s.adapted and (run.target_modules is None or s.name in run.target_modules)]


def _frozen_adapters(a: Architecture, run: Settings) -> int:
    """Numbers in adapters that do not train: LoRA-FA's A, VeRA's shared pair."""
    shapes = _adapted(a, run)
    if run.adapter == "lora_fa":
        return sum(run.rank * s.d_in * s.stack * s.count for s in shapes)
    if run.adapter == "vera":
        return run.rank * (max(s.d_in for s in shapes) + max(s.d_out for s in shapes))
    return 0


def _step(run: Settings, *, padded: bool, autocast: bool) -> Step:
    return Step(
        batch_size=run.batch_size,
        sequence_length=run.sequence_length,
        full=run.full,
        rank=run.rank,
        frozen_a=run.adapter == "lora_fa",
        dropout=run.lora_dropout > 0,
        compute=4 if run.precision == "float32" else 2,
        wide=_width(run),
        autocast=autocast,
        attention=run.attn_implementation,
        padded=padded,
        checkpointing=run.checkpointing,
        trained_tokens=run.trained_tokens,
        chunked=run.chunked_loss,
        cuda=run.device == "cuda",
        targets=run.target_modules,
    )


def _activations(a: Architecture, run: Settings) -> tuple[float, float]:
    """Bounds over what the settings leave open: padded rows, and autocast for adapters on a bf16 base."""
    padded = (False, True) if run.padded is None else (run.padded,)
    autocast = (run.precision == "autocast",)
    if not run.full and run.precision == "mixed":
        autocast = (False, True)
    found = [saved_for_backward(a, _step(run, padded=p, autocast=c)) for p in padded for c in autocast]
    return min(low for low, _ in found), max(high for _, high in found)


def _gathered(a: Architecture, run: Settings) -> int:
    """Weights that exist in full for a moment: a layer under FSDP, as it is stored, and a dequantised matrix."""
    matrices = [s for s in a.shapes if s.kind in ("linear", "expert")]
    number, quantized = 4 if run.precision == "float32" else 2, run.method == "qlora"

    def stored(s: Shape) -> int:
        return nf4_bytes(s.numel, run.double_quantization) if quantized and _packed(s, run) else number * s.numel

    layer = sum(s.count * stored(s) for s in matrices) // a.layers if run.shards > 1 else 0
    return layer + (number * max(s.numel for s in matrices if s.kind == "linear") if quantized else 0)


def _check_targets(a: Architecture, run: Settings) -> None:
    if run.full:
        return
    known = {s.name for s in a.shapes if s.adapted}
    for target in run.target_modules or ():
        if target not in known:
            raise ConfigError(
                f"target_modules names {target!r}; this model's are {', '.join(sorted(known))}."
                f"{near_matches(target, known)}"
            )
    if run.adapter != "lora" and any(s.adapted == "parameter" for s in _adapted(a, run)):
        raise ConfigError(
            f"adapter={run.adapter!r} cannot be put on this model's experts; use adapter='lora', or name its attention "
            "layers as target_modules."
        )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.{near_matches(value, allowed)}")
