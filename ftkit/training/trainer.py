"""The Transformers Trainer with sums over tokens, a log of every step, and checkpoints that resume to the bit."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from transformers import Trainer

from ftkit.errors import ConfigError, TrainingError
from ftkit.loss import IGNORE_INDEX
from ftkit.methods.adapter import Adapter, AdapterCallback
from ftkit.training import checkpoint as checkpoints
from ftkit.training.callbacks import EpochOrder
from ftkit.training.sampler import EpochSampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOG_FILE = "log.jsonl"
SHARDING = (
    "FSDP or DeepSpeed is switched on, and ftkit does not train with them: every process must hold the whole model. "
    "Start it by torchrun instead, or train with QLoRA where the model is too large for one card."
)


class TokenTrainer(Trainer):
    """`Trainer` for a causal model whose loss is a mean over trained tokens.

    Args:
        adapter: its model is trained; it acts around each step, and writes and restores what is trained.
        tokenizer: saved with each checkpoint.
        run: what a checkpoint says about the run beside its state (settings, fingerprint of the data).
        max_nonfinite_steps: steps without a finite loss and gradient that are skipped; one more is an error.
        arguments: of `Trainer`, but the model.

    Attributes:
        records: the log. One entry an optimizer step: `step`, `epoch`, `loss` (`nll` / `tokens`: the sum of the
            negative log-likelihoods over the trained tokens), `input_tokens`, `learning_rate`, `grad_norm` (before
            clipping); a skipped step has `skipped` (what is not finite: "loss" or "gradient"; "scale" where float16's
            loss scale was too large, which is no fault and not counted) and `rows` in place of loss and norm. One
            entry an evaluation: `step`, `eval_loss`, `eval_nll`, `eval_tokens`. No times, so that equal runs have
            equal logs.
        interrupted: set it, and the run saves its state after the step it is in, and ends.

    Raises:
        ConfigError: the weights are to be sharded.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        run: dict[str, Any] | None = None,
        max_nonfinite_steps: int = 0,
        **arguments,
    ) -> None:
        super().__init__(model=adapter.model, **arguments)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError(SHARDING)
        # The loss is divided by the tokens of the whole step inside the model, see `ftkit.loss`.
        self.model_accepts_loss_kwargs = True
        self.adapter, self.tokenizer, self.run = adapter, tokenizer, run or {}
        self.max_nonfinite_steps = max_nonfinite_steps
        self.records: list[dict[str, Any]] = []
        self.interrupted = False
        self.add_callback(AdapterCallback(adapter))
        self.add_callback(EpochOrder(self))

    # ---- Steps ----

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._rows = [batch.pop("rows") for batch in batches if "rows" in batch]
        self._tokens, self._losses = tokens, []
        self._input_tokens = sum(
            batch["attention_mask"].sum() if "attention_mask" in batch else batch["input_ids"].numel()
            for batch in batches
        )
        return batches, tokens

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._losses.append(loss)
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        """Called once all gradients of a step are there and clipped: the place to refuse the step."""
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # Each rank's loss is scaled by the number of ranks, as DDP's mean of the gradients wants it.
        sums = torch.stack([torch.stack(self._losses).sum().double(), self._as_double(self._input_tokens)])
        loss, input_tokens = self.accelerator.reduce(sums, reduction="sum").tolist()
        loss, norm, tokens = loss / self.accelerator.num_processes, float(grad_norm), int(self._tokens)
        record = {"step": self.state.global_step + 1, "tokens": tokens, "input_tokens": int(input_tokens)}
        record["learning_rate"] = self._get_learning_rate()
        if math.isfinite(loss) and math.isfinite(norm):
            record |= {"loss": loss, "nll": loss * tokens, "grad_norm": norm}
        else:
            self._skip(record, "gradient" if math.isfinite(loss) else "loss")
        self.records.append(record)
        return grad_norm

    def _as_double(self, value: Any) -> torch.Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=self.args.device)

    def _skip(self, record: dict[str, Any], what: str) -> None:
        """Take the gradients away, so that the optimizer moves nothing.

        Raises:
            TrainingError: too many steps were skipped.
        """
        rows = sorted(row for part in gather_object([torch.cat(self._rows).tolist()]) for row in part)
        scaler = self.accelerator.scaler
        if what == "gradient" and scaler is not None and scaler.get_scale() > 1:
            what = "scale"
        record |= {"skipped": what, "rows": rows}
        for parameter in self.model.parameters():
            parameter.grad = None
        if what == "scale":  # the scaler of float16 lowers its scale until gradients fit: that is its ordinary work
            return
        skipped = 1 + sum(earlier.get("skipped") in ("loss", "gradient") for earlier in self.records)
        if skipped > self.max_nonfinite_steps:
            raise TrainingError(
                f"the {what} of step {record['step']} is not finite, and {skipped - 1} steps before it were skipped "
                f"for the same; its training rows, counted from 0, are {', '.join(map(str, rows))}. Look at them, "
                "lower learning_rate, or raise max_nonfinite_steps."
            )

    # ---- Data ----

    def _get_train_sampler(self, train_dataset=None) -> EpochSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        group = None
        if self.args.train_sampling_strategy == "group_by_length":
            group = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        self.order = EpochSampler([len(row["input_ids"]) for row in rows], self.args.seed, group)
        return self.order

    # ---- Log and evaluation ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As `Trainer.log`, with the mean over the trained tokens since the last report, across a resume too."""
        if "loss" in logs:
            last = max((entry["step"] for entry in self.state.log_history if "loss" in entry), default=0)
            logs["loss"] = mean_loss(record for record in self.records if record["step"] > last)
        super().log(logs, start_time)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Mean negative log-likelihood over all trained tokens, whatever the batch size and the number of processes.

        The stock evaluation averages the batches' means, so that a token's weight depends on which rows it was batched
        with, and repeats rows where they do not go evenly into the processes. Returns `{prefix}_loss`, `_perplexity`,
        `_nll`, `_tokens` and `_runtime` in seconds.
        """
        started, model = time.perf_counter(), self.model
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        was_training = model.training
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)  # negative log-likelihood, trained tokens
        with torch.no_grad():
            for batch in self._shares(rows):
                batch.pop("rows", None)
                batch = self._prepare_inputs(batch)
                with self.accelerator.autocast():
                    nll = model(**batch, num_items_in_batch=1)["loss"].double()
                sums[0] += nll
                sums[1] += (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        model.train(was_training)
        total, tokens = self.accelerator.reduce(sums, reduction="sum").tolist()
        loss = total / tokens
        metrics = {
            f"{metric_key_prefix}_loss": loss,
            f"{metric_key_prefix}_perplexity": math.exp(loss) if loss < 700 else math.inf,
            f"{metric_key_prefix}_nll": total,
            f"{metric_key_prefix}_tokens": int(tokens),
            f"{metric_key_prefix}_runtime": time.perf_counter() - started,
        }
        if self.is_in_train:
            self.record(
                {"step": self.state.global_step, "eval_loss": loss, "eval_nll": total, "eval_tokens": int(tokens)}
            )
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _shares(self, rows) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of this process, each row in one process only; rows of like length come together."""
        size = self.args.per_device_eval_batch_size
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
        own = order[self.args.process_index :: self.args.world_size]
        for start in range(0, len(own), size):
            yield self.data_collator([rows[i] for i in own[start : start + size]])

    def record(self, entry: dict[str, Any]) -> None:
        """Add an entry to the log."""
        self.records.append(entry)
        self._write(entry)

    def end_step(self) -> None:
        """The step's entry is complete."""
        self.records[-1]["epoch"] = self.state.epoch
        self._write(self.records[-1])

    def _write(self, entry: dict[str, Any]) -> None:
        if self.is_world_process_zero():
            try:
                with open(Path(self.args.output_dir) / LOG_FILE, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            except OSError as error:
                raise TrainingError(f"the log could not be written ({error}); make room, then resume.") from error

    # ---- Checkpoints ----

    def save_checkpoint(self) -> Path:
        """Write all that resuming needs as `checkpoint-{step}`, whole or not at all, and remove the oldest.

        Every process must call it.
        """
        output, step = Path(self.args.output_dir), self.state.global_step
        folder = checkpoints.path_of(output, step)
        randoms = gather_object([checkpoints.random_state()])
        if self.is_world_process_zero():
            with checkpoints.written_whole(folder) as beside:
                self._save(str(beside))
                self.adapter.save_state(str(beside))
                checkpoints.write_state(beside, self._state(randoms))
                self.state.save_to_json(str(beside / "trainer_state.json"))
                log = "".join(json.dumps(entry) + "\n" for entry in self.records)
                (beside / LOG_FILE).write_text(log, encoding="utf-8")
            checkpoints.prune(output, self.args.save_total_limit, self.best_step())
        self.accelerator.wait_for_everyone()
        return folder

    def best_step(self) -> int | None:
        """The checkpoint with the lowest validation loss, the earlier of equals; None where none was evaluated."""
        here = set(checkpoints.steps(Path(self.args.output_dir)))
        evaluated = [e for e in self.records if not math.isnan(e.get("eval_loss", math.nan)) and e["step"] in here]
        losses = [(e["eval_loss"], e["step"]) for e in evaluated]
        return min(losses)[1] if losses and self.adapter.keeps_best else None

    def _state(self, randoms: list[dict[str, Any]]) -> dict[str, Any]:
        done = self.state.global_step >= self.state.max_steps
        scaler = self.accelerator.scaler
        return {
            "step": self.state.global_step,
            "finished": done or (self.control.should_training_stop and not self.interrupted),
            "optimizer": self._named(self.optimizer.state_dict()),
            "scheduler": self.lr_scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": randoms,
            "run": self.run,
        }

    def _names(self) -> list[str]:
        """Names of the optimizer's parameters, in its order."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return [names[id(parameter)] for group in self.optimizer.param_groups for parameter in group["params"]]

    def _named(self, state: dict[str, Any]) -> dict[str, Any]:
        names = self._names()
        groups = [{**group, "params": [names[i] for i in group["params"]]} for group in state["param_groups"]]
        return {**state, "state": {names[i]: kept for i, kept in state["state"].items()}, "param_groups": groups}

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state, index = self.resumed["optimizer"], {name: i for i, name in enumerate(self._names())}
        groups = [{**group, "params": [index[name] for name in group["params"]]} for group in state["param_groups"]]
        kept = {index[name]: of_one for name, of_one in state["state"].items()}
        self.optimizer.load_state_dict({**state, "state": kept, "param_groups": groups})
        self.lr_scheduler.load_state_dict(self.resumed["scheduler"])

    def resume_from(self, folder: Path) -> None:
        """Read a checkpoint, and cut the log back to it; `train(resume_from_checkpoint=...)` does the rest."""
        self.resumed = checkpoints.read_state(folder)
        log = (folder / LOG_FILE).read_text(encoding="utf-8")
        self.records[:] = [json.loads(line) for line in log.splitlines()]
        if self.is_world_process_zero():
            beside = Path(self.args.output_dir) / f".{LOG_FILE}"
            beside.write_text(log, encoding="utf-8")
            beside.replace(Path(self.args.output_dir) / LOG_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        self.adapter.restore(resume_from_checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.resumed["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(self.resumed["scaler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.set_random_state(self.resumed["random"][self.args.process_index])

    def _save_checkpoint(self, model, trial) -> None:
        self.save_checkpoint()

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """The model in safetensors, with its tokenizer and nothing pickled beside it."""
        if self.args.should_save:
            self.adapter.save(output_dir or self.args.output_dir, state_dict)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(output_dir or self.args.output_dir)


def mean_loss(records) -> float:
    """Mean negative log-likelihood a trained token over the steps among `records`; NaN where all were skipped."""
    sums = [(record["nll"], record["tokens"]) for record in records if "nll" in record]
    return sum(nll for nll, _ in sums) / sum(tokens for _, tokens in sums) if sums else math.nan
