"""The results of an evaluation in a few lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any

from ftkit.evaluation.harness import scores_of


def summary(results: Mapping[str, Any]) -> str:
    """What `LLMEvaluator.run_full_evaluation` returned, for a terminal."""
    return "\n".join(_lines(results))


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    base = results.get("baseline")
    yield from _model(results)
    if base:
        yield ""
        yield from _model(base)
        yield ""
        yield f"{results['model']} against {base['model']}, on the same rows:"
        for name, found in results["comparison"].items():
            yield f"  {name}: {found['says']}"
        if len(results["comparison"]) > 1:
            yield f"  {len(results['comparison'])} scores are compared: decide by the one that was chosen beforehand."
        if "forgetting" in results:
            found = results["forgetting"]
            yield f"  forgetting, bits per byte of {found['texts']} general texts: {found['says']}"
    if results.get("seen_in_training"):
        rows = results["instruction_following"]["rows"]
        yield f"WARNING: {results['seen_in_training']} of {rows} test rows ask what a training row asks."
    yield from (f"note: {note}" for note in results.get("notes", ()))


def _model(results: Mapping[str, Any]) -> Iterator[str]:
    yield results["model"]
    if "instruction_following" in results:
        found = results["instruction_following"]
        for name, score in found["scores"].items():
            yield f"  {name} {score['estimate']:.3f} [{score['low']:.3f}, {score['high']:.3f}] on {found['rows']} rows"
        for name, score in found.get("by_seed", {}).items():
            yield f"  {name} over seeds {score['estimate']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
        if "rouge" in found:
            yield "  " + ", ".join(f"{name} {value:.3f}" for name, value in found["rouge"].items())
        if "bleu" in found:
            yield f"  BLEU {found['bleu']['bleu']:.1f} ({found['bleu']['signature']}), chrF {found['chrf']['chrf']:.1f}"
        if "answer_perplexity" in found:
            yield f"  reference answers: {_perplexity(found['answer_perplexity'])}"
        if found.get("kept"):
            yield f"  {found['kept']} answers were given before, and kept"
        cut = found["finish"].get("length", 0)
        if cut:
            yield f"  {cut} answers did not stop within max_new_tokens"
        if found["finish"].get("prompt_too_long"):
            yield f"  {found['finish']['prompt_too_long']} prompts fill the model's context: not answered"
        errors = found["errors"]
        if errors["total_errors"]:
            kinds = ", ".join(f"{name} {rate:.1%}" for name, rate in errors["rates_by_category"].items())
            yield f"  errors {errors['error_rate']:.1%}: {kinds}"
    if "perplexity" in results:
        yield f"  texts: {_perplexity(results['perplexity'])}"
    if "benchmarks" in results:
        for task, metric, value, error in scores_of(results["benchmarks"]):
            yield f"  {task} {metric}: {value:.4f}" + (f" ± {error:.4f} (standard error)" if error else "")


def _perplexity(found: Mapping[str, Any]) -> str:
    left_out = f", {found['left_out']} texts left out" if found["left_out"] else ""
    return (
        f"perplexity {found['perplexity']:.2f}, {found['bits_per_byte']:.3f} bits per byte, "
        f"{found['total_tokens']} tokens{left_out}"
    )
