"""`LoRAFineTuner`: rows in, an adapter in PEFT's format out, on the Transformers Trainer."""

import dataclasses
import hashlib
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, TrainingArguments

from ftkit.data.chat import encode_rows
from ftkit.data.prepared import prepared_rows
from ftkit.data.sources import load_data
from ftkit.errors import ConfigError, DataError
from ftkit.export.merge import merge_and_save
from ftkit.loss import trained_positions_only
from ftkit.methods.adapter import Adapter
from ftkit.methods.by_name import attach
from ftkit.methods.lora_plus import parameter_groups
from ftkit.methods.registry import METHODS, scale_note
from ftkit.models.loading import load
from ftkit.training.collator import Collator
from ftkit.training.config import RUN_FILE, LoRAConfig
from ftkit.training.memory import announce_memory
from ftkit.training.trainer import Progress, TokenTrainer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


class LoRAFineTuner:
    """Fine-tune a causal model with LoRA or one of its variants (`LoRAConfig.method`).

        tuner = LoRAFineTuner(LoRAConfig(data_dir="tickets", lora_r=8, max_steps=40, output_dir="run"))
        tuner.train()
        tuner.merge_and_save("merged")

    Args:
        config: the run's settings.
        data: rows in memory instead of `config.data_dir`: `{"train": [...], "validation": [...]}`, each row in the
            messages format; validation may be missing.

    After `train`: `model` (the PEFT model, in evaluation mode), `tokenizer`, `history` (the log, one dictionary an
    entry) and the run's folder `config.output_dir` with adapter, tokenizer, log and `ftkit_run.json`.
    """

    def __init__(self, config: LoRAConfig, data: dict[str, list[dict[str, Any]]] | None = None) -> None:
        self.config = config
        self.data = data
        self.adapter: Adapter | None = None
        self.model: PeftModel | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.dataset: dict[str, list[dict[str, list[int]]]] = {}
        self.trainer: TokenTrainer | None = None

    def load_model_and_tokenizer(self) -> tuple["PeftModel", "PreTrainedTokenizerBase"]:
        """Load the base in the precision of the machine, freeze it and attach the adapter to its linear layers."""
        c = self.config
        if METHODS[c.method].trains == METHODS["lora"].trains:  # the others keep other things for the backward pass
            announce_memory(c, "lora")
        attention = c.attn_implementation
        if attention == "auto" and not c.use_flash_attention:
            attention = "sdpa"
        base, self.tokenizer = load(
            c.model_name,
            dtype=c.torch_dtype,
            attn_implementation=attention,
            trust_remote_code=c.trust_remote_code,
            seed=c.seed,
        )
        self.adapter = attach(
            base,
            c.method,
            r=c.lora_r,
            lora_alpha=c.lora_alpha,
            lora_dropout=c.lora_dropout,
            target_modules=c.target_modules,
            modules_to_save=c.modules_to_save,
            use_rslora=c.use_rslora,
            delta_lora_start_step=c.delta_lora_start_step,
            delta_lora_ratio=c.delta_lora_ratio,
            seed=c.seed,
        )
        self.model = self.adapter.model
        trainable, total = self.model.get_nb_trainable_parameters()
        name = "LoRA" if c.method == "lora" else METHODS[c.method].title
        print(f"{name} r={c.lora_r}: {trainable:,} of {total:,} parameters train ({trainable / total:.2%}), in float32")
        if note := scale_note(c.lora_r, c.lora_alpha, c.use_rslora):
            print(note)
        return self.model, self.tokenizer

    def load_data(self) -> dict[str, list[dict[str, list[int]]]]:
        """Rows to ids and labels with the model's chat template; a row longer than `max_seq_length` is left out.

        Raises:
            DataError: there are no training rows, or none of a split's rows fits.
        """
        data = load_data(self.config.data_dir) if self.data is None else self.data
        if not data.get("train"):
            raise DataError(f"{self.config.data_dir} has no training rows; name them train.jsonl.")
        for split in ("train", "validation"):
            if data.get(split):
                self.dataset[split] = self._encode(split, data[split])
        return self.dataset

    def _encode(self, split: str, rows: list[dict]) -> list[dict[str, list[int]]]:
        if "input_ids" in rows[0]:
            encoded = prepared_rows(rows, self.tokenizer, folder=self.config.data_dir if self.data is None else None)
        else:
            encoded = [row for one in encode_rows(self.tokenizer, rows) for row in one.rows]
        kept = [row for row in encoded if len(row["input_ids"]) <= self.config.max_seq_length]
        if not kept:
            shortest = min(len(row["input_ids"]) for row in encoded)
            raise DataError(
                f"all {len(rows)} {split} rows are longer than max_seq_length={self.config.max_seq_length} tokens; the "
                f"shortest has {shortest}, so raise it to at least that."
            )
        trained = sum(label != -100 for row in kept for label in row["labels"])
        tokens = sum(len(row["input_ids"]) for row in kept)
        left_out = f", {len(rows) - len(kept)} longer than {self.config.max_seq_length} left out" * (kept != encoded)
        print(f"{split}: {len(kept)} rows{left_out}, {tokens:,} tokens, {trained:,} of them trained")
        return kept

    def get_optimizer_grouped_parameters(self) -> list[dict[str, Any]]:
        """AdamW's groups: matrices with decay, vectors without; under LoRA+ B and embeddings at their own rates."""
        c = self.config
        return parameter_groups(
            self.model,
            learning_rate=c.learning_rate,
            weight_decay=c.weight_decay,
            ratio=c.lora_plus_lambda if c.use_lora_plus else None,
            embedding_learning_rate=c.lora_plus_embedding_lr,
        )

    def create_trainer(self) -> TokenTrainer:
        """The Trainer with this run's arguments, optimizer and progress bar."""
        c, validate = self.config, "validation" in self.dataset
        on_gpu = torch.cuda.is_available()
        base_dtype = self.model.get_base_model().dtype
        if c.use_wandb:
            os.environ.setdefault("WANDB_PROJECT", c.project_name)
        arguments = TrainingArguments(
            output_dir=c.output_dir,
            num_train_epochs=c.num_epochs,
            max_steps=c.max_steps or -1,
            per_device_train_batch_size=c.batch_size,
            per_device_eval_batch_size=c.batch_size,
            gradient_accumulation_steps=c.gradient_accumulation_steps,
            learning_rate=c.learning_rate,
            weight_decay=c.weight_decay,
            # Below 1 the Trainer reads it as a ratio and rounds up, so that a short run still warms up.
            warmup_steps=c.warmup_ratio,
            lr_scheduler_type=c.lr_scheduler_type,
            max_grad_norm=c.max_grad_norm,
            **_checkpointing(c.use_gradient_checkpointing),
            # Autocast only where the GPU needs it for speed; on a CPU the base's own dtype already decides.
            bf16=on_gpu and base_dtype == torch.bfloat16,
            fp16=on_gpu and base_dtype == torch.float16,
            use_cpu=not on_gpu,
            logging_steps=c.logging_steps,
            include_num_input_tokens_seen="non_padding",
            eval_strategy="steps" if validate else "no",
            eval_steps=c.eval_steps,
            save_strategy="steps",
            save_steps=c.save_steps,
            save_only_model=True,
            save_total_limit=c.save_total_limit,
            load_best_model_at_end=validate and self.adapter.keeps_best,
            metric_for_best_model="eval_loss" if validate else None,
            greater_is_better=False if validate else None,
            dataloader_pin_memory=on_gpu,
            remove_unused_columns=False,
            report_to="wandb" if c.use_wandb else "none",
            run_name=c.run_name,
            disable_tqdm=True,
            seed=c.seed,
        )
        optimizer = torch.optim.AdamW(self.get_optimizer_grouped_parameters(), betas=(0.9, 0.95), eps=1e-8)
        self.trainer = TokenTrainer(
            self.adapter,
            args=arguments,
            train_dataset=self.dataset["train"],
            eval_dataset=self.dataset.get("validation"),
            data_collator=Collator(self.tokenizer.pad_token_id),
            optimizers=(optimizer, None),
            callbacks=[Progress()],
        )
        self.trainer.remove_callback(PrinterCallback)
        return self.trainer

    def train(self) -> dict[str, float]:
        """Run it all, save the adapter into `output_dir`, and return the metrics.

        Raises:
            ConfigError: `output_dir` already holds a run; it is never overwritten.
        """
        output = Path(self.config.output_dir)
        # One process asks for all: the others would find the folder that the first has made by then.
        if int(os.environ.get("RANK", 0)) == 0 and output.exists() and any(output.iterdir()):
            raise ConfigError(f"output_dir {output} is not empty; name another folder, or delete it to run again.")
        started = time.perf_counter()
        if self.model is None:
            self.load_model_and_tokenizer()
        if not self.dataset:
            self.load_data()
        # Within the block the Trainer is made as well: it asks the model's forward whether it weighs by token itself.
        with trained_positions_only(self.model.get_base_model()):
            self.create_trainer()
            result = self.trainer.train()
            metrics = {"train_loss": result.training_loss, "train_runtime": result.metrics["train_runtime"]}
            if "validation" in self.dataset:
                metrics |= self._evaluation()
        self.model.eval()
        metrics["steps"] = self.trainer.state.global_step
        metrics["total_runtime"] = time.perf_counter() - started
        if self.trainer.is_world_process_zero():
            self._save(output, metrics)
        return metrics

    def _evaluation(self) -> dict[str, float]:
        """The validation metrics of the weights that training ended with, from the log where they stand in it."""
        state = self.trainer.state
        if state.best_global_step == state.global_step:
            return next(e for e in reversed(self.history) if "eval_loss" in e)
        return self.trainer.evaluate()

    @property
    def history(self) -> list[dict[str, float]]:
        """The log: entries with `step` and `loss`, `learning_rate`, `grad_norm`, or with `step` and `eval_loss`."""
        return self.trainer.state.log_history

    def merge_and_save(self, output_path: str | Path) -> float:
        """Merge the adapter into the base and save a model that needs no PEFT; see `ftkit.export.merge_and_save`."""
        return merge_and_save(self.config.output_dir, output_path)

    def _save(self, output: Path, metrics: dict[str, float]) -> None:
        self.adapter.save(str(output))
        self.tokenizer.save_pretrained(str(output))
        (output / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in self.history))
        record = {
            "method": self.config.method,
            "config": dataclasses.asdict(self.config),
            "metrics": metrics,
            "data_sha256": _fingerprint(self.dataset),
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("ftkit", "torch", "transformers", "peft", "accelerate")},
            },
        }
        beside = output / f".{RUN_FILE}"
        beside.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(beside, output / RUN_FILE)


def _fingerprint(dataset: dict[str, list[dict[str, list[int]]]]) -> str:
    """SHA-256 over the ids and labels that the run saw."""
    return hashlib.sha256(json.dumps(dataset, sort_keys=True).encode()).hexdigest()


def _checkpointing(use: bool) -> dict[str, Any]:
    """The Trainer's arguments for recomputing activations, under the name that this version of it has."""
    if not use:
        return {}
    name = "activation" if "activation_checkpointing" in TrainingArguments.__dataclass_fields__ else "gradient"
    return {f"{name}_checkpointing": True, f"{name}_checkpointing_kwargs": {"use_reentrant": False}}
