r"""LoRA-FA: LoRA whose A stays as it was drawn.

Zhang et al., *LoRA-FA: Memory-efficient Low-rank Adaptation for Large Language Models Fine-tuning*, arXiv 2308.03303.
The backward pass then keeps :math:`A x`, r numbers a token, where LoRA keeps x, d_in numbers.
"""

from typing import TYPE_CHECKING

from ftkit.methods.lora import attach_lora

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def attach_lora_fa(model: "PreTrainedModel", **arguments) -> "PeftModel":
    """LoRA with every A frozen; arguments as for `attach_lora`, without dropout.

    All A are frozen, not some: q, k and v read one x, which is kept for any one of them whose A still trains. Nothing
    is saved on fused experts, where PEFT computes W + BA. PEFT's `create_lorafa_optimizer` freezes the same and
    changes the gradient of B besides; here the optimizer stays AdamW.
    """
    adapted = attach_lora(model, **arguments)
    for name, parameter in adapted.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    return adapted
