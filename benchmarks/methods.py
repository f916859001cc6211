"""Every method on one task with a matched budget, each at its own best learning rate.

    python benchmarks/methods.py --output benchmarks/results/methods.json

writes the result and, beside it, a table to read (`methods.md`). About 10 minutes on two idle cores; `--quick` tries
it in one.

The task: a model of 82,368 parameters is trained whole to copy words, then has to write them in a cipher that it has
not seen (`ftkit.scratch.cipher`). Each method trains about as many numbers as LoRA of rank 4 on all linear layers, for
the same number of steps, with every learning rate of one grid and every seed; a seed has its own cipher, words and
initialisation. The rate with the lowest mean loss on validation words is chosen, and what is reported is its loss on
test words. Memory and time are measured on a decoder of width 256, where arithmetic outweighs bookkeeping; step times
are taken in turns with LoRA's, as a ratio.
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from machine import processor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from ftkit.methods import METHODS, attach, parameter_groups, trained_numbers
from ftkit.methods.adapted import wanted_layers
from ftkit.methods.adapter import Adapter
from ftkit.methods.saved_bytes import decoder, saved_for_backward
from ftkit.models import lora_targets
from ftkit.scratch import cipher

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
RANK = 4  # LoRA's; its count is the budget
FULL, CONTROL = "full", "lora, alpha x 3"  # the whole model; and the control that Delta-LoRA with lambda 2 needs
NAMES = (*METHODS, CONTROL, FULL)
CANNOT_TELL = """\
One task, one width of 64 and one length of run. The base is random but for copying, so nothing here depends on what
pretraining leaves in a weight, which is what PiSSA and AdaLoRA build on. LoRA+ and rsLoRA are arguments about great
widths and ranks. A rank that is small here is a sixteenth of the width; in a language model it is a hundredth or less.
The order of the methods is therefore no advice for a language model."""


def base_model() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=cipher.VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=0.1,
    )
    return AutoModelForCausalLM.from_config(config)


def make(name: str, model: PreTrainedModel, r: int, seed: int) -> Adapter:
    """`name` on `model`; the whole model, unadapted, for FULL."""
    if name == FULL:
        return Adapter(model)
    settings = {}
    if name == CONTROL:
        settings["lora_alpha"] = 3 * 2.0 * r
    elif name == "rslora":
        settings["lora_alpha"] = 2.0 * r  # LoRA's alpha, so that the scale differs as the method says
    return attach(model, name if name in METHODS else "lora", r=r, seed=seed, **settings)


def numbers(name: str, r: int, model: PreTrainedModel) -> int:
    """Trained numbers at rank r; of AdaLoRA those that are left in the end."""
    layers = wanted_layers(model, lora_targets(model)).values()
    if name == "adalora":
        return sum(r * (d_in + d_out + 1) for _, d_in, d_out in layers)
    return sum(trained_numbers(name, r, d_in, d_out) for _, d_in, d_out in layers)


def matched_rank(name: str, model: PreTrainedModel) -> int:
    """The rank whose count is nearest to that of LoRA at RANK; 0 for FULL, which has none."""
    if name == FULL:
        return 0
    budget = numbers("lora", RANK, model)
    return min(range(1, 1025), key=lambda r: abs(numbers(name, r, model) - budget))


def optimizer_groups(name: str, model: torch.nn.Module, lr: float) -> list[dict]:
    ratio = 16.0 if name == "lora+" else None
    return parameter_groups(model, learning_rate=lr, ratio=ratio, embedding_learning_rate=lr)


def run(name: str, weights: dict, r: int, lr: float, seed: int, steps: int) -> dict[str, float]:
    """One training run and its scores; a run that diverged has an infinite loss."""
    model = base_model()
    model.load_state_dict(weights)
    adapter, key = make(name, model, r, seed), cipher.cipher(seed + 5)
    adapter.begin(steps)
    cipher.fit(
        adapter.model,
        optimizer_groups(name, adapter.model, lr),
        key,
        steps=steps,
        seed=seed + 10,
        before=adapter.before_step,
        after=adapter.after_step,
    )
    scores = {}
    for split, words in (("validation", cipher.words(500, 98)), ("test", cipher.words(500, 99))):
        ids = cipher.rows(words, key)
        with torch.no_grad():
            loss = cipher.loss(adapter.model.eval(), ids).item()
        scores[split] = loss if math.isfinite(loss) else math.inf
        scores[f"{split}_right"] = cipher.accuracy(adapter.model, ids)
    return scores


def quality(name: str, weights: dict, seeds: int, steps: int) -> dict:
    """The rate chosen on validation, and what it gives on test."""
    model = base_model()
    r = matched_rank(name, model)
    runs = {lr: [run(name, weights, r, lr, seed, steps) for seed in range(seeds)] for lr in RATES}
    means = {lr: statistics.fmean(one["validation"] for one in of) for lr, of in runs.items()}
    best = min(means, key=means.get)
    adapter = make(name, model, r, 0)
    with tempfile.TemporaryDirectory() as folder:
        adapter.model.save_pretrained(folder) if name == FULL else adapter.save(folder)
        size = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    return {
        "rank": r,
        "trained": sum(p.numel() for p in adapter.model.parameters() if p.requires_grad),
        "counted": numbers(name, r, base_model()) if name in METHODS else None,
        "file_bytes": size,
        "rate": best,
        "rate_at_the_edge": best in (RATES[0], RATES[-1]),
        "validation_by_rate": {f"{lr:g}": mean if math.isfinite(mean) else None for lr, mean in means.items()},
        "test": [one["test"] for one in runs[best]],
        "test_right": [one["test_right"] for one in runs[best]],
    }


class Stepper:
    """A decoder of width 256 under one method, that can take steps."""

    def __init__(self, name: str, steps: int) -> None:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(decoder())
        self.adapter = make(name, model, 256 if name == "vera" else 16, 0)
        self.adapter.begin(steps)
        self.optimizer = torch.optim.AdamW(optimizer_groups(name, self.adapter.model, 1e-3))
        self.ids = torch.randint(model.config.vocab_size, (4, 128))
        self.done = 0

    def loss(self) -> torch.Tensor:
        logits = self.adapter.model(input_ids=self.ids, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), self.ids[:, 1:].flatten())

    def seconds(self) -> float:
        """Of one step."""
        self.done += 1
        start = time.perf_counter()
        self.loss().backward()
        self.adapter.before_step(self.done)
        self.optimizer.step()
        self.adapter.after_step(self.done)
        self.optimizer.zero_grad()
        return time.perf_counter() - start


def cost(name: str, rounds: int) -> dict:
    """Bytes kept for the backward pass, and step times in turns with LoRA's."""
    ours, lora = Stepper(name, rounds + 12), Stepper("lora", rounds + 12)
    kept = saved_for_backward(ours.adapter.model, ours.loss)
    for _ in range(2):
        ours.seconds(), lora.seconds()
    ratios = sorted(ours.seconds() / lora.seconds() for _ in range(rounds))
    low, _, high = statistics.quantiles(ratios, n=4)
    return {"kept_bytes": kept, "step_ratio": statistics.median(ratios), "step_ratio_quartiles": [low, high]}


def table(result: dict) -> str:
    """The result as Markdown."""
    machine, settings = result["machine"], result["settings"]
    lines = [
        "# Methods side by side",
        "",
        f"Made by `python benchmarks/methods.py` on {result['date']}: "
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, "
        + ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        + f". {settings['steps']} steps, {settings['seeds']} seeds, rates {settings['rates']}; "
        f"the base model copies {settings['copies_right']:.1%} of letters right.",
        "",
        "| method | r | trained | file, kB | best rate | test loss: mean (min to max) | letters right "
        "| kept for backward, MiB | step time / LoRA (quartiles) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["methods"].items():
        low, high = row["step_ratio_quartiles"]
        edge = " (edge of the grid)" * row["rate_at_the_edge"]
        lines.append(
            f"| {name} | {row['rank'] or ''} | {row['trained']:,} | {row['file_bytes'] / 1e3:.0f} "
            f"| {row['rate']:g}{edge} "
            f"| {statistics.fmean(row['test']):.4f} ({min(row['test']):.4f} to {max(row['test']):.4f}) "
            f"| {statistics.fmean(row['test_right']):.1%} | {row['kept_bytes'] / 2**20:.1f} "
            f"| {row['step_ratio']:.2f} ({low:.2f} to {high:.2f}) |"
        )
    notes = (
        "AdaLoRA trains the number shown at the start and the matched number in the end. rsLoRA has LoRA's alpha. "
        f"`{CONTROL}` is what Delta-LoRA with lambda 2 must beat. `{FULL}` trains the whole model and is not matched. "
        "Kept bytes and step times: a Llama decoder of width 256, 4 layers, 4 rows of 128 tokens, float32, rank 16 "
        "(VeRA 256). At a matched count VeRA's rank is larger than the width of the small model."
    )
    return "\n".join([*lines, "", notes, "", "## What a tiny model cannot tell", "", CANNOT_TELL, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20, help="steps that are timed")
    parser.add_argument("--quick", action="store_true", help="12 steps, 1 seed, 4 rounds: only to see that it works")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    steps, seeds, rounds = (12, 1, 4) if options.quick else (options.steps, options.seeds, options.rounds)
    started, model = time.perf_counter(), base_model()
    cipher.fit(model, model.parameters(), cipher.cipher(), steps=20 if options.quick else 400, seed=1, lr=3e-3)
    copies = cipher.accuracy(model, cipher.rows(cipher.words(500, 99), cipher.cipher()))
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    methods = {}
    for name in NAMES:
        methods[name] = quality(name, weights, seeds, steps) | cost(name, rounds)
        row = methods[name]
        print(
            f"[{time.perf_counter() - started:4.0f} s] {name}: r={row['rank']}, rate {row['rate']:g}, "
            f"test loss {statistics.fmean(row['test']):.4f}, step {row['step_ratio']:.2f} x LoRA's",
            file=sys.stderr,
        )
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in ("ftkit", "torch", "transformers", "peft")},
        "settings": {"steps": steps, "seeds": seeds, "rates": RATES, "rounds": rounds, "copies_right": copies},
        "seconds": round(time.perf_counter() - started),
        "methods": methods,
        "cannot_tell": CANNOT_TELL,
    }
    print(table(result))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        for file, text in (
            (options.output, json.dumps(result, indent=2) + "\n"),
            (options.output.with_suffix(".md"), table(result)),
        ):
            beside = file.with_name(f".{file.name}.new")
            beside.write_text(text)
            os.replace(beside, file)


if __name__ == "__main__":
    main()
