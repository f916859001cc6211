"""Time and extra peak memory of the loss: ftkit's, the one of Transformers' own forward, and TRL's fused head.

    python benchmarks/loss.py --output benchmarks/results/loss.json

Each measurement is a process of its own: a Llama of one narrow layer below a head over 131,072 tokens, 1,024
positions in a batch, forward and backward, head frozen (as under LoRA) or trained. Rounds are interleaved, side after
side. Memory is the peak of the resident set above what is resident before the step, less the gradient of a trained
head, which every side leaves behind. `--chunks` also measures ftkit at other chunk sizes, from which the default was
chosen.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from machine import processor

SIDES = ("plain", "ftkit", "trl")


def build(vocabulary: int, hidden: int, dtype: str, frozen_head: bool):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, dtype)).train()
    model.get_input_embeddings().requires_grad_(False)
    model.get_output_embeddings().requires_grad_(not frozen_head)
    return model


def one(options: argparse.Namespace) -> None:
    """One side, one measurement: prints seconds and MiB as JSON."""
    import torch

    from ftkit import loss

    torch.set_num_threads(options.threads)
    model = build(options.vocabulary, options.hidden, options.dtype, options.frozen_head)
    ids = torch.randint(options.vocabulary, (1, options.tokens + 1))
    labels = ids.clone()
    labels[:, : 1 + int(options.tokens * (1 - options.trained))] = -100
    if options.one == "trl":
        from trl.trainer.utils import add_fused_lm_head

        add_fused_lm_head(model)

    def step(ids, labels) -> float:
        if options.one == "ftkit":
            with loss.trained_positions_only(model):
                result = model(ids, labels=labels)["loss"]
        elif options.one == "trl":
            result = -model(ids, labels=labels, fused_lm_head=True).log_probs.sum() / (labels[:, 1:] != -100).sum()
        else:
            result = model(ids, labels=labels).loss
        result.backward()
        return result.item()

    if options.chunk:
        loss.CHUNK_LOGITS = options.chunk * options.vocabulary
    step(ids[:, -8:], labels[:, -8:])  # what the libraries load at first use does not count
    model.zero_grad()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel counts the peak anew
    before = resident("VmRSS")
    value = step(ids, labels)
    extra = resident("VmHWM") - before
    if not options.frozen_head:
        extra -= model.get_output_embeddings().weight.grad.nbytes
    seconds = []
    for _ in range(3):
        model.zero_grad()
        started = time.perf_counter()
        step(ids, labels)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": min(seconds), "extra_mib": extra / 2**20, "loss": value}))


def resident(name: str) -> int:
    """Bytes of `VmRSS`, resident now, or `VmHWM`, its peak (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def measure(side: str, options: argparse.Namespace, **changes) -> dict:
    settings = {**{k: getattr(options, k) for k in ("vocabulary", "hidden", "tokens", "threads")}, **changes}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if not isinstance(value, bool)]
    flags += [f"--{name.replace('_', '-')}" for name, value in settings.items() if value is True]
    command = [sys.executable, __file__, "--one", side, *flags]
    done = subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def compare(options: argparse.Namespace, dtype: str, frozen: bool, trained: float) -> dict:
    """All sides, interleaved; ratios to the plain loss are formed round by round."""
    rounds = [
        {side: measure(side, options, dtype=dtype, frozen_head=frozen, trained=trained) for side in SIDES}
        for _ in range(options.rounds)
    ]
    result = {"dtype": dtype, "frozen_head": frozen, "share_trained": trained, "plain": {}}
    for name in ("seconds", "extra_mib"):
        result["plain"][name] = spread([r["plain"][name] for r in rounds])
    for side in SIDES[1:]:
        result[side] = {f"{n}_ratio": spread([r[side][n] / r["plain"][n] for r in rounds]) for n in result["plain"]}
        result[side]["loss_difference"] = max(abs(r[side]["loss"] - r["plain"]["loss"]) for r in rounds)
    print(json.dumps(result), file=sys.stderr)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=131_072)
    parser.add_argument("--hidden", type=int, default=576, help="width, that of the embedded model")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--chunks", type=int, nargs="*", default=[], help="positions at once, e.g. 32 64 128 256 512")
    parser.add_argument("--output", type=Path)
    for hidden in ("--one", "--dtype"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--trained", type=float, default=1.0, help=argparse.SUPPRESS)
    parser.add_argument("--chunk", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--frozen-head", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options)
        return
    results = {
        "machine": {"processor": processor(), "threads": options.threads},
        "versions": {name: version(name) for name in ("ftkit", "torch", "transformers", "trl")},
        "vocabulary": options.vocabulary,
        "hidden": options.hidden,
        "tokens": options.tokens,
        "rounds": options.rounds,
        # 0.29: the share of positions that is trained in the book's task.
        "runs": [
            compare(options, dtype, frozen, trained)
            for dtype in ("float32", "bfloat16")
            for frozen, trained in ((True, 1.0), (True, 0.29), (False, 1.0))
            if frozen or dtype == "float32"  # what trains is float32
        ],
        "chunks": [
            {"chunk": chunk, "dtype": dtype, **measure("ftkit", options, dtype=dtype, frozen_head=True, chunk=chunk)}
            for dtype in ("float32", "bfloat16")
            for chunk in options.chunks
        ],
    }
    text = json.dumps(results, indent=2) + "\n"
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
