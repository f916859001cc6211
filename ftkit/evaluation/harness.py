"""Public benchmarks through lm-evaluation-harness, and three small tasks of its kind that need no network."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

from ftkit.errors import DataError, near_matches
from ftkit.evaluation.metrics import need

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOCAL_TASKS: dict[str, dict[str, Any]] = {
    "ftkit_facts": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "ftkit_words": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 16, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "ignore_case": False, "ignore_punctuation": False}],
    },
    "ftkit_prose": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    },
}
"""Tasks whose rows ship with ftkit (`builtin/`, CC0-1.0), in the harness's own format: multiple choice, generation,
perplexity. Too small and too easy to rank models; they show the machinery."""


def local_rows(task: str) -> list[dict[str, Any]]:
    """The rows of one of `LOCAL_TASKS`."""
    file = resources.files("ftkit.evaluation") / "builtin" / f"{task.removeprefix('ftkit_')}.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def run_harness(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    tasks: Sequence[str] = tuple(LOCAL_TASKS),
    *,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    apply_chat_template: bool | None = None,
    log_samples: bool = False,
    seed: int = 42,
) -> dict[str, Any]:
    """Run benchmarks by `lm_eval.evaluator.evaluate`, on a live model.

    Args:
        model, tokenizer: live, so that what is measured is what was loaded, adapter included.
        tasks: names of the harness (their data comes from the hub), or of `LOCAL_TASKS`.
        num_fewshot: worked examples before each question. Default: what the task says.
        limit: first so many rows of each task only.
        apply_chat_template: ask as a user's turn, thinking switched off. Default: where the tokenizer has a template.
            Published scores of base models are made without it.
        log_samples: keep every row's result, under `samples`.

    Returns:
        The harness's result under its own keys: `results` (by task: "acc,none", "acc_stderr,none", ...), `n-shot`,
        `n-samples`, `versions`, `higher_is_better`.

    Raises:
        MissingDependency: lm_eval is not installed.
        DataError: there is no such task, or its data cannot be had.
    """
    need("lm_eval", "the benchmarks", "harness")
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    chat = bool(tokenizer.chat_template) if apply_chat_template is None else apply_chat_template
    with _quiet():
        loaded = _load(list(tasks))
        for task in loaded["tasks"].values():
            # As `simple_evaluate` does, which besides asks the hub about the model, and pip about this machine.
            fixed = task.get_config("num_fewshot")
            task.set_config(key="num_fewshot", value=(num_fewshot if fixed != 0 else None) or fixed or 0)
            task.set_fewshot_seed(seed=seed)
        # A rendered prompt begins with its BOS already.
        lm = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            enable_thinking=False,
            add_bos_token=False if chat else None,
        )
        found = evaluate(
            lm=lm,
            task_dict=loaded,
            limit=limit,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            log_samples=log_samples,
        )
    kept = ["results", "groups", "n-shot", "n-samples", "versions", "higher_is_better"]
    return {name: found[name] for name in kept + ["samples"] * log_samples if name in found}


def scores_of(benchmarks: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float | None]]:
    """(task, metric, value, standard error or None) of every number in the harness's `results`; the metric is its own
    key, such as "acc,none"."""
    for task, metrics in benchmarks["results"].items():
        for key, value in metrics.items():
            name, comma, variant = key.partition(",")
            if comma and not name.endswith("_stderr") and isinstance(value, int | float):
                error = metrics.get(f"{name}_stderr,{variant}")
                yield task, key, float(value), float(error) if isinstance(error, int | float) else None


def check_tasks(names: Sequence[str]) -> "TaskManager":
    """The harness's list of tasks, in which all these are.

    Raises:
        MissingDependency: lm_eval is not installed.
        DataError: there is no such task.
    """
    need("lm_eval", "the benchmarks", "harness")
    from lm_eval.tasks import TaskManager

    with _quiet():
        manager = TaskManager(include_defaults=any(name not in LOCAL_TASKS for name in names))
    known = [*LOCAL_TASKS, *manager.all_tasks]
    for name in names:
        if name not in known:
            raise DataError(f"lm-evaluation-harness has no task {name!r}.{near_matches(name, known)}")
    return manager


def _load(names: list[str]) -> dict[str, Any]:
    """The harness's tasks and groups by name; their data is loaded here."""
    manager = check_tasks(names)
    try:
        return manager.load([_local(name) if name in LOCAL_TASKS else name for name in names])
    except Exception as error:  # datasets, the hub's client and the tasks' own code raise without a common class
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"the data of {', '.join(names)} cannot be loaded ({type(error).__name__}: {reason}). Tasks that need no "
            f"network: {', '.join(LOCAL_TASKS)}."
        ) from error


def _local(name: str) -> dict[str, Any]:
    from datasets import Dataset

    def rows(**_: Any) -> dict[str, Any]:
        return {"test": Dataset.from_list(local_rows(name))}

    return {"task": name, "custom_dataset": rows, "test_split": "test", **LOCAL_TASKS[name]}


@contextmanager
def _quiet() -> Iterator[None]:
    """The harness's and datasets' notes off: they warn of a live model, of a callable and of much that is intended."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
