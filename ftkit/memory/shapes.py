"""A model as the estimator sees it: the shapes of its matrices and the facts that decide what a step keeps.

Nothing here imports torch: an `Architecture` is read from the catalogue, or made from a configuration by
`ftkit.memory.describe`.
"""

from dataclasses import asdict, dataclass, field

KINDS = ("embedding", "head", "linear", "expert", "router", "indexer", "vector", "buffer")


@dataclass(frozen=True)
class Shape:
    """`count` tensors of one kind, name and size.

    Attributes:
        kind: one of `KINDS`. A `linear` is an `nn.Linear`, which 4-bit loading quantises; an `expert` is a fused 3-D
            parameter, which it leaves as it is; an `indexer` is a linear layer of DeepSeek-V3.2's indexer, which runs
            without gradients; a `vector` is a norm's weight or a bias; a `buffer` is saved but is no parameter.
        name: last part of the module's name, such as `q_proj`.
        d_in, d_out: width of the input and output; a vector has d_in 1.
        count: tensors of this shape in the model.
        stack: matrices in one tensor: the number of experts in a fused parameter, 1 elsewhere.
        adapted: how the family's table puts LoRA there: beside the layer ("module"), on the weight ("parameter", where
            PEFT makes W + BA anew in each forward), or not at all ("").
        where: "attention", "indexer", "mlp" (of dense layers), "moe", "shared" (the expert of every token) or "".
        tied: a head that is the embedding's own tensor; it adds no parameters.
    """

    kind: str
    name: str
    d_in: int
    d_out: int
    count: int
    stack: int = 1
    adapted: str = ""
    where: str = ""
    tied: bool = False

    @property
    def numel(self) -> int:
        """Numbers in one tensor."""
        return self.d_in * self.d_out * self.stack

    @property
    def total(self) -> int:
        """Numbers in all tensors; 0 for a tied head."""
        return 0 if self.tied else self.numel * self.count


@dataclass(frozen=True)
class Architecture:
    """The decoder of a causal language model.

    Attributes:
        model_type: transformers' name of the architecture.
        shapes: every tensor of the model, grouped.
        hidden: width of the residual stream.
        layers: decoder layers, dense and mixture of experts together.
        heads, kv_heads: query heads, and key and value heads.
        head_dim, v_head_dim: width of a query or key head and of a value head; they differ under latent attention.
        rope_dim: width of the rotary part of a head under latent attention, 0 elsewhere.
        q_rank, kv_rank: widths of the latents of latent attention, 0 elsewhere.
        qk_norm: norms on queries and keys of each head.
        norm: "llama" scales in the model's precision, "gemma" in float32 by 1 + weight.
        sandwich: norms also behind attention and MLP, as in Gemma.
        sliding_layers, sliding_window: layers that see only so many positions back, and how many.
        ffn: width of a dense layer's MLP.
        moe_layers: layers with routed experts.
        experts, top_k, moe_ffn, shared_ffn: their number, how many see a token, their width, the shared one's width.
        note: what a reader must know.
    """

    model_type: str
    shapes: tuple[Shape, ...]
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    ffn: int
    rope_dim: int = 0
    q_rank: int = 0
    kv_rank: int = 0
    qk_norm: bool = False
    norm: str = "llama"
    sandwich: bool = False
    sliding_layers: int = 0
    sliding_window: int = 0
    moe_layers: int = 0
    experts: int = 0
    top_k: int = 0
    moe_ffn: int = 0
    shared_ffn: int = 0
    note: str = field(default="", compare=False)

    @property
    def vocabulary(self) -> int:
        return next(s.d_in for s in self.shapes if s.kind == "embedding")

    @property
    def parameters(self) -> int:
        """All parameters, each once: a tied head adds none."""
        return self.count(*(kind for kind in KINDS if kind != "buffer"))

    @property
    def buffers(self) -> int:
        """Numbers that a checkpoint holds beside the parameters: DeepSeek's published totals count them."""
        return self.count("buffer")

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes through: of routed experts only the `top_k` chosen ones."""
        expert = self.count("expert")
        return self.parameters - expert + (expert * self.top_k // self.experts if expert else 0)

    def count(self, *kinds: str) -> int:
        """Numbers in all tensors of these kinds."""
        return sum(s.total for s in self.shapes if s.kind in kinds)

    def to_dict(self) -> dict:
        """A JSON object without the fields that hold their default."""
        plain = asdict(self)
        plain["shapes"] = [_without_defaults(shape, Shape) for shape in plain["shapes"]]
        return _without_defaults(plain, Architecture)

    @classmethod
    def from_dict(cls, plain: dict) -> "Architecture":
        return cls(**{**plain, "shapes": tuple(Shape(**shape) for shape in plain["shapes"])})


def _without_defaults(plain: dict, cls: type) -> dict:
    return {key: value for key, value in plain.items() if value != getattr(cls, key, None)}
