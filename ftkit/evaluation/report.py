"""The results of an evaluation as JSON and as one HTML page that needs nothing else.

Everything that a model, a row or a name brings into the page is escaped by the template engine, and the page's own
policy forbids scripts, forms and every request: a model that answers `<script>` shows its answer.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftkit.evaluation.harness import scores_of

RESULTS_FILE = "evaluation_results.json"
REPORT_FILE = "report.html"


def save(results: Mapping[str, Any], folder: Path) -> None:
    """Write `evaluation_results.json` and `report.html` into `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(results), indent=2, ensure_ascii=False)
    for name, content in ((RESULTS_FILE, text + "\n"), (REPORT_FILE, html(results))):
        part = folder / f".{name}.part"
        # A model may generate half of a surrogate pair, which UTF-8 cannot hold.
        part.write_text(content, encoding="utf-8", errors="replace")
        os.replace(part, folder / name)


def html(results: Mapping[str, Any]) -> str:
    """The report of `LLMEvaluator.run_full_evaluation`'s results."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ftkit.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    models = [results] + ([results["baseline"]] if "baseline" in results else [])
    answered = [model for model in models if "instruction_following" in model]
    return environment.get_template("report.html.j2").render(
        results=results,
        models=models,
        answered=answered,
        scores=list(answered[0]["instruction_following"]["scores"]) if answered else [],
        categories=_categories(answered),
        samples=_samples(answered),
        benchmarks=_benchmarks(models),
    )


def _categories(answered: list[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for model in answered:
        names |= dict.fromkeys(model["instruction_following"]["errors"]["errors_by_category"])
    return list(names)


def _samples(answered: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each kept row with the answers of all models beside each other."""
    columns = [model["instruction_following"]["samples"] for model in answered]
    return [
        {"instruction": row[0]["instruction"], "reference": row[0]["reference"]}
        | {"predictions": [(m["model"], one["prediction"]) for m, one in zip(answered, row, strict=True)]}
        for row in zip(*columns, strict=True)
    ]


def _benchmarks(models: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each task and metric, with a (value, standard error) for each model."""
    lines: dict[tuple[str, str], list] = {}
    for at, model in enumerate(models):
        for task, metric, value, error in scores_of(model.get("benchmarks", {"results": {}})):
            lines.setdefault((task, metric), [None] * len(models))[at] = (value, error)
    return [{"task": task, "metric": metric, "values": values} for (task, metric), values in lines.items()]


def _number(value: Any, digits: int = 3) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def _finite(value: Any) -> Any:
    """`value` with null for what JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
