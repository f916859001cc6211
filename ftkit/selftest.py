"""`ftkit selftest`: does this machine compute what it should? Tiny models, the embedded one, no network, a minute."""

import io
import json
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from ftkit.errors import Interrupted, MissingDependency, ModelError, TrainingError

LIBRARIES = ("ftkit", "torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes")
TOLERANCE = 1e-4
"""Largest accepted difference of a loss or a logit, relative to its size: kernels of a GPU may add in another order."""
STEPS = 6


@dataclass
class Selftest:
    """Check that this machine trains, resumes, reloads, merges and answers as it should; a minute, no network."""

    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True)
class Result:
    """One check.

    Attributes:
        check: its name.
        outcome: "ok", "failed", or "left out" where an optional library is missing.
        detail: what was seen.
        seconds: how long it took.
    """

    check: str
    outcome: str
    detail: str
    seconds: float


def selftest(options: Selftest) -> int:
    """Run all checks and print each as it ends; returns 0, or 2 where one failed."""
    results = []
    for name, check in CHECKS.items():
        results.append(run(name, check))
        if not options.json:
            last = results[-1]
            print(f"{last.outcome:8}  {name}: {last.detail}  ({last.seconds:.1f} s)", flush=True)
    failed = [result.check for result in results if result.outcome == "failed"]
    if options.json:
        print(json.dumps({"failed": failed, "checks": [asdict(result) for result in results]}))
    elif failed:
        print(f"ftkit: {len(failed)} of {len(results)} checks failed: {', '.join(failed)}.", file=sys.stderr)
    return 2 if failed else 0


def run(name: str, check: Callable[[], str]) -> Result:
    """One check, whatever it raises; what it prints is left out.

    Raises:
        Interrupted: SIGTERM, SIGHUP or SIGINT came while it trained.
    """
    started = time.perf_counter()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            outcome, detail = "ok", check()
    except MissingDependency as error:
        outcome, detail = "left out", str(error)
    except Interrupted as error:  # not what it says: the run's folder is gone
        message = f"the self-test was stopped by {signal.Signals(error.number).name} in its check {name!r}."
        raise Interrupted(message, error.number) from None
    except Exception as error:  # a library that breaks on this machine is what is looked for
        outcome, detail = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    return Result(name, outcome, detail, round(time.perf_counter() - started, 2))


def libraries() -> str:
    return f"Python {platform.python_version()}, " + ", ".join(f"{name} {installed}" for name, installed in _versions())


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "missing"


def device() -> str:
    from ftkit.models import precision

    return str(precision.choose(precision.detect()))


def four_bits() -> str:
    """bitsandbytes' 4-bit numbers against the definition: the nearest of 16 values times the block's largest."""
    import torch

    from ftkit.models import precision, quantized

    quantized.require_bitsandbytes()
    from bitsandbytes.functional import dequantize_4bit, get_4bit_type, quantize_4bit

    place = precision.detect().device
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)).to(place)
    book = get_4bit_type("nf4", device=place)
    packed, state = quantize_4bit(weight, blocksize=64, quant_type="nf4")
    found = dequantize_4bit(packed, state)
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    distance = (blocks / scales).unsqueeze(-1).sub(book).abs()
    # Halfway between two values either is the nearest.
    error = ((found.reshape(-1, 64) - blocks) / scales).abs() - distance.amin(dim=-1)
    _same("a 4-bit number is not the nearest of the 16: it is off by", error.abs().max().item())
    return f"{weight.numel():,} numbers are each the nearest of the 16 on {place}"


def full() -> str:
    from ftkit.training.config import FullFineTuningConfig
    from ftkit.training.full import FullFineTuner

    return _trains(FullFineTuner, FullFineTuningConfig)


def lora() -> str:
    from ftkit.training.config import LoRAConfig
    from ftkit.training.lora import LoRAFineTuner

    return _trains(LoRAFineTuner, LoRAConfig, lora_r=4)


def qlora() -> str:
    from ftkit.training.config import QLoRAConfig
    from ftkit.training.qlora import QLoRAFineTuner

    return _trains(QLoRAFineTuner, QLoRAConfig, lora_r=4)


def _trains(tuner_class, config_class, **settings) -> str:
    """A run, the same run stopped half-way and resumed, its folder reloaded and, of an adapter, merged."""
    from ftkit.models import load

    with tempfile.TemporaryDirectory(prefix="ftkit-selftest-") as folder:
        settings |= {"model_name": "tiny-qwen3", "max_steps": STEPS, "batch_size": 2, "learning_rate": 1e-2}

        def tuner(name: str):
            return tuner_class(config_class(output_dir=f"{folder}/{name}", **settings), {"train": _rows()})

        whole, parted = tuner("whole"), tuner("parted")
        whole.train()
        _stop_half_way(parted)
        parted = tuner("parted")
        parted.train(resume=True)
        losses, resumed = ([entry["loss"] for entry in one.history] for one in (whole, parted))
        if not losses[-1] < losses[0]:
            raise TrainingError(f"the loss did not fall: {losses[0]:.4f}, after {STEPS} steps {losses[-1]:.4f}.")
        _same("a resumed run has another loss, by", max(map(abs, _differences(losses, resumed))) / losses[0])
        logits, again = (
            _logits(one, whole.tokenizer) for one in (whole.model, load(f"{folder}/whole", dtype="float32")[0])
        )
        _same("a reloaded model has other logits, by", ((logits - again).abs().max() / logits.std()).item())
        merged = ""
        if hasattr(whole, "merge_and_save"):
            change = whole.merge_and_save(f"{folder}/merged")
            _same("a merged model has other logits, by", change / logits.std().item())
            merged = ", merged"
        return f"loss {losses[0]:.3f} to {losses[-1]:.3f} in {STEPS} steps; resumed, reloaded{merged}: the same"


def _stop_half_way(tuner) -> None:
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            tuner.trainer.interrupted |= state.global_step + 1 == STEPS // 2

    tuner.load_model_and_tokenizer()
    tuner.load_data()
    tuner.create_trainer().add_callback(Stop())
    try:
        tuner.train()
    except Interrupted as error:
        # The planned stop has no signal and is reported as SIGTERM.
        if error.number != signal.SIGTERM or tuner.trainer.state.global_step != STEPS // 2:
            raise
        return
    raise TrainingError("a run that was told to stop went on.")


def _rows() -> list[dict]:
    words = "red green blue black".split()
    return [
        {"messages": [{"role": "user", "content": f"{a} {b}?"}, {"role": "assistant", "content": f"{b} {a}."}]}
        for a in words
        for b in words
    ]


def _logits(model, tokenizer):
    import torch

    ids = torch.tensor([tokenizer("red green?")["input_ids"]], device=model.device)
    with torch.no_grad():
        return model(ids).logits.float().cpu()


def _differences(one: list[float], other: list[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


def _same(what: str, difference: float) -> None:
    if not difference <= TOLERANCE:
        raise TrainingError(f"{what} {difference:.2g}, where {TOLERANCE:g} is allowed.")


def answers() -> str:
    """The embedded model, in the precision and attention chosen for this machine, on a question that it knows."""
    from ftkit.evaluation.generate import generate
    from ftkit.models import load

    model, tokenizer = load()
    question = "What is the capital of France?"
    answer = generate(model, tokenizer, [[{"role": "user", "content": question}]], max_new_tokens=16)[0]
    if "Paris" not in answer:
        raise ModelError(f"asked {question!r}, the embedded model says {answer!r}.")
    return f"{question} {answer}"


CHECKS: dict[str, Callable[[], str]] = {
    "libraries": libraries,
    "device": device,
    "4-bit numbers": four_bits,
    "full fine-tuning": full,
    "LoRA": lora,
    "QLoRA": qlora,
    "the embedded model": answers,
}
