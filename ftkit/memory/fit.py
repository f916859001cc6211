"""What fits: the largest batch, sequence, rank or model on a card, and the cheapest run that fits."""

from collections.abc import Iterable
from dataclasses import dataclass

from ftkit.errors import ConfigError, near_matches
from ftkit.memory.catalogue import architecture, known_models
from ftkit.memory.cost import Cost, training_cost
from ftkit.memory.estimator import METHODS, Estimate, estimate
from ftkit.memory.hardware import Accelerator, accelerator, accelerators
from ftkit.memory.shapes import Architecture

SEARCHED = {"batch_size": 65_536, "sequence_length": 1_048_576, "rank": 4096}
"""What `largest` can search, and the value at which it stops."""

NEEDS_FSDP = "FSDP, which ftkit's trainers do not do: they hold the whole model on each card"


@dataclass(frozen=True)
class Choice:
    """One run that fits: card, how many, the memory of each and the cost of all.

    More than one card share it by FSDP, which ftkit's trainers do not do: they hold the whole model on each card.
    """

    gpu: Accelerator
    gpus: int
    memory: Estimate
    cost: Cost


def fits(result: Estimate, gpu: str | Accelerator) -> str:
    """ "yes" where the upper bound is within the card's memory, "no" where the lower bound is not, else "perhaps"."""
    memory = _card(gpu).memory_bytes
    if result.upper_bytes <= memory:
        return "yes"
    return "no" if result.lower_bytes > memory else "perhaps"


def largest(what: str, model: str | Architecture, gpu: str | Accelerator, **settings) -> int:
    """The largest batch_size, sequence_length or rank whose upper bound fits on one card; 0 where not even 1 does.

    Args:
        what: "batch_size", "sequence_length" or "rank".
        model, settings: as for `estimate`.
        gpu: name of an accelerator, or one made by hand.

    Raises:
        ConfigError: `what` is none of the three.
    """
    if what not in SEARCHED:
        raise ConfigError(f"{what!r} cannot be searched; {', '.join(SEARCHED)} can.{near_matches(what, SEARCHED)}")
    a = model if isinstance(model, Architecture) else architecture(model)
    card = _card(gpu)
    low, high = 0, SEARCHED[what]  # low fits, or is 0; memory grows with each of the three
    while low < high:
        middle = (low + high + 1) // 2
        if fits(estimate(a, **{**settings, what: middle}), card) == "yes":
            low = middle
        else:
            high = middle - 1
    return low


def largest_model(gpu: str | Accelerator, **settings) -> str | None:
    """The catalogue's model with the most parameters that fits; None where none does."""
    sizes = sorted(known_models(), key=lambda name: architecture(name).parameters, reverse=True)
    return next((name for name in sizes if fits(estimate(name, **settings), gpu) == "yes"), None)


def cheapest(
    model: str | Architecture,
    *,
    tokens: int,
    mfu: float,
    prices: dict[str, float],
    methods: Iterable[str] = METHODS,
    gpus: Iterable[int] = (1, 2, 4, 8),
    **settings,
) -> Choice | None:
    """The run that costs least among those that fit; None where none does.

    Args:
        model: as for `estimate`.
        tokens, mfu: as for `training_cost`.
        prices: price of an hour by name of accelerator; only these are considered.
        methods: that may be used. Full fine-tuning costs more than LoRA, so leave out what the goal forbids.
        gpus: numbers of cards; with more than one, FSDP shards over them, which ftkit's trainers do not do: give (1,)
            for a run of theirs.
        settings: fields of `Settings`.
    """
    a = model if isinstance(model, Architecture) else architecture(model)
    found = []
    for name, price in prices.items():
        card = accelerator(name)
        for method in methods:
            for number in gpus:
                run = {**settings, "method": method, "shards": number}
                memory = estimate(a, **run)
                if fits(memory, card) == "yes":
                    cost = training_cost(
                        a, gpu=card, tokens=tokens, mfu=mfu, gpus=number, price_per_gpu_hour=price, **run
                    )
                    found.append(Choice(card, number, memory, cost))
    # Of equal price, the fewer cards.
    return min(found, key=lambda choice: (choice.cost.price, choice.gpus), default=None)


def smallest_card(result: Estimate) -> Accelerator | None:
    """The card with the least memory on which the upper bound fits; None where even the largest is too small."""
    fitting = [card for card in accelerators() if fits(result, card) == "yes"]
    return min(fitting, key=lambda card: card.memory_gb, default=None)


def _card(gpu: str | Accelerator) -> Accelerator:
    return accelerator(gpu) if isinstance(gpu, str) else gpu
