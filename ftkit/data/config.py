"""`DataConfig`: how data is prepared. The text below a field is its help, on the command line and in the book."""

from dataclasses import dataclass

from ftkit.arguments import check_types
from ftkit.errors import ConfigError, near_matches
from ftkit.fields import check_seed

TRAIN_ON = ("last", "all", "full")
TOO_LONG = ("drop", "truncate")
ON_ERROR = ("skip", "raise")


@dataclass
class DataConfig:
    """Everything that preparing data needs. A configuration that contradicts itself is refused when it is made."""

    model_name: str = "embedded"
    """Model whose tokenizer and chat template are used: `embedded`, `tiny-<family>`, a folder, or a hub id."""
    max_seq_length: int = 2048
    """Longest row in tokens."""
    train_split: float = 0.9
    """Share of the rows to train on. The three shares add up to 1; a source with splits of its own keeps those."""
    val_split: float = 0.05
    """Share of the rows to validate on while training."""
    test_split: float = 0.05
    """Share of the rows kept for the test."""
    min_length: int = 1
    """Fewest characters of a row's own text, without the system prompt and the template. 1: in Chinese or arithmetic a
    question and its answer can be that short."""
    max_length: int = 100_000
    """Most characters of a row's own text: a guard against runaway rows. What fits the model is max_seq_length's
    business, in tokens."""
    deduplicate: bool = True
    """Remove exact duplicates, and near-duplicates as near_duplicate_threshold says."""
    quality_filter: bool = True
    """Leave out rows that are too short or too long, were read in the wrong encoding, repeat themselves, or are prose
    with few letters. Code, mathematics, tables and JSON are not judged by their letters."""
    seed: int = 42
    """Seed of the splits and of MinHash: the same seed gives the same rows in the same order."""
    num_proc: int = 4
    """Processes, at most one a core and one for 2,500 rows."""

    near_duplicate_threshold: float | None = 0.8
    """Jaccard similarity of character 5-grams from which two rows count as one; at least 0.5. None removes exact
    duplicates only. Rows that are alike never stand in two splits, whether they are removed or not."""
    decontaminate: str | None = None
    """Test rows (a file, a folder or a shipped task) that must not be trained on: rows that hold one of their prompts
    or answers, by 50-character n-grams, are left out of all splits. A source's own held-out rows are always guarded."""
    train_on: str = "last"
    """What is trained of a conversation: last (its last answer), all (every answer of the assistant) or full (every
    token, prompts too)."""
    too_long: str = "drop"
    """A row longer than max_seq_length is left out (drop), or its end is cut (truncate), unless no target were left."""
    packing: bool = False
    """Put several training rows into one of max_seq_length tokens, kept apart by their positions. For many short rows
    on a GPU; not for DeepSeek-V3.2, whose sparse attention would mix them."""
    system_prompt: str | None = None
    """System prompt of the rows that bring none. Default: none is added; the template may have one of its own."""
    on_error: str = "skip"
    """A row that cannot be read is reported with file and line and left out (skip), or ends the run (raise)."""

    def __post_init__(self) -> None:
        check_types(self)
        for name, allowed in (("train_on", TRAIN_ON), ("too_long", TOO_LONG), ("on_error", ON_ERROR)):
            value = getattr(self, name)
            if value not in allowed:
                near = near_matches(value, allowed)
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.{near}")
        shares = {name: getattr(self, name) for name in ("train_split", "val_split", "test_split")}
        if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
            stated = ", ".join(f"{name}={share:g}" for name, share in shares.items())
            raise ConfigError(f"the three splits must be at least 0 and add up to 1: {stated}.")
        for name in ("max_seq_length", "max_length", "num_proc"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)!r}.")
        check_seed(self.seed)
        if self.max_length < self.min_length:
            raise ConfigError(f"min_length={self.min_length} is above max_length={self.max_length}; no row would stay.")
        threshold = self.near_duplicate_threshold
        if threshold is not None and not 0.5 <= threshold <= 1:
            raise ConfigError(f"near_duplicate_threshold must lie between 0.5 and 1, or be None, not {threshold!r}.")
