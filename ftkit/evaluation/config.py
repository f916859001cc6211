"""Settings of an evaluation. The text below a field is its help: on the command line, here, and in the book."""

from dataclasses import dataclass

from ftkit.arguments import check_types
from ftkit.errors import ConfigError, near_matches
from ftkit.fields import check_seed
from ftkit.models.precision import DTYPES


@dataclass
class EvaluationConfig:
    """How a model is evaluated. A configuration that contradicts itself is refused when it is made."""

    model_path: str = "embedded"
    """What to evaluate: `embedded`, `tiny-<family>`, a hub id, or a folder with a model or an adapter."""
    torch_dtype: str = "auto"
    """Precision of the weights: auto (bfloat16 where the hardware has it, float16 on older GPUs, else float32),
    float32, bfloat16 or float16."""
    device: str = "auto"
    """auto (a CUDA GPU where there is one), cpu, cuda or cuda:<index>."""
    trust_remote_code: bool = False
    """Run Python code that a hub repository brings. Off: a model's weights should not execute code."""

    max_new_tokens: int = 256
    """Longest answer in tokens; one that has not stopped by then is cut and counted."""
    do_sample: bool = False
    """Draw tokens instead of taking the likeliest. Off: two runs then give the same answers, and a difference between
    two models is not one of luck."""
    temperature: float = 0.7
    """Sharpness of the drawing; means nothing without do_sample."""
    top_p: float = 0.9
    """Share of the probability, from the likeliest token down, that is drawn from; means nothing without do_sample."""
    seed: int = 42
    """Seed of the drawing and of the bootstrap."""
    num_seeds: int = 1
    """Answers drawn for each prompt, each with a seed of its own, over which its scores are averaged."""

    keep_answers: bool = False
    """Take greedy answers that the very same weights have given before, to the same prompts and settings, from the
    user's cache, and keep new ones there: one baseline then answers once for many runs."""

    batch_size: int = 16
    """Prompts, or windows of text, at once."""
    num_samples: int | None = None
    """Evaluate on the first so many rows only. Default: all."""

    compute_perplexity: bool = True
    """Perplexity and bits per byte: of plain texts, and of the reference answers given their prompts."""
    compute_rouge: bool | None = None
    """ROUGE. Default: where rouge_score is installed (the extra `metrics`)."""
    compute_bleu: bool | None = None
    """BLEU and chrF. Default: where sacrebleu is installed (the extra `metrics`)."""
    general_texts: int = 24
    """Passages of general English on which model and baseline are compared, to see what was forgotten; 0 leaves it
    out."""

    output_dir: str = "./evaluation_results"
    """Folder of evaluation_results.json and report.html; those of an earlier evaluation there are replaced."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.torch_dtype not in DTYPES:
            near = near_matches(self.torch_dtype, DTYPES)
            raise ConfigError(f"torch_dtype must be one of {', '.join(DTYPES)}, not {self.torch_dtype!r}.{near}")
        for name in ("max_new_tokens", "batch_size", "num_samples", "num_seeds", "temperature"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                hint = " Leave it out for all rows." if name == "num_samples" else ""
                raise ConfigError(f"{name} must be above 0, not {value!r}.{hint}")
        check_seed(self.seed)
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, not {self.top_p!r}.")
        if self.general_texts < 0:
            raise ConfigError(f"general_texts must not be negative, but is {self.general_texts}.")
        if self.keep_answers and self.do_sample:
            raise ConfigError("keep_answers is for greedy answers; drawn ones are new each time: leave do_sample out.")
        if self.num_seeds > 1 and not self.do_sample:
            raise ConfigError("num_seeds above 1 means nothing to greedy answers; set do_sample or leave it at 1.")
