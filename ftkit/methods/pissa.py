r"""PiSSA: LoRA that starts from the largest singular values of the weight.

Meng, Wang and Zhang, arXiv 2404.02948: :math:`W = U S V^\top`; A and B start as the r largest singular values with
their vectors, and the frozen base becomes the residual :math:`W - s B_0 A_0`. What is saved is the change,
:math:`s (B A - B_0 A_0)`, so that it fits the original base.
"""

from typing import TYPE_CHECKING

import torch

from ftkit.errors import ConfigError
from ftkit.methods import rank_2r
from ftkit.methods.adapter import Adapter
from ftkit.methods.lora import attach_lora

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PiSSA(Adapter):
    """LoRA on `model`, initialised with principal singular values; arguments as for `attach_lora`.

    PEFT's own `init_lora_weights="pissa"` gives the same in float32. Under a narrower base it rounds A and B to the
    base's precision after it has formed the residual, so that the model no longer starts as the base; here the
    residual is rounded, once.

    Raises:
        ConfigError: a target has fewer singular values than r.
    """

    @torch.no_grad()
    def __init__(self, model: "PreTrainedModel", **arguments) -> None:
        super().__init__(attach_lora(model, **arguments))
        self.start: dict[str, rank_2r.Factors] = {}
        for name, layer in rank_2r.lora_layers(self.model).items():
            A, B = rank_2r.factors(layer)
            weight = layer.get_base_layer().weight
            if len(A) > min(weight.shape):
                raise ConfigError(
                    f"PiSSA takes r={len(A)} singular values, and {name} has {min(weight.shape)}; lower r to that."
                )
            U, S, Vh = torch.linalg.svd(weight.float(), full_matrices=False)
            root = (S[: len(A)] / rank_2r.scaling(layer)).sqrt()
            A.copy_(root[:, None] * Vh[: len(A)])
            B.copy_(U[:, : len(A)] * root)
            weight.copy_(weight.float() - rank_2r.scaling(layer) * B @ A)
            self.start[name] = (A.clone(), B.clone())

    def write(self, folder: str, state_dict: dict | None) -> None:
        rank_2r.save(self.model, folder, lambda name, now: (now, self.start[name]), state_dict)
