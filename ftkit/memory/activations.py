r"""Bytes that a training step keeps between its forward and its backward pass, by kind of layer.

Autograd saves what each operation's derivative needs, and each storage once. With :math:`T` tokens (batch x sequence,
padding included), :math:`c` bytes a number in the compute precision and widths in numbers, a dense layer keeps

- for each norm its input in float32 and one number a row; its normalised input too where its weight trains;
- for the linear layers that share an input: that input, once, where their weights train or LoRA stands beside them in
  the same precision; a copy *for each* of them where LoRA is in another precision, or under autocast;
- for each LoRA the :math:`r` numbers of :math:`Ax`;
- for attention the queries, keys, values and output; with fused kernels one number a head and row and, where a mask is
  given, the mask in the compute precision, with keys and values repeated for every query head; without fused kernels
  the :math:`H S` attention weights of each token;
- for the gated MLP its two halves, the activated gate and their product.

A frozen linear layer keeps nothing. That is why LoRA saves little here, and why it can cost more than full fine-tuning
where its precision differs from the base's.
"""

from dataclasses import dataclass

from ftkit.memory.shapes import Architecture, Shape

MIXED = 1.15, 0.95
"""Factors to the upper and lower bound where layers have experts or latent attention: their kernels differ more."""
CHUNK_LOGITS = 2**24
"""Logits that exist at once under the chunked loss; `ftkit.loss` has the same constant."""


@dataclass(frozen=True)
class Step:
    """One forward and backward pass, with nothing left open.

    Attributes:
        batch_size, sequence_length: of the padded batch.
        full: all weights train; otherwise LoRA stands on a frozen base.
        rank: of LoRA.
        frozen_a: LoRA-FA: A does not train.
        dropout: LoRA has dropout.
        compute: bytes of a number that a linear layer returns: 4, or 2 for bfloat16 and float16.
        wide: bytes of a LoRA parameter.
        autocast: linear layers run in 2 bytes under torch.autocast, on weights (full) or adapters (LoRA) of 4 bytes.
        attention: "sdpa", "eager" or "flash_attention_2".
        padded: some rows are shorter than the batch is wide, so attention gets a mask.
        checkpointing: each layer keeps its input alone and runs again in the backward pass.
        trained_tokens: positions with a label; None is all but the first of each row.
        chunked: the loss of `ftkit.loss`; otherwise logits of all positions.
        cuda: on a GPU; the CPU's kernels differ for latent attention and dropout.
        targets: names of the adapted layers; None is all that the family's table names.
    """

    batch_size: int
    sequence_length: int
    full: bool
    rank: int = 0
    frozen_a: bool = False
    dropout: bool = False
    compute: int = 2
    wide: int = 4
    autocast: bool = False
    attention: str = "sdpa"
    padded: bool = True
    checkpointing: bool = False
    trained_tokens: int | None = None
    chunked: bool = True
    cuda: bool = True
    targets: tuple[str, ...] | None = None

    @property
    def tokens(self) -> int:
        return self.batch_size * self.sequence_length

    @property
    def labels(self) -> int:
        return self.batch_size * (self.sequence_length - 1) if self.trained_tokens is None else self.trained_tokens

    @property
    def residual(self) -> int:
        """Bytes of a number in the residual stream."""
        return 4 if self.full and self.autocast else self.compute

    def adapts(self, shape: Shape) -> bool:
        return not self.full and bool(shape.adapted) and (self.targets is None or shape.name in self.targets)


def saved_for_backward(a: Architecture, step: Step) -> tuple[float, float]:
    """Lower and upper bound, in bytes, of what a forward pass leaves for the backward pass, without logits.

    With checkpointing: the layers' inputs and the largest layer, which is recomputed while they are all there.
    """
    kinds = [kind for kind in _kinds(a, step) if kind[-1]]
    layers = [_layer(a, step, moe, masked) for moe, masked, _ in kinds]
    counts = [count for _, _, count in kinds]
    if step.checkpointing:
        layered = checkpoints(a, step) + max(layers) + _made_anew(a, step) / a.layers
    else:
        layered = sum(bytes_ * count for bytes_, count in zip(layers, counts, strict=True)) + _made_anew(a, step)
        if not step.full:
            layered -= step.tokens * _without_gradient(a, step)
    total = layered + outside(a, step)
    if a.moe_layers or a.kv_rank:
        return total * MIXED[1], total * MIXED[0]
    return total, total


def checkpoints(a: Architecture, step: Step) -> int:
    """Bytes of the layers' inputs, which are all that checkpointing keeps of them."""
    return a.layers * a.hidden * step.residual * step.tokens


def transients(a: Architecture, step: Step) -> int:
    """Bytes of gradients that exist at once in the backward pass, at most: those of the activations of one MLP, and of
    one weight that LoRA adapts as a parameter."""
    rows = a.experts if a.model_type.startswith("llama4") else max(1, a.top_k)
    widest = max(a.ffn, a.shared_ffn, rows * a.moe_ffn)
    made_anew = max((s.numel for s in a.shapes if s.adapted == "parameter" and step.adapts(s)), default=0)
    activations = step.tokens * max(step.compute, 0 if step.full else step.wide) * (3 * widest + 2 * rows * a.hidden)
    return activations + made_anew * step.compute


def logits(a: Architecture, step: Step) -> tuple[float, float]:
    """Lower and upper bound, in bytes, of logits and what is made of them at the peak of the loss.

    The plain loss holds the log-softmax and its gradient, both float32, together; the upper bound adds the logits
    themselves and their float32 copy, which a fused cross-entropy avoids. The chunked loss turns one chunk's float32
    logits into their own gradient; in half precision logits and gradient exist beside them. Where such a head trains,
    its gradient is summed in float32 and a chunk's part of it stands beside the sum.
    """
    half = step.compute < 4
    if not step.chunked:
        rows = step.tokens
        return rows * a.vocabulary * 8, rows * a.vocabulary * (8 + (step.compute + 4 if half else 4))
    rows = _chunk(a, step)
    head = a.vocabulary * a.hidden * 6 if half and step.full else 0
    return rows * a.vocabulary * 4, rows * a.vocabulary * (4 + (2 * step.compute if half else 0)) + head


def logits_saved(a: Architecture, step: Step) -> int:
    """What the loss leaves for the backward pass.

    The plain loss: the log-softmax in float32. The chunked one: the gradient of the hidden states at trained positions
    and their indices and, where the head trains, its gradient in float32.
    """
    if not step.chunked:
        return step.tokens * (a.vocabulary * 4 + 8)
    head = a.vocabulary * a.hidden * 4 if step.full else 0
    return step.labels * (a.hidden * step.residual + 8) + head


def _chunk(a: Architecture, step: Step) -> int:
    """Trained positions whose logits exist at once."""
    return min(step.labels, max(1, CHUNK_LOGITS // a.vocabulary))


def _kinds(a: Architecture, step: Step) -> list[tuple[bool, bool, int]]:
    """(has experts, gets an attention mask, number of such layers)."""
    sliding = a.sliding_layers if step.sequence_length >= a.sliding_window else 0
    masked = a.layers if step.padded or a.model_type == "deepseek_v32" else sliding
    if a.moe_layers:  # no family has experts and windows of which only some need a mask
        return [(False, masked > 0, a.layers - a.moe_layers), (True, masked > 0, a.moe_layers)]
    return [(False, True, masked), (False, False, a.layers - masked)]


def _layer(a: Architecture, step: Step, moe: bool, masked: bool) -> float:
    h = a.hidden
    # Norms in front of attention and MLP; Gemma has one behind each as well.
    total = (4 if a.sandwich else 2) * _norm(a, step, h, 1, step.residual)
    attention = [s for s in a.shapes if s.where == "attention" and s.kind == "linear"]
    total += _attention(a, step, attention, masked)
    if moe:
        total += _experts(a, step)
    else:
        total += _mlp(a, step, [s for s in a.shapes if s.where == "mlp"], a.ffn)
    return total * step.tokens


def _norm(a: Architecture, step: Step, width: int, rows: int, given: int) -> int:
    """Bytes a token of a norm over `rows` vectors of `width` numbers of `given` bytes; 0 where it has no weight."""
    scaled = 4 if a.norm == "gemma" and given else given
    return rows * (4 * width + 4 + (scaled * width if step.full else 0))


def _inputs(step: Step, shapes: list[Shape], width: int, *, normed: bool, kept: bool = False) -> int:
    """Bytes a token of the input of `width` numbers that the layers `shapes` share.

    `normed`: it comes from a norm, in the precision of the residual stream. `kept`: the operation that made it keeps
    it anyway, so that only copies count.
    """
    if step.full:
        if step.autocast and normed:  # one copy for each layer: autocast remembers its copies of weights alone
            return 2 * width * len(shapes)
        return 0 if kept else step.compute * width
    beside = [s for s in shapes if step.adapts(s) and s.adapted == "module"]
    on_weight = any(step.adapts(s) and s.adapted == "parameter" for s in shapes)
    number = 2 if step.autocast else step.wide
    total = len(beside) * step.rank * number
    shared = step.compute * width * (not kept)
    if step.dropout:
        total += len(beside) * width * (1 if step.cuda else number)
    if beside and not step.frozen_a:
        copies = step.dropout or step.autocast or step.wide != step.compute
        total += len(beside) * width * number if copies else shared
        shared = shared if copies else 0
    return total + (shared if on_weight else 0)


def _attention(a: Architecture, step: Step, shapes: list[Shape], masked: bool) -> int:
    c, heads = step.compute, a.heads
    entry = [s for s in shapes if s.d_in == a.hidden and s.name != "o_proj"]
    total = _inputs(step, entry, a.hidden, normed=True)
    if a.kv_rank:
        q_b, kv_b = ([s for s in shapes if s.name == name] for name in ("q_b_proj", "kv_b_proj"))
        if a.q_rank:
            total += _norm(a, step, a.q_rank, 1, c) + _inputs(step, q_b, a.q_rank, normed=True)
        # In float32 the norm keeps its input's storage, in which the rotary keys stand as well.
        total += _norm(a, step, a.kv_rank, 1, c) + (4 * a.rope_dim if c == 4 else 0)
        total += _inputs(step, kv_b, a.kv_rank, normed=True)
    elif a.qk_norm:
        weighted = any(s.name == "q_norm" for s in a.shapes)  # Llama 4's has no weight
        total += _norm(a, step, a.head_dim, heads + a.kv_heads, c if weighted else 0)
    unfused = step.attention == "eager" or (step.attention == "sdpa" and a.head_dim != a.v_head_dim and not step.cuda)
    repeated = step.attention == "eager" or (step.attention == "sdpa" and masked)
    kv_heads = heads if repeated else a.kv_heads
    total += c * (heads * a.head_dim + kv_heads * (a.head_dim + a.v_head_dim))
    out = [s for s in shapes if s.name == "o_proj"]
    if unfused:
        total += step.sequence_length * heads * (4 + c if c < 4 else 4)
        return total + _inputs(step, out, heads * a.v_head_dim, normed=False)
    total += 4 * heads + c * heads * a.v_head_dim
    if masked and step.attention == "sdpa":
        total += c * step.sequence_length
    return total + _inputs(step, out, heads * a.v_head_dim, normed=False, kept=True)


def _mlp(a: Architecture, step: Step, shapes: list[Shape], width: int) -> int:
    down = [s for s in shapes if s.name == "down_proj"]
    entry = [s for s in shapes if s.name in ("gate_proj", "up_proj")]
    total = _inputs(step, entry, a.hidden, normed=True) + 3 * width * step.compute
    return total + _inputs(step, down, width, normed=False)


def _experts(a: Architecture, step: Step) -> int:
    """Each of the chosen experts' rows: the gathered input, both halves, activated gate, product and output.

    Llama 4 sends every token through every expert, most of them multiplied by zero.
    """
    shared = [s for s in a.shapes if s.where == "shared"]
    rows = a.experts if a.model_type.startswith("llama4") else a.top_k
    total = rows * (2 * a.hidden + 4 * a.moe_ffn) * step.compute + 40 * a.top_k + 4 * a.experts
    if shared:
        total += _mlp(a, step, shared, a.shared_ffn)
    elif step.full:
        total += step.compute * a.hidden  # the router's
    if step.full and step.compute < 4 and a.model_type.startswith("deepseek"):
        total += 4 * a.hidden  # routed in float32
    return total


def _without_gradient(a: Architecture, step: Step) -> int:
    """Bytes a token that the first layer does not keep: nothing in front of its first LoRA has a gradient."""
    first = [s for s in a.shapes if s.where == "attention" and s.d_in == a.hidden and s.name != "o_proj"]
    masks = sum(step.adapts(s) and s.adapted == "module" for s in first) if step.dropout else 0
    return 4 * a.hidden + 4 + masks * a.hidden * (1 if step.cuda else 2 if step.autocast else step.wide)


def _made_anew(a: Architecture, step: Step) -> int:
    """W + BA of the weights that LoRA adapts as parameters: kept for the backward pass, whatever the batch."""
    return sum(s.total for s in a.shapes if s.adapted == "parameter" and step.adapts(s)) * step.compute


def outside(a: Architecture, step: Step) -> int:
    """Bytes kept outside the layers: final norm, rotary tables, ids, the head's input; autocast's copies of weights."""
    total = step.tokens * _norm(a, step, a.hidden, 1, step.residual)
    rope = a.rope_dim or a.head_dim
    total += 2 * step.sequence_length * rope * step.residual * (2 if a.sliding_layers else 1)
    if step.full:
        total += 8 * step.tokens  # the embedding keeps the ids
        total += step.labels * a.hidden * (2 if step.autocast else step.compute)  # the head's input
    if a.norm == "gemma":
        total += 4 * a.count("vector")  # 1 + weight
    if step.autocast:
        total += 2 * autocast_numbers(a, step)
    return total


def autocast_numbers(a: Architecture, step: Step) -> int:
    """Numbers of the parameters of which autocast keeps a copy in 2 bytes through forward and backward pass."""
    if step.full:
        head = next(s for s in a.shapes if s.kind == "head")
        return a.count("linear", "expert") + head.numel
    return sum(
        s.count * s.stack * step.rank * (s.d_in + s.d_out) for s in a.shapes if s.adapted == "module" and step.adapts(s)
    )
