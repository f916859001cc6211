"""Tiny random models of every family: the real architecture and chat format at tens of thousands of parameters.

Each is built from transformers' own configuration class, so that what breaks on a family's layout (fused experts,
routers, latent attention, tied embeddings, a vision tower) breaks here within seconds. Weights are random: nothing
these models say means anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftkit.models import templates

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

POSITIONS = 2048  # longest row, in tokens; one token is one byte
# A random layer keeps the size of its input when its weights have std 1/sqrt(width). The usual 0.02 does so near width
# 2,500; at width 32 it would leave logits within 0.1 of each other and attention uniform, and a test on such a model
# would see little of an error. 0.1 gives logits that differ and gradients that reach every layer.
INIT_STD = 0.1


@dataclass(frozen=True)
class TinySpec:
    """One tiny model: its configuration and the tokens of its family's real tokenizer."""

    config: Callable[..., "PreTrainedConfig"]  # (token_id: Callable[[str], int], **common) -> configuration
    special_tokens: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str
    chat_template: str
    adds_bos: bool  # whether encoding with add_special_tokens=True puts `bos` in front
    stops: tuple[str, ...]  # eos ids of the generation configuration
    plain_tokens: tuple[str, ...] = ()  # single tokens that decoding with skip_special_tokens=True keeps


def _llama3(token_id, **common):
    from transformers import LlamaConfig

    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    return LlamaConfig(num_hidden_layers=2, tie_word_embeddings=False, rope_parameters=rope, **common)


def _smollm(token_id, **common):
    from transformers import LlamaConfig

    # Three query heads to a key head, as in SmolLM2-135M (9 to 3).
    common |= {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 100_000.0}
    return LlamaConfig(num_hidden_layers=2, tie_word_embeddings=True, rope_parameters=rope, **common)


def _llama4(token_id, **common):
    from transformers import Llama4TextConfig

    # Dense and expert layers take turns (experts in layers 1 and 3), and layer 3 has no rotary embedding.
    return Llama4TextConfig(
        num_hidden_layers=4,
        interleave_moe_layer_step=2,
        num_local_experts=4,
        num_experts_per_tok=1,
        head_dim=8,
        tie_word_embeddings=False,
        **(common | {"intermediate_size": 16, "intermediate_size_mlp": 64}),
    )


def _qwen3(token_id, **common):
    from transformers import Qwen3Config

    # head_dim is not hidden_size / heads, as in Qwen3-0.6B.
    return Qwen3Config(num_hidden_layers=2, head_dim=16, tie_word_embeddings=False, **common)


def _qwen3_moe(token_id, **common):
    from transformers import Qwen3MoeConfig

    return Qwen3MoeConfig(
        num_hidden_layers=2,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        norm_topk_prob=True,
        tie_word_embeddings=False,
        **common,
    )


def _deepseek(common: dict) -> dict:
    """Multi-head latent attention; one dense layer, then layers with two groups of routed and one shared expert."""
    return common | {
        "num_hidden_layers": 3,
        "first_k_dense_replace": 1,
        "num_key_value_heads": common["num_attention_heads"],
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "tie_word_embeddings": False,
    }


def _deepseek_v3(token_id, **common):
    from transformers import DeepseekV3Config

    return DeepseekV3Config(num_mtp_layers=0, **_deepseek(common))


def _deepseek_v32(token_id, **common):
    from transformers import DeepseekV32Config

    # The indexer keeps 64 positions, so attention is sparse on longer rows.
    return DeepseekV32Config(index_topk=64, index_head_dim=16, index_n_heads=2, **_deepseek(common))


def _gemma3(token_id, **common):
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        num_hidden_layers=4,
        layer_types=["sliding_attention", "full_attention"] * 2,
        sliding_window=64,
        head_dim=8,
        query_pre_attn_scalar=8,
        tie_word_embeddings=True,
        **common,
    )


def _gemma3_vision(token_id, **common):
    from transformers import Gemma3Config, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
        vision_use_head=False,
    )
    return Gemma3Config(
        text_config=_gemma3(token_id, **common),
        vision_config=vision,
        mm_tokens_per_image=4,
        boi_token_index=token_id("<start_of_image>"),
        eoi_token_index=token_id("<end_of_image>"),
        image_token_index=token_id("<image_soft_token>"),
        tie_word_embeddings=True,
        **{key: common[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")},
    )


_QWEN = dict(
    special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    plain_tokens=("<think>", "</think>"),
    bos=None,
    eos="<|im_end|>",
    pad="<|endoftext|>",
    chat_template=templates.QWEN3,
    adds_bos=False,
    stops=("<|im_end|>", "<|endoftext|>"),
)
_DEEPSEEK = dict(
    special_tokens=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    plain_tokens=("<think>", "</think>"),
    bos="<｜begin▁of▁sentence｜>",
    eos="<｜end▁of▁sentence｜>",
    pad="<｜end▁of▁sentence｜>",
    adds_bos=True,
    stops=("<｜end▁of▁sentence｜>",),
)
_GEMMA = dict(
    special_tokens=(
        *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    ),
    bos="<bos>",
    eos="<eos>",
    pad="<pad>",
    chat_template=templates.GEMMA3,
    adds_bos=True,
    stops=("<eos>", "<end_of_turn>"),
)
TINY: dict[str, TinySpec] = {
    "tiny-llama3": TinySpec(
        config=_llama3,
        special_tokens=(
            *("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>"),
            *("<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"),
        ),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        pad="<|finetune_right_pad_id|>",
        chat_template=templates.LLAMA3,
        adds_bos=True,
        stops=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    ),
    "tiny-llama4": TinySpec(
        config=_llama4,
        special_tokens=(
            *("<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>"),
            *("<|eom|>", "<|eot|>", "<|finetune_right_pad|>"),
        ),
        bos="<|begin_of_text|>",
        eos="<|eot|>",
        pad="<|finetune_right_pad|>",
        chat_template=templates.LLAMA4,
        adds_bos=True,
        stops=("<|end_of_text|>", "<|eom|>", "<|eot|>"),
    ),
    "tiny-qwen3": TinySpec(config=_qwen3, **_QWEN),
    "tiny-qwen3-moe": TinySpec(config=_qwen3_moe, **_QWEN),
    "tiny-deepseek-v3": TinySpec(config=_deepseek_v3, chat_template=templates.DEEPSEEK_V3, **_DEEPSEEK),
    "tiny-deepseek-v3.2": TinySpec(config=_deepseek_v32, chat_template=templates.DEEPSEEK_V32, **_DEEPSEEK),
    "tiny-gemma3": TinySpec(config=_gemma3, **_GEMMA),
    "tiny-gemma3-vision": TinySpec(config=_gemma3_vision, **_GEMMA),
    "tiny-smollm": TinySpec(
        config=_smollm,
        special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        bos="<|im_start|>",
        eos="<|im_end|>",
        pad="<|im_end|>",
        chat_template=templates.SMOLLM,
        adds_bos=False,
        stops=("<|im_end|>",),
    ),
}


def build_tokenizer(name: str) -> "PreTrainedTokenizerFast":
    """The tokenizer of tiny model `name`: id 0..255 is that byte, the family's own tokens follow from 256.

    There are no merges, so decoding the ids of any Unicode text gives the text back.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spec = TINY[name]
    backend = Tokenizer(models.BPE(vocab={char: byte for byte, char in bytes_to_unicode().items()}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in spec.special_tokens])
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in spec.plain_tokens])
    if spec.adds_bos:
        backend.post_processor = processors.TemplateProcessing(
            single=[spec.bos, "$A"],
            pair=[spec.bos, "$A", f"{spec.bos}:1", "$B:1"],
            special_tokens=[(spec.bos, backend.token_to_id(spec.bos))],
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=spec.bos,
        eos_token=spec.eos,
        pad_token=spec.pad,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = spec.chat_template
    return tokenizer


def build_config(name: str, tokenizer: "PreTrainedTokenizerFast | None" = None) -> "PreTrainedConfig":
    """The configuration of tiny model `name`."""
    tokenizer = tokenizer or build_tokenizer(name)
    return TINY[name].config(
        tokenizer.convert_tokens_to_ids,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        initializer_range=INIT_STD,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build(name: str, *, attn_implementation: str, seed: int) -> tuple["PreTrainedModel", "PreTrainedTokenizerFast"]:
    """Tiny model `name` in float32 on the CPU, in evaluation mode, and its tokenizer.

    The same `seed` gives the same weights; the state of torch's global generator is left as it was.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    spec = TINY[name]
    tokenizer = build_tokenizer(name)
    config = build_config(name, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attn_implementation)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.convert_tokens_to_ids(stop) for stop in spec.stops],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.name_or_path = name  # where an adapter that is trained on it finds its base again
    return model.eval(), tokenizer
