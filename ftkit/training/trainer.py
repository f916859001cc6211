"""The Transformers Trainer with an evaluation that sums over tokens, nothing pickled, and an adapter's own steps."""

import math
import time

import torch
from transformers import Trainer, TrainerCallback

from ftkit.errors import ConfigError
from ftkit.loss import IGNORE_INDEX
from ftkit.methods.adapter import Adapter, AdapterCallback


class TokenTrainer(Trainer):
    """`Trainer` for an adapted causal model whose loss is a mean over trained tokens.

    Args:
        adapter: its model is trained; it acts around each step, and writes and restores the checkpoints.
        arguments: of `Trainer`, but the model.

    Raises:
        ConfigError: the weights are sharded, and the method needs them whole.
    """

    def __init__(self, adapter: Adapter, **arguments) -> None:
        super().__init__(model=adapter.model, **arguments)
        if adapter.whole_weights and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ConfigError(
                f"{type(adapter).__name__} works on whole weight matrices, which FSDP and DeepSpeed cut into pieces; "
                "train it on one device or with DDP."
            )
        self.adapter = adapter
        self.add_callback(AdapterCallback(adapter))

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Mean negative log-likelihood over all trained tokens, whatever the batch size.

        The stock evaluation averages the batches' means, so that a token's weight depends on which rows it was batched
        with. Returns `{prefix}_loss`, `_perplexity`, `_tokens` and `_runtime` in seconds.
        """
        started, model = time.perf_counter(), self.model
        was_training = model.training
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64)  # negative log-likelihood, trained tokens
        loader = self.get_eval_dataloader(eval_dataset)
        with torch.no_grad():
            for batch in loader:
                batch = self._prepare_inputs(batch)
                with self.compute_loss_context_manager():
                    sums[0] += model(**batch, num_items_in_batch=1)["loss"].double().cpu()
                sums[1] += (batch["labels"][:, 1:] != IGNORE_INDEX).sum().cpu()
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        model.train(was_training)
        total, tokens = self.accelerator.reduce(sums.to(self.args.device), reduction="sum").tolist()
        loss = total / tokens
        metrics = {
            f"{metric_key_prefix}_loss": loss,
            f"{metric_key_prefix}_perplexity": math.exp(loss) if loss < 700 else math.inf,
            f"{metric_key_prefix}_tokens": int(tokens),
            f"{metric_key_prefix}_runtime": time.perf_counter() - started,
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Weights in safetensors and nothing pickled beside them."""
        self.adapter.save(output_dir or self.args.output_dir, state_dict)

    def _load_best_model(self) -> None:
        if self.adapter.whole_weights:
            self.adapter.restore(self.state.best_model_checkpoint, self.state.best_global_step)
        else:
            super()._load_best_model()


class Progress(TrainerCallback):
    """A bar with the loss of the last step logged, the validation loss and the tokens per second.

    Drawn on stderr in plain text, so that it needs no widgets and a notebook's page stays free of it.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        from tqdm.std import tqdm

        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step", mininterval=0.5)
        self.shown = {}

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not hasattr(self, "bar"):
            return
        for key, name in (("loss", "loss"), ("eval_loss", "validation")):
            if key in logs:
                self.shown[name] = f"{logs[key]:.4f}"
        if state.num_input_tokens_seen and self.bar.format_dict["elapsed"]:
            self.shown["tok/s"] = f"{state.num_input_tokens_seen / self.bar.format_dict['elapsed']:.0f}"
        self.bar.set_postfix(self.shown)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()
