"""`LLMEvaluator`: a model, alone or against a baseline, on held-out rows, plain texts and benchmarks, in one call."""

import dataclasses
import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.data.batches import question
from ftkit.errors import ConfigError, DataError
from ftkit.evaluation import metrics, report
from ftkit.evaluation.config import EvaluationConfig
from ftkit.evaluation.errors_by_category import Categorise, analyse
from ftkit.evaluation.general import general_texts
from ftkit.evaluation.generate import generate
from ftkit.evaluation.harness import LOCAL_TASKS, check_tasks, run_harness
from ftkit.evaluation.measure import Measured, compare_measured, measure_answers
from ftkit.evaluation.perplexity import Likelihood, check_readable, perplexity, text_likelihoods
from ftkit.evaluation.rows import conversations
from ftkit.evaluation.summary import summary
from ftkit.folders import check_writable

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

Messages = list[dict[str, Any]]
Rows = Iterable[Mapping[str, Any]]
"""A `datasets.Dataset`, a list of dictionaries, or any other source of rows."""


class LLMEvaluator:
    """Evaluates one model, alone or against a baseline.

        evaluator = LLMEvaluator(EvaluationConfig(model_path="run", num_samples=200))
        results = evaluator.run_full_evaluation(rows, baseline="embedded")
        evaluator.print_summary(results)

    Args:
        config: the settings; default all defaults.
        model, tokenizer: a live model instead of `config.model_path`, which then only names it in the results.
        verbose: draw progress bars on stderr and say on stdout how a model is loaded.

    The model is loaded when it is first needed, so that a baseline can be measured, and let go, before.

    Raises:
        MissingDependency: a metric was asked for (`compute_rouge`, `compute_bleu`) whose package is not installed.
    """

    def __init__(
        self,
        config: EvaluationConfig | None = None,
        model: "PreTrainedModel | None" = None,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        *,
        verbose: bool = True,
    ) -> None:
        self.config = config or EvaluationConfig()
        if (model is None) != (tokenizer is None):
            raise ConfigError("a live model needs its tokenizer, and a tokenizer its model: give both or neither.")
        self.verbose = verbose
        self._loaded = None if model is None else (model, tokenizer)
        self._load_metrics()

    @property
    def model(self) -> "PreTrainedModel":
        return self._load_model()[0]

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        return self._load_model()[1]

    def _load_model(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        if self._loaded is None:
            from ftkit.models import load

            self._loaded = load(
                self.config.model_path,
                dtype=self.config.torch_dtype,
                device=self.config.device,
                trust_remote_code=self.config.trust_remote_code,
                verbose=self.verbose,
            )
        return self._loaded

    def _load_metrics(self) -> None:
        """`metrics`, by name, and `notes`, a sentence for each that is not installed and was not insisted on."""
        self.metrics: dict[str, Callable] = {}
        self.notes: list[str] = []
        wanted = (
            ("rouge_score", self.config.compute_rouge, {"rouge": metrics.rouge}),
            ("sacrebleu", self.config.compute_bleu, {"bleu": metrics.bleu, "chrf": metrics.chrf}),
        )
        for package, wish, functions in wanted:
            names = " and ".join(functions)
            if wish:
                metrics.need(package, names)
            if wish is None and find_spec(package) is None:
                self.notes.append(f"{names}: not computed, for want of {package}; pip install 'ftkit[metrics]'")
            elif wish is not False:
                self.metrics |= functions

    def compute_perplexity(self, texts: Sequence[str]) -> dict[str, float]:
        """Perplexity and bits per byte of plain texts: `ftkit.evaluation.perplexity.Perplexity` as a dictionary."""
        return dataclasses.asdict(perplexity(self._texts(texts)))

    def generate_responses(
        self, prompts: Sequence[str | Messages], generation_config: "GenerationConfig | None" = None
    ) -> list[str]:
        """Answers to prompts, each a user's text or a list of messages, rendered by the model's chat template."""
        conversations = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
        options = self._generation | {"seed": self.config.seed, "generation_config": generation_config}
        options["keep"] &= generation_config is None
        return generate(self.model, self.tokenizer, conversations, **options)

    def compute_rouge_scores(self, predictions: Sequence[str], references: metrics.References) -> dict[str, float]:
        """`rouge1`, `rouge2`, `rougeL` and `rougeLsum`, 0 to 1."""
        return metrics.rouge(predictions, references)

    def compute_bleu_score(self, predictions: Sequence[str], references: metrics.References) -> dict[str, Any]:
        """`bleu`, 0 to 100, `precisions` and `signature`. One reference a prediction, or a list of them."""
        return metrics.bleu(predictions, references)

    def evaluate_instruction_following(
        self,
        dataset: Rows,
        instruction_col: str = "instruction",
        response_col: str = "response",
        *,
        score: metrics.Score | None = None,
        categorize_fn: Categorise | None = None,
    ) -> dict[str, Any]:
        """Let the model answer the rows' prompts, and score the answers.

        Args:
            dataset: rows in any format of `ftkit.data`, or with the two named columns; `input`, where a row has it,
                belongs to the question.
            score: row score. Default: JSON fields where all references are JSON objects, else exact match and token F1.
            categorize_fn: names the kind of a wrong answer; see `ftkit.evaluation.errors_by_category`.

        Returns:
            `rows`, `scores` (name to `estimate`, `low`, `high`), `row_scores` (name to one number a row), `finish` (how
            many answers stopped, were cut, had a prompt too long), `kept` (how many came from the cache), `rouge`,
            `bleu`, `chrf`, `fields`, `answer_perplexity`, `errors` and ten `samples`.
        """
        rows = conversations(dataset, instruction_col, response_col, self.config.num_samples)
        measured = self._measure(rows, score=score, categorize_fn=categorize_fn)
        return measured.result["instruction_following"]

    def run_lm_eval_harness(
        self, tasks: Sequence[str] = tuple(LOCAL_TASKS), num_fewshot: int | None = None, limit: int | None = None
    ) -> dict[str, Any]:
        """Benchmarks by lm-evaluation-harness, with the model's chat template; see `run_harness`. Default: the tasks
        that ship with ftkit. Those of the hub ("hellaswag", "arc_easy", ...) need a network."""
        options = {"num_fewshot": num_fewshot, "limit": limit, "batch_size": self.config.batch_size}
        return run_harness(self.model, self.tokenizer, tasks, **options)

    def analyze_errors(
        self,
        prompts: Sequence[str],
        predictions: Sequence[str],
        references: Sequence[str],
        categorize_fn: Categorise | None = None,
    ) -> dict[str, Any]:
        """Wrong answers by category, with rates and examples; see `ftkit.evaluation.errors_by_category.analyse`."""
        return analyse(prompts, predictions, references, categorize_fn=categorize_fn).as_dict()

    def run_full_evaluation(
        self,
        test_dataset: Rows | None = None,
        test_texts: Sequence[str] | None = None,
        instruction_col: str = "instruction",
        response_col: str = "response",
        run_benchmarks: bool = False,
        *,
        baseline: "str | LLMEvaluator | None" = None,
        train_dataset: Rows | None = None,
        tasks: Sequence[str] = tuple(LOCAL_TASKS),
        score: metrics.Score | None = None,
        categorize_fn: Categorise | None = None,
    ) -> dict[str, Any]:
        """All of it, for the model and, on the same rows, prompts and texts, for a baseline; written to `output_dir`.

        Args:
            test_dataset: rows to answer, as in `evaluate_instruction_following`.
            test_texts: plain texts for perplexity.
            run_benchmarks: run `tasks` of lm-evaluation-harness.
            baseline: a second model, measured first: a name or folder, or an evaluator that holds a live one.
                Forgetting is then measured on general text too.
            train_dataset: rows that the model was trained on; test rows that ask the same are counted.

        Returns:
            What `evaluation_results.json` holds: `model`, `instruction_following` (with `rows`), `perplexity`,
            `benchmarks`; with a baseline also `baseline` (the same keys), `comparison` and `forgetting`;
            `seen_in_training` with training rows.

        Raises:
            DataError: there is nothing to evaluate, or a data set is empty.
            ConfigError: `output_dir` cannot be written.
        """
        if test_dataset is None and test_texts is None and not run_benchmarks:
            raise DataError("there is nothing to evaluate: give test_dataset, test_texts or run_benchmarks=True.")
        check_writable(Path(self.config.output_dir), Path(self.config.output_dir))
        if run_benchmarks:
            check_tasks(tasks)
        columns = (instruction_col, response_col)
        rows = None if test_dataset is None else conversations(test_dataset, *columns, self.config.num_samples)
        results: dict[str, Any] = {
            "model": self.config.model_path,
            "date": time.strftime("%Y-%m-%d %H:%M:%S"),
            "settings": dataclasses.asdict(self.config),
            "versions": {name: version(name) for name in ("ftkit", "torch", "transformers")},
            "notes": list(self.notes),
        }
        if rows is not None and train_dataset is not None:
            seen = {question(row) for row in conversations(train_dataset, *columns, plain=True)}
            results["seen_in_training"] = sum(question(row) in seen for row in rows)
        work = {
            "rows": rows,
            "texts": test_texts,
            "general": general_texts(self.config.general_texts) if baseline and self.config.general_texts else [],
            "tasks": tasks if run_benchmarks else (),
            "score": score,
            "categorize_fn": categorize_fn,
        }
        base = None
        if baseline is not None:
            other = self._baseline(baseline)
            base = other._measure(**work)
            results["baseline"] = {"model": other.config.model_path} | base.result
            del other  # its memory is the model's
            gc.collect()
        tuned = self._measure(**work)
        results |= tuned.result
        if base is not None:
            results |= compare_measured(base, tuned, self.config.seed)
        report.save(results, Path(self.config.output_dir))
        return results

    def print_summary(self, results: Mapping[str, Any]) -> None:
        """The results of `run_full_evaluation` in a few lines."""
        print(summary(results))

    @property
    def _generation(self) -> dict[str, Any]:
        names = ("max_new_tokens", "batch_size", "do_sample", "temperature", "top_p")
        more = {"keep": self.config.keep_answers, "progress": self.verbose}
        return {name: getattr(self.config, name) for name in names} | more

    @property
    def _reading(self) -> dict[str, Any]:
        return {"batch_size": self.config.batch_size, "progress": self.verbose}

    def _baseline(self, baseline: "str | LLMEvaluator") -> "LLMEvaluator":
        if isinstance(baseline, LLMEvaluator):
            return baseline
        if self._loaded is None:  # a misspelt name should not cost the baseline's hour
            from ftkit.models.loading import load_config

            load_config(self.config.model_path, trust_remote_code=self.config.trust_remote_code)
        return LLMEvaluator(dataclasses.replace(self.config, model_path=baseline), verbose=self.verbose)

    def _texts(self, texts: Sequence[str]) -> list[Likelihood]:
        return text_likelihoods(self.model, self.tokenizer, texts, **self._reading)

    def _measure(self, rows, *, texts=None, general=(), tasks=(), score=None, categorize_fn=None) -> Measured:
        measured = Measured()
        if general or (self.config.compute_perplexity and (rows is not None or texts is not None)):
            check_readable(self.model)  # before hours of answers, not after them
        if rows is not None:
            measure_answers(
                measured,
                self.model,
                self.tokenizer,
                rows,
                generation=self._generation,
                seeds=[self.config.seed + i for i in range(self.config.num_seeds)],
                corpus_metrics=self.metrics,
                score=score,
                categorize_fn=categorize_fn,
                reading=self._reading if self.config.compute_perplexity else None,
            )
        if texts is not None and self.config.compute_perplexity:
            measured.texts = self._texts(texts)
            measured.result["perplexity"] = dataclasses.asdict(perplexity(measured.texts))
        if general:
            measured.general = self._texts(general)
        if tasks:
            measured.result["benchmarks"] = self.run_lm_eval_harness(tasks)
        return measured
