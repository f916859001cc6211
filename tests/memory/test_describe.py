"""Models with layers that the estimator does not know are refused in a sentence."""

import pytest
from transformers import JetMoeConfig, Lfm2Config, Qwen3NextConfig

from ftkit.errors import UnknownLayout
from ftkit.memory.estimator import estimate

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
LFM2 = Lfm2Config(**SMALL, layer_types=["conv", "full_attention"])
QWEN3_NEXT = Qwen3NextConfig(
    **SMALL,
    layer_types=["linear_attention", "full_attention"],
    head_dim=16,
    moe_intermediate_size=16,
    shared_expert_intermediate_size=16,
    num_experts=4,
    num_experts_per_tok=2,
)
JETMOE = JetMoeConfig(**SMALL, kv_channels=16, num_local_experts=4, num_experts_per_tok=2)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (LFM2, "conv.conv.weight belongs to a convolution"),
        (QWEN3_NEXT, "conv1d.weight belongs to a convolution"),
        (JETMOE, "'jetmoe' holds its experts as weight"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_convolutions_and_other_experts_are_refused_and_no_expert_is_guessed(config, says, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(UnknownLayout) as error:
        estimate(str(tmp_path))
    assert says in str(error.value) and "Did you mean" not in str(error.value)
