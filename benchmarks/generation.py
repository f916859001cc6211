"""Answers per second: ftkit's batches, with and without the prefix that all prompts share, beside the guide's loop.

    python benchmarks/generation.py --output benchmarks/results/generation.json

The guide's evaluator calls `generate` on one prompt at a time. All sides get the same prompts (chat-formatted rows of
`tickets`), decode greedily and stop at the same tokens, so that they write the same answers but for rounding; how many
are equal to the guide's loop is recorded. Sides take turns within each round; a ratio is taken within a round.
"""

import argparse
import json
import os
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from machine import processor
from transformers import GenerationConfig

from ftkit.data import encode_prompt, load_data
from ftkit.evaluation import prefix
from ftkit.evaluation.generate import generate
from ftkit.models import load
from ftkit.models.families import stop_token_ids


@torch.no_grad()
def guide_loop(model, tokenizer, conversations, max_new_tokens: int) -> list[str]:
    """One prompt at a time, as in the guide's `generate_responses`."""
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=stop_token_ids(tokenizer, model),
    )
    answers = []
    for messages in conversations:
        ids = torch.tensor([encode_prompt(tokenizer, messages)], device=model.device)
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        answers.append(tokenizer.decode(out[0][ids.shape[1] :], skip_special_tokens=True))
    return answers


def batched(model, tokenizer, conversations, max_new_tokens: int, batch_size: int, shared: bool) -> list[str]:
    shortest = prefix.SHORTEST
    prefix.SHORTEST = shortest if shared else sys.maxsize
    try:
        options = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "progress": False}
        return generate(model, tokenizer, conversations, **options)
    finally:
        prefix.SHORTEST = shortest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    model, tokenizer = load(options.model)
    conversations = [row["messages"] for row in load_data("tickets")["test"][: options.prompts]]
    sides = {"guide, one at a time": lambda: guide_loop(model, tokenizer, conversations, options.max_new_tokens)}
    for size in (8, options.prompts):
        for shared in (False, True):
            name = f"ftkit, batches of {size}, {'shared prefix read once' if shared else 'no shared prefix'}"
            sides[name] = lambda size=size, shared=shared: batched(
                model, tokenizer, conversations, options.max_new_tokens, size, shared
            )
    list(sides.values())[-1]()  # threads, allocator and kernels are ready
    rates: dict[str, list[float]] = {name: [] for name in sides}
    answers = {}
    for _ in range(options.rounds):
        for name, run in sides.items():
            started = time.perf_counter()
            answers[name] = run()
            rates[name].append(options.prompts / (time.perf_counter() - started))
            print(f"{name}: {rates[name][-1]:.2f} answers/s", file=sys.stderr)
    first, *others = rates
    ratios = {name: [a / b for a, b in zip(rates[name], rates[first], strict=True)] for name in others}
    result = {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "dtype": str(model.dtype),
        },
        "versions": {name: version(name) for name in ("ftkit", "torch", "transformers")},
        "model": options.model,
        "prompts": options.prompts,
        "max_new_tokens": options.max_new_tokens,
        "answers_per_second": rates,
        "times_the_guides_loop": {
            name: {"median": statistics.median(r), "low": min(r), "high": max(r)} for name, r in ratios.items()
        },
        "answers_equal_to_the_guides_loop": {
            name: sum(a == b for a, b in zip(answers[name], answers[first], strict=True)) for name in others
        },
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
