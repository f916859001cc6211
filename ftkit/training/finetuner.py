"""`FineTuner`: what every run does, whatever it trains. Its children say what that is."""

import math
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, TrainerState, TrainingArguments, get_scheduler, set_seed

from ftkit.data.chat import encode_rows
from ftkit.data.formats import to_messages
from ftkit.data.packing import PACKABLE, best_fit, join
from ftkit.data.prepared import prepared_rows
from ftkit.data.sources import load_data
from ftkit.errors import ConfigError, DataError, Interrupted, MissingDependency, TrainingError, near_matches
from ftkit.export.card import write_card
from ftkit.folders import open_to_others, refused_by_disk
from ftkit.loss import trained_positions_only
from ftkit.methods.adapter import Adapter
from ftkit.methods.lora_plus import parameter_groups
from ftkit.models.loading import ADAPTER_FILE
from ftkit.training import checkpoint as checkpoints
from ftkit.training import record
from ftkit.training.callbacks import Progress, SavePoints
from ftkit.training.collator import Collator
from ftkit.training.config import TrainingConfig
from ftkit.training.signals import stopped_by_signals
from ftkit.training.trainer import SHARDING, TokenTrainer, mean_loss

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class FineTuner(ABC):
    """Fine-tune a causal model. A child loads it, says what is trained (`adapter`), and may choose the optimizer.

    Args:
        config: the run's settings.
        data: rows in memory instead of `config.data_dir`: `{"train": [...], "validation": [...]}`, each row in a format
            that `ftkit.data.load_data` reads, or with `input_ids` and `labels`; validation may be missing. Or a table
            that `load_data` takes.

    Raises:
        ConfigError: `config.model_name` is an adapter's folder.

    After `train`: `model` (in evaluation mode), `tokenizer`, `history` (the log) and the run's folder
    `config.output_dir`.
    """

    def __init__(self, config: TrainingConfig, data: dict[str, list[dict[str, Any]]] | None = None) -> None:
        self.config = config
        self.data = data
        self.adapter: Adapter | None = None
        self.model: PreTrainedModel | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.dataset: dict[str, list[dict[str, list[int]]] | Dataset] = {}
        self.arguments: TrainingArguments | None = None
        self.trainer: TokenTrainer | None = None
        self._read: dict[str, list[dict[str, Any]] | Dataset] | None = None
        # What `accelerate launch` sets: said before a model is loaded.
        if any(os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED")):
            raise ConfigError(SHARDING)
        if (Path(config.model_name) / ADAPTER_FILE).is_file():
            raise ConfigError(
                f"model_name {config.model_name} is an adapter; merge it (`ftkit merge`) and train on the merged model."
            )
        self.setup_seed()

    # ---- Steps of the guide ----

    def setup_seed(self) -> None:
        """Seed Python, NumPy and torch with `config.seed`."""
        set_seed(self.config.seed)

    @abstractmethod
    def load_model_and_tokenizer(self) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
        """Load the model, decide what of it trains, and set `adapter`, `model` and `tokenizer`."""

    @abstractmethod
    def mixed_precision(self) -> str:
        """bf16, fp16 or no: the number format that autocast computes in."""

    def load_data(self) -> "dict[str, list[dict[str, list[int]]] | Dataset]":
        """Rows to ids and labels with the model's chat template; a row longer than `max_seq_length` is left out.

        A folder that `ftkit prepare` wrote stays on the disk, memory-mapped; other rows are encoded into memory.

        Raises:
            DataError: there are no training rows, or none of a split's rows fits.
            ConfigError: rows are to be packed, and the model cannot keep them apart; or validation rows are needed.
        """
        data, self._read = self._rows(), None
        for split in ("train", "validation"):
            if data.get(split):
                self.dataset[split] = self._encode(split, data[split])
        if self.config.early_stopping_patience and "validation" not in self.dataset:
            raise ConfigError("early_stopping_patience needs validation rows, and there are none; drop it or add some.")
        if self.config.packing:
            self.dataset["train"] = self._pack(self.dataset["train"])
        return self.dataset

    def setup_accelerator(self) -> TrainingArguments:
        """The Trainer's arguments: processes, device, mixed precision, accumulation, and when to do what."""
        c, validate = self.config, "validation" in self.dataset
        precision = self.mixed_precision()
        on_gpu = torch.cuda.is_available()
        self.arguments = TrainingArguments(
            output_dir=c.output_dir,
            num_train_epochs=c.num_epochs,
            max_steps=c.max_steps or -1,
            per_device_train_batch_size=c.batch_size,
            per_device_eval_batch_size=c.batch_size,
            gradient_accumulation_steps=c.gradient_accumulation_steps,
            train_sampling_strategy="group_by_length" if c.group_by_length else "random",
            learning_rate=c.learning_rate,
            weight_decay=c.weight_decay,
            max_grad_norm=c.max_grad_norm,
            **_checkpointing(c.use_gradient_checkpointing),
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            use_cpu=not on_gpu,
            logging_steps=c.logging_steps,
            logging_nan_inf_filter=False,  # what is not finite is logged as such
            eval_strategy="steps" if validate else "no",
            eval_steps=c.eval_steps,
            save_strategy="steps",
            save_steps=c.save_steps,
            save_total_limit=c.save_total_limit,
            dataloader_pin_memory=on_gpu,
            remove_unused_columns=False,
            report_to=list(c.report_to) or "none",
            run_name=c.run_name,
            disable_tqdm=True,
            seed=c.seed,
            data_seed=c.seed,
        )
        # Without torchrun the Trainer would take every GPU by `nn.DataParallel`, which copies the model at each step
        # and runs the first copy's `forward` on all of them.
        self.arguments._n_gpu = min(self.arguments.n_gpu, 1)
        return self.arguments

    def get_optimizer_grouped_parameters(self) -> list[dict[str, Any]]:
        """AdamW's groups: matrices with decay; norms, biases and vectors without."""
        return parameter_groups(
            self.model, learning_rate=self.config.learning_rate, weight_decay=self.config.weight_decay
        )

    def create_optimizer(self) -> torch.optim.Optimizer:
        """AdamW; beta2 0.95 instead of 0.999 forgets old gradients within a short run."""
        return torch.optim.AdamW(self.get_optimizer_grouped_parameters(), betas=(0.9, 0.95), eps=1e-8)

    def setup_optimizer_and_scheduler(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimizer, and the course of its learning rate over the run's optimizer steps on all processes."""
        c, total = self.config, self.total_steps()
        optimizer = self.create_optimizer()
        # Rounded up, so that a short run still warms up; the warm-up's first step has rate 0, so one must follow.
        warmup = min(math.ceil(c.warmup_ratio * total), total - 1)
        return optimizer, get_scheduler(
            c.lr_scheduler_type, optimizer, num_warmup_steps=warmup, num_training_steps=total
        )

    def setup_wandb(self) -> None:
        """Name the project for Weights & Biases, where it is asked for; the Trainer starts the run and logs to it.

        Raises:
            MissingDependency: a tracker is asked for and not installed.
            ConfigError: there is no such tracker.
        """
        if self.config.use_wandb:
            os.environ.setdefault("WANDB_PROJECT", self.config.project_name)
        from transformers.integrations.integration_utils import (
            INTEGRATION_TO_CALLBACK,
            get_available_reporting_integrations,
        )

        if missing := set(self.config.report_to) - set(get_available_reporting_integrations()):
            name = sorted(missing)[0]
            if name not in INTEGRATION_TO_CALLBACK:
                near = near_matches(name, INTEGRATION_TO_CALLBACK)
                raise ConfigError(f"report_to names {name!r}, which is no tracker of Transformers.{near}")
            raise MissingDependency(f"report_to names {name}, which is not installed; run: pip install {name}")

    def create_trainer(self) -> TokenTrainer:
        """The Trainer with this run's arguments, optimizer, schedule and callbacks."""
        self.setup_accelerator()
        self.setup_wandb()
        c = self.config
        self.trainer = TokenTrainer(
            self.adapter,
            tokenizer=self.tokenizer,
            run=record.identity(c, self.dataset, self.arguments.world_size),
            max_nonfinite_steps=c.max_nonfinite_steps,
            args=self.arguments,
            train_dataset=_Numbered(self.dataset["train"]),
            eval_dataset=self.dataset.get("validation"),
            data_collator=Collator(
                self.tokenizer.pad_token_id,
                one_row=self.adapter.causal_model.config._attn_implementation == "flash_attention_2",
            ),
            optimizers=self.setup_optimizer_and_scheduler(),
        )
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.add_callback(SavePoints(self.trainer, "validation" in self.dataset, c.early_stopping_patience))
        self.trainer.add_callback(Progress(self.trainer))
        return self.trainer

    def evaluate(self) -> dict[str, float]:
        """Loss, perplexity, and the sums behind them, of the model as it is on the validation rows.

        Raises:
            DataError: there are none.
        """
        self._prepare()
        if "validation" not in self.dataset:
            raise DataError(f"{self.config.data_dir} has no validation rows; name them validation.jsonl.")
        with trained_positions_only(self.adapter.causal_model):
            return self.trainer.evaluate()

    def save_checkpoint(self, step: int) -> Path:
        """Write the state of the running training after `step` as `checkpoint-{step}`, and return that folder.

        `train` does so every `save_steps`; a callback may do so in between.

        Raises:
            ConfigError: no training is running, or it stands at another step.
        """
        if self.trainer is None or not self.trainer.is_in_train or step != self.trainer.state.global_step:
            raise ConfigError(f"no training stands at step {step}: a checkpoint is written while `train` runs.")
        return self.trainer.save_checkpoint()

    def train(self, resume: bool | None = None) -> dict[str, float]:
        """Run it all, save the result with its model card into `output_dir`, and return the metrics.

        Args:
            resume: go on from the last checkpoint in `output_dir`; start where there is none. Default:
                `config.resume`. A run that is complete is loaded, not run again.

        Raises:
            ConfigError: `output_dir` already holds a run, which is never overwritten; or one with other settings than
                those to resume with.
            Interrupted: SIGTERM, SIGHUP or SIGINT (Ctrl-C) came; the state after the step it was in is saved. A second
                Ctrl-C ends the run at once.
            TrainingError: too many steps without a finite loss and gradient, or no room on the disk.
        """
        resume = self.config.resume if resume is None else resume
        output, started = Path(self.config.output_dir), time.perf_counter()
        # One process asks for all: the others would find the folder that the first has made by then.
        if int(os.environ.get("RANK", 0)) == 0:
            record.check_folder(output, resume)
        self.setup_seed()
        self._prepare()
        checkpoint = record.last_checkpoint(output, self.trainer.run) if resume else None
        times = record.times(output) if checkpoint is not None else {}  # a run that is complete is only read
        with trained_positions_only(self.adapter.causal_model), stopped_by_signals(self.trainer) as came:
            if self.trainer.is_world_process_zero():
                record.begin(output, self.config, fresh=checkpoint is None)
            runtime = self._run(checkpoint, came)
        metrics = self._best(output)
        self.model.eval()
        metrics |= times or {"train_runtime": runtime, "total_runtime": time.perf_counter() - started}
        if self.trainer.is_world_process_zero():
            try:
                self.adapter.save(str(output))
                self.tokenizer.save_pretrained(str(output))
                record.finish(output, self.config, metrics, self.trainer.run["data_sha256"], self.history)
                write_card(output)
                open_to_others(output)
            except Exception as error:
                if not refused_by_disk(error):
                    raise
                raise TrainingError(
                    f"the result could not be written into {output} ({error}); the last checkpoint stands. Make room, "
                    "then finish with --resume (in Python: resume=True)."
                ) from error
        self.trainer.accelerator.wait_for_everyone()
        return metrics

    @property
    def history(self) -> list[dict[str, Any]]:
        """The log: an entry for each step (`step`, `loss`, ...) and evaluation (`step`, `eval_loss`, ...)."""
        return self.trainer.records

    def total_steps(self) -> int:
        """Optimizer steps of the run: as the Trainer counts them, a last incomplete group included."""
        c = self.config
        if c.max_steps:
            return c.max_steps
        batches = math.ceil(math.ceil(len(self.dataset["train"]) / c.batch_size) / self.arguments.world_size)
        return math.ceil(c.num_epochs * math.ceil(batches / c.gradient_accumulation_steps))

    # ---- Its parts ----

    def _rows(self) -> "dict[str, list[dict[str, Any]] | Dataset]":
        """The rows as they stand in their source."""
        if self._read is None and isinstance(self.data, Mapping):
            self._read = {split: _in_messages(split, rows) for split, rows in self.data.items()}
        elif self._read is None:
            self._read = load_data(self.config.data_dir if self.data is None else self.data)
        if not self._read.get("train"):
            where = f"{self.config.data_dir} has no training rows; name them train.jsonl."
            raise DataError(where if self.data is None else "there are no training rows in data['train'].")
        return self._read

    def _prepare(self) -> None:
        if not self.dataset:
            self._rows()  # before the model: a wrong path should not cost its loading
        if self.model is None:
            self.load_model_and_tokenizer()
            try:
                with trained_positions_only(self.adapter.causal_model):
                    pass
            except ValueError as error:  # before the data is encoded and the run's folder is begun
                raise ConfigError(f"{self.config.model_name} cannot be trained by ftkit: {error}.") from None
            for name, reason in self.config.chosen.items():
                print(f"{name}={getattr(self.config, name):g}: {reason}")
        if not self.dataset:
            self.load_data()
        if self.trainer is None:
            self.create_trainer()

    def _run(self, checkpoint: Path | None, came: list[signal.Signals]) -> float:
        """Train, from `checkpoint` where there is one, until a signal `came`; returns the seconds."""
        started, trainer = time.perf_counter(), self.trainer
        self.setup_seed()
        if checkpoint is None:
            trainer.train()
        else:
            trainer.resume_from(checkpoint)
            print(f"resuming from {checkpoint}")
            if trainer.resumed["finished"]:
                self.adapter.restore(str(checkpoint))
                trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
            else:
                trainer.train(resume_from_checkpoint=str(checkpoint))
        if trainer.interrupted and trainer.state.global_step < trainer.state.max_steps:
            number = came[0] if came else signal.SIGTERM  # none: it came to another process
            raise Interrupted(
                f"stopped by {number.name} after step {trainer.state.global_step} of {trainer.state.max_steps}, which "
                f"is saved in {self.config.output_dir}; go on with --resume (in Python: train(resume=True)).",
                number,
            )
        return time.perf_counter() - started

    def _best(self, output: Path) -> dict[str, float]:
        """Restore the best checkpoint, where the last is not the best, and return the metrics of what then stands."""
        trainer = self.trainer
        step = last = trainer.state.global_step
        metrics = {"steps": last, "train_loss": mean_loss(trainer.records)}
        evaluated = {entry["step"]: entry for entry in trainer.records if "eval_loss" in entry}
        best = trainer.best_step()
        loss = evaluated.get(last, {}).get("eval_loss", math.inf)
        if best is not None and not loss <= evaluated[best]["eval_loss"]:  # also where the last is NaN
            self.adapter.restore(str(checkpoints.path_of(output, best)))
            step = best
        if step in evaluated:
            entry = evaluated[step]
            perplexity = math.exp(entry["eval_loss"]) if entry["eval_loss"] < 700 else math.inf
            metrics |= entry | {"step": step, "eval_perplexity": perplexity}
        return metrics

    def _encode(self, split: str, rows: "list[dict] | Dataset") -> "list[dict[str, list[int]]] | Dataset":
        if "input_ids" in rows[0]:
            encoded = prepared_rows(rows, self.tokenizer, folder=self.config.data_dir if self.data is None else None)
        else:
            encoded = self._rendered(split, rows)
        limit, lengths = self.config.max_seq_length, [len(row["input_ids"]) for row in encoded]
        fitting = [i for i, length in enumerate(lengths) if length <= limit]
        if not fitting:
            raise DataError(
                f"all {len(rows)} {split} rows are longer than max_seq_length={limit} tokens; the shortest has "
                f"{min(lengths)}, so raise it to at least that."
            )
        left_out = ""
        if len(fitting) < len(encoded):
            left_out = f", {len(encoded) - len(fitting)} longer than {limit} left out"
            in_memory = isinstance(encoded, list)
            encoded = [encoded[i] for i in fitting] if in_memory else encoded.select(fitting)
        known, trained = self.model.get_input_embeddings().num_embeddings, 0
        for i, row in zip(fitting, encoded, strict=True):
            trained += sum(label != -100 for label in row["labels"])
            if (highest := max(row["input_ids"])) >= known:
                token = self.tokenizer.convert_ids_to_tokens(highest)
                raise DataError(
                    f"{split} row {i + 1}: the token {token!r} has the id {highest}, but the model's embedding has "
                    f"{known} rows; call model.resize_token_embeddings(len(tokenizer)) and save the model so."
                )
        tokens = sum(lengths[i] for i in fitting)
        print(f"{split}: {len(encoded)} rows{left_out}, {tokens:,} tokens, {trained:,} of them trained")
        return encoded

    def _rendered(self, split: str, rows: list[dict[str, Any]]) -> list[dict[str, list[int]]]:
        try:
            return [row for one in encode_rows(self.tokenizer, rows) for row in one.rows]
        except DataError:  # one of them: find it
            for i, row in enumerate(rows, start=1):
                try:
                    encode_rows(self.tokenizer, [row])
                except DataError as error:
                    raise DataError(f"{split} row {i}: {error}") from None
            raise

    def _pack(self, rows: "list[dict[str, list[int]]] | Dataset") -> list[dict[str, list[int]]]:
        if (kind := self.adapter.causal_model.config.get_text_config().model_type) not in PACKABLE:
            raise ConfigError(f"packing would mix rows: a {kind} model cannot keep them apart; drop it.")
        if "position_ids" in rows[0]:
            return rows  # packed when they were prepared
        packs = best_fit([len(row["input_ids"]) for row in rows], self.config.max_seq_length)
        packed = [join([rows[i] for i in pack]) for pack in packs]
        print(f"packed: {len(rows)} rows into {len(packed)} of at most {self.config.max_seq_length} tokens")
        return packed


def _in_messages(split: str, rows: "Sequence[dict[str, Any]] | Dataset") -> "Sequence[dict[str, Any]] | Dataset":
    """Rows as `load_data` gives them; encoded ones stay as they are."""
    if len(rows) and "input_ids" in rows[0]:
        return rows
    return [to_messages(row, f"{split} row {i}") for i, row in enumerate(rows, start=1)]


class _Numbered:
    """Rows that say which they are; a memory-mapped table stays on the disk."""

    def __init__(self, rows: "Sequence[dict[str, Any]] | Dataset") -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {**self.rows[i], "row": i}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({**row, "row": i} for i, row in enumerate(self.rows))


def _checkpointing(use: bool) -> dict[str, Any]:
    """The Trainer's arguments for recomputing activations, under the name that this version of it has."""
    if not use:
        return {}
    name = "activation" if "activation_checkpointing" in TrainingArguments.__dataclass_fields__ else "gradient"
    return {f"{name}_checkpointing": True, f"{name}_checkpointing_kwargs": {"use_reentrant": False}}
