"""Trained-parameter counts that papers and libraries print, to be recomputed from configurations without weights.

One table serves the tests and the book's page: each row holds what was printed, where, and the exact number.
"""

from dataclasses import dataclass
from functools import cache

from ftkit.methods.registry import trained_numbers

ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
ALL, QV, DORA = ATTENTION + MLP, ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Published:
    """One printed count.

    Attributes:
        source: key of the book's bibliography.
        model, targets, method: what is adapted, and how; "ia3" and "full" are no methods of ftkit.
        r: rank; of AdaLoRA the one it starts with.
        printed: as it stands there, such as "4.7M" or "9,175,040"; empty where the source prints none.
        numbers: the exact count.
        slip: where the two differ, what explains it.
    """

    source: str
    model: str
    targets: tuple[str, ...]
    method: str
    r: int
    printed: str
    numbers: int
    slip: str = ""


_VERA = "L (d + 128 r) instead of L (d + r) gives this number"
_PREFIX = "equals the number of the same table's prefix-tuning row"
COUNTS = (
    Published("hu2022lora", "GPT-3", QV, "lora", 1, "4.7M", 4_718_592),
    Published("hu2022lora", "GPT-3", QV, "lora", 2, "", 9_437_184),
    Published("hu2022lora", "GPT-3", QV, "lora", 4, "", 18_874_368),
    Published("hu2022lora", "GPT-3", QV, "lora", 8, "37.7M", 37_748_736),
    Published("hu2022lora", "GPT-3", QV, "lora", 64, "", 301_989_888),
    Published("hu2022lora", "RoBERTa base", QV, "lora", 8, "0.3M", 294_912),
    Published("hu2022lora", "RoBERTa large", QV, "lora", 8, "0.8M", 786_432),
    Published("hu2022lora", "DeBERTa XXL", QV, "lora", 16, "4.7M", 4_718_592),
    Published("hu2022lora", "GPT-2 M", QV, "lora", 4, "0.35M", 393_216, _PREFIX),
    Published("hu2022lora", "GPT-2 L", QV, "lora", 4, "0.77M", 737_280, _PREFIX),
    Published("kopiczko2024vera", "RoBERTa base", QV, "lora", 1, "36.8K", 36_864),
    Published("kopiczko2024vera", "RoBERTa base", QV, "lora", 16, "589.8K", 589_824),
    Published("kopiczko2024vera", "RoBERTa base", QV, "lora", 256, "9437.1K", 9_437_184),
    Published("kopiczko2024vera", "RoBERTa base", QV, "vera", 1, "18.4K", 18_456),
    Published("kopiczko2024vera", "RoBERTa base", QV, "vera", 16, "18.8K", 18_816),
    Published("kopiczko2024vera", "RoBERTa base", QV, "vera", 256, "24.5K", 24_576),
    Published("kopiczko2024vera", "RoBERTa large", QV, "lora", 1, "98.3K", 98_304),
    Published("kopiczko2024vera", "RoBERTa large", QV, "lora", 16, "1572.8K", 1_572_864),
    Published("kopiczko2024vera", "RoBERTa large", QV, "lora", 256, "25165.8K", 25_165_824),
    Published("kopiczko2024vera", "RoBERTa large", QV, "vera", 1, "49.2K", 49_200),
    Published("kopiczko2024vera", "RoBERTa large", QV, "vera", 16, "49.5K", 49_920, "unexplained"),
    Published("kopiczko2024vera", "RoBERTa large", QV, "vera", 256, "61.4K", 61_440),
    Published("kopiczko2024vera", "GPT-3", QV, "lora", 1, "4.7M", 4_718_592),
    Published("kopiczko2024vera", "GPT-3", QV, "lora", 16, "75.5M", 75_497_472),
    Published("kopiczko2024vera", "GPT-3", QV, "lora", 256, "1207.9M", 1_207_959_552),
    Published("kopiczko2024vera", "GPT-3", QV, "vera", 1, "2.4M", 2_359_488),
    Published("kopiczko2024vera", "GPT-3", QV, "vera", 16, "2.8M", 2_362_368, _VERA),
    Published("kopiczko2024vera", "GPT-3", QV, "vera", 256, "8.7M", 2_408_448, _VERA),
    Published("kopiczko2024vera", "LLaMA 7B", ALL, "lora", 64, "159.9M", 159_907_840),
    Published("kopiczko2024vera", "LLaMA 13B", ALL, "lora", 64, "250.3M", 250_347_520),
    Published("kopiczko2024vera", "LLaMA 7B", ALL, "vera", 1024, "1.6M", 1_589_248),
    Published("kopiczko2024vera", "LLaMA 13B", ALL, "vera", 1024, "2.4M", 2_416_640),
    Published("kopiczko2024vera", "LLaMA 7B", ALL, "vera", 256, "1.4M", 1_417_216),
    Published("liu2024dora", "LLaMA 7B", DORA, "lora", 32, "", 56_098_816),
    Published("liu2024dora", "LLaMA 7B", DORA, "dora", 32, "", 56_975_360),
    Published("liu2024dora", "LLaMA 7B", DORA, "dora", 16, "", 28_925_952),
    Published("peftcomparison", "Llama 3.2 3B", (), "full", 0, "3,212,749,824", 3_212_749_824),
    Published("peftcomparison", "Llama 3.2 3B", QV, "lora", 32, "9,175,040", 9_175_040),
    Published("peftcomparison", "Llama 3.2 3B", QV, "lora", 64, "18,350,080", 18_350_080),
    Published("peftcomparison", "Llama 3.2 3B", QV, "rslora", 64, "18,350,080", 18_350_080),
    Published("peftcomparison", "Llama 3.2 3B", MLP, "lora", 10, "9,461,760", 9_461_760),
    Published("peftcomparison", "Llama 3.2 3B", QV, "dora", 32, "9,289,728", 9_289_728),
    Published("peftcomparison", "Llama 3.2 3B", QV, "lora-fa", 32, "3,670,016", 3_670_016),
    Published("peftcomparison", "Llama 3.2 3B", QV, "adalora", 64, "18,353,664", 18_353_664),
    Published("peftcomparison", "Llama 3.2 3B", QV, "vera", 256, "129,024", 129_024),
    Published("peftcomparison", "Llama 3.2 3B", ("k_proj", "v_proj", "down_proj"), "ia3", 0, "286,720", 286_720),
    Published("litgpt", "LLaMA 7B", QV, "lora", 8, "4,194,304", 4_194_304),
)
"""Every row, in the order of the book's page."""

_SQUARE = {"GPT-3": (96, 12288), "GPT-2 M": (24, 1024), "GPT-2 L": (36, 1280), "DeBERTa XXL": (48, 1536)}
"""(layers, width) of models whose q and v are square; their modules have other names, or are one."""
_SIZES = {
    "LLaMA 7B": {},
    "LLaMA 13B": dict(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40),
    "Llama 3.2 3B": dict(
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128256,
        tie_word_embeddings=True,
    ),
    "RoBERTa base": {},
    "RoBERTa large": dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16),
}


def count(row: Published) -> int:
    """The row's number, from the shapes of the model's layers on the meta device."""
    if row.method == "full":
        return sum(parameter.numel() for parameter in _body(row.model).parameters())
    return sum(_trained(row, *layer) for layer in _layers(row.model, row.targets))


def shown(numbers: int, printed: str) -> str:
    """`numbers` rounded as `printed` is: the same unit, the same decimals."""
    unit = {"K": 1e3, "M": 1e6}.get(printed[-1:])
    if unit is None:
        return f"{numbers:,}"
    return f"{numbers / unit:.{_decimals(printed)}f}{printed[-1]}"


def verdict(row: Published) -> str:
    """`agrees`, `cut off` (digits were dropped instead of rounded) or `differs`; empty where nothing is printed."""
    if not row.printed:
        return ""
    if shown(row.numbers, row.printed) == row.printed:
        return "agrees"
    unit, decimals = {"K": 1e3, "M": 1e6}.get(row.printed[-1:], 1.0), _decimals(row.printed)
    cut = int(row.numbers / unit * 10**decimals) / 10**decimals
    return "cut off" if f"{cut:.{decimals}f}{row.printed[-1]}" == row.printed else "differs"


def _decimals(printed: str) -> int:
    return len(printed.rstrip("KM").partition(".")[2])


def _trained(row: Published, name: str, d_in: int, d_out: int) -> int:
    if row.method == "adalora":
        return row.r * (d_in + d_out + 1)  # the registry's r is the one it ends with
    if row.method == "ia3":  # scales the outputs of k and v, and the input of the MLP's last layer
        return d_in if name.endswith("down_proj") else d_out
    return trained_numbers(row.method, row.r, d_in, d_out)


@cache
def _layers(model: str, targets: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """(name, d_in, d_out) of every layer that `targets` name."""
    from ftkit.methods.adapted import wanted_layers
    from ftkit.models.families import LoraTargets

    if model in _SQUARE:
        layers, width = _SQUARE[model]
        return [(target, width, width) for target in targets] * layers
    names = {"q_proj": "query", "v_proj": "value"} if model.startswith("RoBERTa") else {}
    wanted = LoraTargets([names.get(target, target) for target in targets], [], None)
    return [(name, d_in, d_out) for name, (_, d_in, d_out) in wanted_layers(_body(model), wanted).items()]


@cache
def _body(model: str):
    import torch
    from transformers import AutoModel, LlamaConfig, RobertaConfig

    config = (RobertaConfig if model.startswith("RoBERTa") else LlamaConfig)(**_SIZES[model])
    with torch.device("meta"):
        return AutoModel.from_config(config)
