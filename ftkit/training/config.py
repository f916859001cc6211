"""Configurations of the trainers. The text below a field is its help: on the command line, here, and in the book."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from ftkit.arguments import check_types
from ftkit.errors import ConfigError, near_matches
from ftkit.fields import check_seed
from ftkit.methods.registry import check, learning_rate
from ftkit.models.precision import ATTENTIONS, DTYPES
from ftkit.models.quantized import QUANT_TYPES

RUN_FILE = "ftkit_run.json"
"""Record of a run, written last into its folder: its presence says that the run is whole."""
OPTIMIZERS = ("paged_adamw_8bit", "adamw_8bit", "paged_adamw_32bit", "adamw_torch")
SCHEDULERS = ("linear", "cosine", "constant", "constant_with_warmup")
MIXED = ("auto", "bf16", "fp16", "no")


@dataclass
class TrainingConfig(ABC):
    """What every run needs, whatever it trains. A configuration that contradicts itself is refused when it is made."""

    model_name: str = "embedded"
    """Base model: `embedded` (a real 135M model that needs no hub), `tiny-<family>`, a folder, or a hub id."""
    torch_dtype: str = "auto"
    """Precision of the model: auto (bfloat16 where the hardware has it, float16 on older GPUs, else float32), float32,
    bfloat16 or float16. What is trained is float32 in any case."""
    attn_implementation: str = "auto"
    """Attention: auto (FlashAttention 2 where it is installed and the GPU has it, else sdpa), sdpa, eager or
    flash_attention_2."""
    use_flash_attention: bool = True
    """Whether auto may choose FlashAttention 2. It never fails for want of it."""
    trust_remote_code: bool = False
    """Run Python code that a hub repository brings. Off: a model's weights should not execute code."""

    learning_rate: float | None = None
    """Peak learning rate. Default by method, printed with its reason: 2e-5 for full fine-tuning, 2e-4 for LoRA."""
    weight_decay: float = 0.01
    """AdamW's decay, on matrices only: neither norms nor biases."""
    num_epochs: float = 3.0
    """Passes over the training rows; max_steps, where given, wins."""
    max_steps: int | None = None
    """Optimizer steps in all, whatever the number of rows."""
    batch_size: int = 8
    """Rows a device takes at once."""
    gradient_accumulation_steps: int = 4
    """Batches whose gradients make one optimizer step; every trained token of the step weighs the same."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm where they exceed it."""
    max_nonfinite_steps: int = 10
    """Steps whose loss or gradient is not finite. They are skipped and logged; one more stops the run and names its
    rows."""
    warmup_ratio: float = 0.03
    """Share of the steps in which the learning rate rises from 0 (at least one step where it is above 0). The
    schedule constant has no warm-up."""
    lr_scheduler_type: str = "cosine"
    """Course of the learning rate after the warm-up: linear, cosine, constant or constant_with_warmup; constant has no
    warm-up."""
    early_stopping_patience: int | None = None
    """Stop after so many evaluations in a row without a new lowest validation loss. Default: never."""
    use_gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: far less memory for a third to a half more time."""

    data_dir: str = "./processed_data"
    """Training data: a folder that `ftkit prepare` wrote, one with train.jsonl (and validation.jsonl, test.jsonl), a
    .jsonl, .json, .csv or .parquet file, a data set of the hub, or a task that ships with ftkit (tickets)."""
    max_seq_length: int = 2048
    """Longest row in tokens. A longer one is left out and counted, never cut: the cut would fall on its answer."""
    group_by_length: bool = False
    """Batch rows of like length, so that less of a batch is padding. Off: batches are then less random."""
    packing: bool = False
    """Put several training rows into one of max_seq_length tokens; none sees another. Off: a batch then holds another
    number of rows each time, and not every family can."""

    output_dir: str = "./finetuned_model"
    """The run's folder: model or adapter, tokenizer, configuration, log and metrics."""
    resume: bool = False
    """Go on from the last checkpoint in output_dir, to the bit as if the run had never stopped. Off: a folder that
    holds a run is refused."""
    save_steps: int = 200
    """Steps between checkpoints. Each is evaluated, so that the best one can be kept."""
    eval_steps: int = 100
    """Steps between evaluations on the validation rows."""
    logging_steps: int = 10
    """Steps between two reports to the progress bar and to trackers; the log in output_dir has every step."""
    save_total_limit: int = 3
    """Checkpoints kept, the best and the last among them."""

    report_to: tuple[str, ...] = ()
    """Trackers to report to (tensorboard, wandb, mlflow, trackio, ...). Default none: nothing leaves the machine unless
    it is asked to."""
    project_name: str = "llm-finetuning"
    """Project under which Weights & Biases files the run."""
    run_name: str | None = None
    """Name of the run there."""
    use_wandb: bool = False
    """Report to Weights & Biases; the same as wandb in report_to. Off: nothing leaves the machine unless it is asked
    to."""

    seed: int = 42
    """Seed of all that is drawn: an adapter's initialisation, the order of rows, dropout."""

    def __post_init__(self) -> None:
        check_types(self)
        self.chosen: dict[str, str] = {}  # field that was left to its default by method: reason
        self.settle()
        _one_of("torch_dtype", self.torch_dtype, DTYPES)
        _one_of("attn_implementation", self.attn_implementation, ATTENTIONS)
        _one_of("lr_scheduler_type", self.lr_scheduler_type, SCHEDULERS)
        for name in _POSITIVE:
            value = getattr(self, name, None)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} must be above 0, not {value!r}.")
        for name in ("lora_dropout", "warmup_ratio"):
            if not 0 <= getattr(self, name, 0) < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, not {getattr(self, name)!r}.")
        for name in ("weight_decay", "max_nonfinite_steps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must not be negative, but is {getattr(self, name)!r}.")
        check_seed(self.seed)
        if self.attn_implementation == "flash_attention_2" and not self.use_flash_attention:
            raise ConfigError(
                "attn_implementation='flash_attention_2' contradicts use_flash_attention=False; drop one of them."
            )
        if self.packing and self.group_by_length:
            raise ConfigError("packing leaves no padding that group_by_length could save; drop one of them.")
        if self.use_wandb and "wandb" not in self.report_to:
            self.report_to += ("wandb",)
        self.use_wandb = "wandb" in self.report_to
        if not self.use_wandb and self.run_name is not None:
            raise ConfigError("run_name names a Weights & Biases run, but use_wandb is False; set it or drop run_name.")

    def _refuse_set(self, names: tuple[str, ...], why: str) -> None:
        """Refuse the fields that hold another value than their default, which nothing would read."""
        for name in names:
            if (value := getattr(self, name)) != type(self).__dataclass_fields__[name].default:
                raise ConfigError(f"{name}={value!r} {why}.")

    @abstractmethod
    def settle(self) -> None:
        """Fill in what was left to the method, and refuse what it cannot be combined with."""


@dataclass
class FullFineTuningConfig(TrainingConfig):
    """Fine-tune all weights of a model. A configuration that contradicts itself is refused when it is made."""

    torch_dtype: str = "auto"
    """Precision of the arithmetic: auto (bfloat16 where the hardware has it, float16 on older GPUs, else float32),
    float32, bfloat16 or float16. The weights are float32 in any case: at 2e-5 most updates are smaller than what
    bfloat16 weights can hold, and would be rounded away."""
    mixed_precision: str = "auto"
    """The same under Accelerate's names: auto (as torch_dtype says), bf16, fp16 or no (float32)."""
    batch_size: int = 4
    gradient_accumulation_steps: int = 8
    lr_scheduler_type: str = "linear"
    use_gradient_checkpointing: bool = True
    output_dir: str = "./full_finetuned_model"
    save_steps: int = 500
    project_name: str = "llm-full-finetuning"

    def settle(self) -> None:
        _one_of("mixed_precision", self.mixed_precision, MIXED)
        if self.learning_rate is None:
            self.learning_rate, self.chosen["learning_rate"] = learning_rate("full")
        if self.mixed_precision != "auto":
            dtype = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}[self.mixed_precision]
            if self.torch_dtype not in ("auto", dtype):
                raise ConfigError(
                    f"torch_dtype={self.torch_dtype!r} contradicts mixed_precision={self.mixed_precision!r}; drop one."
                )
            self.torch_dtype = dtype


@dataclass
class LoRAConfig(TrainingConfig):
    """Fine-tune with LoRA or one of its variants. What contradicts itself is refused when it is made."""

    torch_dtype: str = "auto"
    """Precision of the frozen base: auto (bfloat16 where the hardware has it, float16 on older GPUs, else float32),
    float32, bfloat16 or float16. What is trained is float32 in any case."""
    output_dir: str = "./lora_finetuned_model"
    project_name: str = "llm-lora-finetuning"

    method: str = "lora"
    """What is trained: lora, rslora (sets use_rslora), lora+ (sets use_lora_plus), lora-fa (A stays frozen: less
    memory, as long as there is no dropout), vera (two vectors a layer), delta-lora (the base weight moves too), dora
    (a trained length for each row), adalora (ranks move to where they matter) or pissa (LoRA from the largest singular
    values)."""
    lora_r: int = 64
    """Rank r of the update BA. An adapted d_out x d_in layer trains r (d_in + d_out) numbers. VeRA, which trains
    d_out + r, wants 256 and more; AdaLoRA ends with this rank on average."""
    lora_alpha: float | None = None
    """Scale: the update is multiplied by lora_alpha / r. Default 2 r (under rsLoRA 2 sqrt(r)), so that the factor stays
    2 whatever the rank. VeRA has none."""
    lora_dropout: float = 0.0
    """Dropout before A. Off: it costs memory and time, and shows no steady gain in one to three epochs."""
    target_modules: tuple[str, ...] | None = None
    """Names of the linear layers to adapt. Default: all of the family's attention and MLP layers, never the head."""
    modules_to_save: tuple[str, ...] | None = None
    """Modules trained whole beside LoRA. Default none: embeddings and head would be 15% of an 8B model, and are worth
    it only when tokens were added."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) instead. Off: at r 64 and alpha 128 the factor would be 16, not 2; alpha 16 would
    match."""

    use_lora_plus: bool = False
    """LoRA+: a higher learning rate for B than for A. Off: the gain depends on the task, and the rate of A must then be
    searched again."""
    lora_plus_lambda: float = 16.0
    """LoRA+'s ratio of B's learning rate to A's."""
    lora_plus_embedding_lr: float = 1e-6
    """LoRA+'s learning rate of embeddings that modules_to_save trains: they keep a low one of their own."""
    delta_lora_start_step: int | None = None
    """Delta-LoRA's first step after which the base weight moves with BA. Default: a tenth of the run (the paper: 500).
    From step 0 on it is LoRA with alpha times 1 + ratio, and nothing else."""
    delta_lora_ratio: float = 2.0
    """Delta-LoRA's lambda: the base weight moves by so many times the change of the update."""

    def settle(self) -> None:
        features = ("use_rslora", "use_lora_plus", "lora_dropout", "lora_alpha")
        check(self.method, [feature for feature in features if getattr(self, feature)])
        self.use_rslora = self.use_rslora or self.method == "rslora"
        self.use_lora_plus = self.use_lora_plus or self.method == "lora+"
        if self.learning_rate is None:
            name = "lora+" if self.use_lora_plus else self.method
            self.learning_rate, self.chosen["learning_rate"] = learning_rate(name)
        if self.lora_alpha is None and self.method != "vera" and self.lora_r > 0:
            self.lora_alpha = 2 * math.sqrt(self.lora_r) if self.use_rslora else 2 * self.lora_r
            self.chosen["lora_alpha"] = "the update's scale is then 2, whatever the rank"
        if self.method != "delta-lora":
            need = f"means nothing to method={self.method!r}; set it to 'delta-lora' or drop it"
            self._refuse_set(("delta_lora_start_step", "delta_lora_ratio"), need)
        elif self.delta_lora_start_step is not None and self.delta_lora_start_step < 0:
            raise ConfigError(f"delta_lora_start_step must not be negative, but is {self.delta_lora_start_step}.")
        if not self.use_lora_plus:
            need = "means nothing where use_lora_plus is False; set it or drop it"
            self._refuse_set(("lora_plus_lambda", "lora_plus_embedding_lr"), need)
        if self.method == "adalora" and self.early_stopping_patience is not None:
            raise ConfigError(
                "early_stopping_patience would end AdaLoRA before its ranks have shrunk; drop it or choose a method."
            )
        both = set(self.target_modules or ()) & set(self.modules_to_save or ())
        if both:
            raise ConfigError(
                f"{', '.join(sorted(both))} stands in target_modules and in modules_to_save; a module is either "
                "adapted or trained whole, so drop it from one of them."
            )
        if self.target_modules is not None and not self.target_modules:
            raise ConfigError("target_modules is empty, so nothing would be trained; name layers or leave it out.")


@dataclass
class QLoRAConfig(LoRAConfig):
    """Fine-tune with LoRA on a base in 4 bits. A configuration that contradicts itself is refused when it is made."""

    torch_dtype: str = "auto"
    """Precision of what is not in 4 bits (embeddings, head, norms), and of the arithmetic: auto (bfloat16 where the
    hardware has it, float16 on older GPUs, else float32), float32, bfloat16 or float16. What is trained is float32."""
    load_in_4bit: bool = True
    """Hold the base's linear layers and experts in 4 bits. Where False, the base is loaded as LoRA loads it."""
    bnb_4bit_compute_dtype: str = "auto"
    """Precision in which a linear layer in 4 bits multiplies. auto is torch_dtype's choice: bfloat16, the guide's, is
    emulated on a T4."""
    bnb_4bit_quant_type: str = "nf4"
    """nf4, or fp4, whose error on normally distributed weights is a third larger."""
    bnb_4bit_use_double_quant: bool = True
    """Hold the scales in 8 bits too: 4.127 bits a weight instead of 4.5."""
    optim: str = "paged_adamw_8bit"
    """AdamW's states: paged_adamw_8bit (8 bits, moved out of a GPU's memory when it runs full), adamw_8bit,
    paged_adamw_32bit or adamw_torch (float32). Without bitsandbytes adamw_torch is taken."""
    batch_size: int = 4
    gradient_accumulation_steps: int = 8
    max_grad_norm: float = 0.3
    use_gradient_checkpointing: bool = True
    output_dir: str = "./qlora_finetuned_model"
    project_name: str = "llm-qlora-finetuning"

    def settle(self) -> None:
        super().settle()
        for name, allowed in (
            ("bnb_4bit_compute_dtype", DTYPES),
            ("bnb_4bit_quant_type", QUANT_TYPES),
            ("optim", OPTIMIZERS),
        ):
            _one_of(name, getattr(self, name), allowed)
        if self.load_in_4bit:
            check(self.method, ["quantised_base"])
        else:
            names = ("bnb_4bit_compute_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")
            self._refuse_set(names, "means nothing where load_in_4bit is False; set it or drop it")


_POSITIVE = (
    "lora_r",
    "lora_alpha",
    "learning_rate",
    "num_epochs",
    "max_steps",
    "batch_size",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "lora_plus_lambda",
    "lora_plus_embedding_lr",
    "delta_lora_ratio",
    "early_stopping_patience",
    "max_seq_length",
    "save_steps",
    "eval_steps",
    "logging_steps",
    "save_total_limit",
)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.{near_matches(value, allowed)}")
