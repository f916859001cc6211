"""The command line. A user's mistake is one sentence on stderr and exit code 2; a traceback is a bug of ours."""

import dataclasses
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ftkit import __version__
from ftkit.arguments import parse
from ftkit.data.config import DataConfig
from ftkit.errors import FtkitError, Interrupted, near_matches
from ftkit.evaluation.config import EvaluationConfig
from ftkit.folders import refused_by_disk
from ftkit.selftest import Selftest, selftest
from ftkit.terminal import Chat, chat
from ftkit.training.config import RUN_FILE, FullFineTuningConfig, LoRAConfig, QLoRAConfig

if TYPE_CHECKING:
    from ftkit.training.finetuner import FineTuner


@dataclass(kw_only=True)
class Evaluate(EvaluationConfig):
    """Evaluate a model on held-out rows, alone or against a baseline, and write the results and a report."""

    model_path: str = dataclasses.field()  # a bare annotation would inherit the default
    """What to evaluate: `embedded`, `tiny-<family>`, a hub id, or a folder with a model or an adapter."""
    data: str = "tickets"
    """Rows: a folder that `ftkit prepare` wrote, one with test.jsonl, a .jsonl, .json, .csv or .parquet file, or the
    name of a task that ships with ftkit."""
    split: str = "test"
    """Which split of the folder; a single file is taken whole."""
    baseline: str | None = None
    """A second model that answers the same prompts; the differences are then reported with their intervals, and so is
    what the model has forgotten of general English."""
    tasks: tuple[str, ...] = ()
    """Benchmarks of lm-evaluation-harness to run too: names of its tasks (their data comes from the hub), or
    ftkit_facts, ftkit_words and ftkit_prose, which need no network."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass
class Merge:
    """Merge an adapter into its base: a model folder that needs no PEFT, verified before it is kept."""

    run: str
    """Folder of the adapter, as `ftkit train` wrote it."""
    output_dir: str
    """Folder of the merged model; must not exist or be empty."""
    onto: str | None = None
    """Weights to merge onto: dequantized (those that the 4 bits of training stand for), original (the base as it was
    before) or requantized (the first in 4 bits again). Default: the exact one, dequantized for a run on a base in 4
    bits, else original."""
    dtype: str = "float32"
    """Precision of the saved weights: float32 keeps the whole update; bfloat16 and float16 halve the file and round."""
    data_dir: str | None = None
    """Rows whose prompts are answered before and after. Default: the run's own data, where it can still be read, else
    rows of random tokens."""
    num_prompts: int = 8
    """How many of them."""
    trust_remote_code: bool = False
    """Run Python code that the base's hub repository brings. Off: a model's weights should not execute code."""
    json: bool = False
    """Print the receipt as one JSON object."""

    def __post_init__(self) -> None:
        if self.num_prompts < 1:
            raise FtkitError(f"num_prompts must be above 0, not {self.num_prompts}.")


@dataclass
class Memory:
    """Memory that fine-tuning a model takes, by component, with bounds. Needs no weights, no GPU and no network."""

    model: str
    """A model of the catalogue (llama-3-70b, qwen3-30b-a3b, ...), a folder, a config.json, or a hub id."""
    method: str = "qlora"
    """full, lora or qlora."""
    rank: int = 64
    """Rank of the adapters."""
    batch_size: int = 4
    """Rows a device takes at once."""
    sequence_length: int = 2048
    """Tokens in a row, padding included."""
    precision: str = "mixed"
    """mixed (bf16 with float32 master weights or adapters), autocast, bfloat16 or float32."""
    optimizer: str | None = None
    """adamw, adamw_8bit, paged_adamw, paged_adamw_8bit, sgd or sgd_momentum. Default: adamw; paged_adamw_8bit for
    qlora."""
    use_gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass. Default: True for full and qlora, False for lora."""
    shards: int = 1
    """GPUs over which FSDP shards parameters, gradients and optimizer states. ftkit's trainers do not: they hold the
    whole model on each."""
    gpu: str | None = None
    """Say whether it fits on this card (T4, RTX 4090, L4, A100-80, H100, ...)."""
    json: bool = False
    """Print one JSON object, sizes in bytes, instead of text."""


@dataclass(kw_only=True)
class Prepare(DataConfig):
    """Read rows, clean, deduplicate and filter them, encode them with their masks, split and save them."""

    source: str
    """Rows: a .jsonl, .json, .csv or .parquet file (also .gz or .zst but for the last), a folder with train.jsonl, a
    data set of the hub, or a task that ships with ftkit."""
    output_dir: str = "./processed_data"
    """Folder of the prepared data; must not exist or be empty."""
    instruction_col: str | None = None
    """Column of the instruction, where it has a name of its own."""
    response_col: str | None = None
    """Column of the answer, where it has a name of its own."""
    text_col: str = "text"
    """Column of plain text."""


@dataclass
class Doctor:
    """Look data over as a model will see it, and say no where training on it would be wrong."""

    data: str
    """Rows of any kind that `ftkit prepare` reads, or a folder that it wrote."""
    model: str = "embedded"
    """Model whose tokenizer and chat template are used: `embedded`, `tiny-<family>`, a folder, or a hub id."""
    max_seq_length: int = 2048
    """Longest row in tokens that will be trained."""
    train_on: str = "last"
    """What will be trained of a conversation: last, all or full."""
    json: bool = False
    """Print one JSON object instead of text."""

    def __post_init__(self) -> None:
        if self.max_seq_length < 1:
            raise FtkitError(f"max_seq_length must be above 0, not {self.max_seq_length}.")


def prepare(options: Prepare) -> None:
    from ftkit.data.pipeline import DataPreparationPipeline

    fields = {field.name: getattr(options, field.name) for field in dataclasses.fields(DataConfig)}
    pipeline = DataPreparationPipeline(DataConfig(**fields))
    columns = {name: getattr(options, name) for name in ("instruction_col", "response_col", "text_col")}
    splits = pipeline.run_pipeline(options.source, options.output_dir, **columns)
    print(pipeline.report)
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in splits.items())
    print(f"{sizes} rows in {options.output_dir}, encoded for {options.model_name}")


def look_over(options: Doctor) -> int:
    from ftkit.data.checkup import doctor

    settings = {"max_seq_length": options.max_seq_length, "train_on": options.train_on, "progress": True}
    diagnosis = doctor(options.data, options.model, **settings)
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(json.dumps(diagnosis.as_dict(), ensure_ascii=False) if options.json else diagnosis.text(color=color))
    return diagnosis.exit_code


def train_full(config: FullFineTuningConfig) -> None:
    from ftkit.training.full import FullFineTuner

    _train(FullFineTuner(config), "model")


def train_lora(config: LoRAConfig) -> None:
    from ftkit.training.lora import LoRAFineTuner

    _train(LoRAFineTuner(config), "adapter")


def train_qlora(config: QLoRAConfig) -> None:
    from ftkit.training.qlora import QLoRAFineTuner

    _train(QLoRAFineTuner(config), "adapter")


def _train(tuner: "FineTuner", made: str) -> None:
    metrics = tuner.train()
    validation = f", validation {metrics['eval_loss']:.4f} at step {metrics['step']}" if "eval_loss" in metrics else ""
    print(
        f"{metrics['steps']} steps in {metrics['train_runtime']:.0f} s: training loss {metrics['train_loss']:.4f}"
        f"{validation}; the {made} is in {tuner.config.output_dir}"
    )


def evaluate(options: Evaluate) -> None:
    from ftkit.data.sources import load_data
    from ftkit.errors import DataError
    from ftkit.evaluation.evaluator import LLMEvaluator

    fields = {field.name: getattr(options, field.name) for field in dataclasses.fields(EvaluationConfig)}
    evaluator = LLMEvaluator(EvaluationConfig(**fields), verbose=not options.json)
    data = load_data(options.data)
    split = "train" if Path(options.data).is_file() else options.split
    if split not in data:
        raise DataError(f"{options.data} has no split {split!r}; it has {', '.join(data)}.")
    results = evaluator.run_full_evaluation(
        data[split],
        baseline=options.baseline,
        train_dataset=data.get("train") if split != "train" else None,
        run_benchmarks=bool(options.tasks),
        tasks=options.tasks,
    )
    if options.json:
        print(json.dumps(results, ensure_ascii=False))
        return
    evaluator.print_summary(results)
    print(f"the whole of it is in {options.output_dir}: evaluation_results.json and report.html")


def merge(options: Merge) -> None:
    from ftkit.export.merge import merge

    receipt = merge(
        options.run,
        options.output_dir,
        onto=options.onto,
        dtype=options.dtype,
        prompts=_prompts(options),
        trust_remote_code=options.trust_remote_code,
    )
    print(json.dumps(dataclasses.asdict(receipt), ensure_ascii=False) if options.json else receipt)


def _prompts(options: Merge) -> list[list[dict]] | None:
    """Conversations of the test rows, where there are some, of the data that was named or else of the run's own."""
    from ftkit.data.sources import load_data
    from ftkit.data.table import restore

    source, record = options.data_dir, Path(options.run) / RUN_FILE
    if source is None and record.is_file():
        source = json.loads(record.read_text(encoding="utf-8"))["config"].get("data_dir")
    try:
        data = load_data(source) if source else {}
    except FtkitError:
        if options.data_dir:
            raise
        return None
    rows = next((data[split] for split in ("test", "validation", "train") if data.get(split)), [])
    rows = [restore(row) if "input_ids" in row else row for row in islice(rows, options.num_prompts)]
    return [row["messages"] for row in rows if "messages" in row] or None


def memory(options: Memory) -> None:
    from ftkit.memory.estimator import estimate
    from ftkit.memory.fit import NEEDS_FSDP, fits, smallest_card
    from ftkit.memory.hardware import accelerator

    settings = dataclasses.asdict(options)
    name, gpu, as_json = (settings.pop(key) for key in ("model", "gpu", "json"))
    result = estimate(name, **settings)
    card = accelerator(gpu) if gpu else None
    if as_json:
        answer = {"gpu": dataclasses.asdict(card) | {"fits": fits(result, card)}} if card else {}
        print(json.dumps(result.to_dict() | answer))
        return
    print(result)
    if options.shards > 1:
        print(f"{options.shards} GPUs share it by {NEEDS_FSDP}.")
    if card:
        answer = {
            "yes": "It fits",
            "no": "It does not fit",
            "perhaps": "The bounds lie on both sides: it may or may not fit",
        }
        print(f"{answer[fits(result, card)]} on one {card.name} ({card.memory_gb} GB; {card.source}).")
    elif smallest := smallest_card(result):
        print(f"The smallest card of the table on which it fits is the {smallest.name} ({smallest.memory_gb} GB).")
    else:
        print(
            "No single card of the table holds it; choose a smaller model, rank or batch, or raise shards, which needs "
            f"{NEEDS_FSDP}."
        )


COMMANDS: dict[str, tuple[type, Callable]] = {
    "prepare": (Prepare, prepare),
    "doctor": (Doctor, look_over),
    "train full": (FullFineTuningConfig, train_full),
    "train lora": (LoRAConfig, train_lora),
    "train qlora": (QLoRAConfig, train_qlora),
    "chat": (Chat, chat),
    "evaluate": (Evaluate, evaluate),
    "merge": (Merge, merge),
    "memory": (Memory, memory),
    "selftest": (Selftest, selftest),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # PEFT asks a model for it by its old name, at each training.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: ftkit COMMAND [OPTIONS]\n")
        for name, (options, _) in COMMANDS.items():
            print(f"  {name:12} {options.__doc__.splitlines()[0]}")
        print("\n`ftkit COMMAND --help` lists a command's options.")
        return 0
    if arguments[0] == "--version":
        print(f"ftkit {__version__}")
        return 0
    try:
        name = _command(arguments)
        options, run = COMMANDS[name]
        code = run(parse(options, name, arguments[len(name.split()) :])) or 0
        sys.stdout.flush()
        return code
    except Interrupted as error:
        print(f"ftkit: {error}", file=sys.stderr)
        return 128 + error.number
    except FtkitError as error:
        print(f"ftkit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ftkit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough; what is left in the buffer goes nowhere, without a word
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if not refused_by_disk(error):
            raise
        print(f"ftkit: {error}; make room, or name a folder that may be written.", file=sys.stderr)
        return 2


def _command(arguments: list[str]) -> str:
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name
    given = " ".join(a for a in arguments[:2] if not a.startswith("-"))
    raise FtkitError(f"there is no command {given!r}; there is {', '.join(COMMANDS)}.{near_matches(given, COMMANDS)}")
