"""What a run does between steps: the order of an epoch, save points, early stopping, the bar."""

import math
import sys
import time
from typing import TYPE_CHECKING

import torch
from transformers import TrainerCallback

if TYPE_CHECKING:
    from ftkit.training.trainer import TokenTrainer


class EpochOrder(TrainerCallback):
    """Tells the sampler which epoch begins.

    The data loader does so too, but on several processes the one that skips what is done hides the sampler a layer too
    deep for it (accelerate 1.x): the rest of the epoch would then come in the order of the first one.
    """

    def __init__(self, trainer: "TokenTrainer") -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer.order.set_epoch(int(state.epoch or 0))


class SavePoints(TrainerCallback):
    """Writes the step's log entry, evaluates wherever it saves, and saves wherever it stops.

    Args:
        trainer: the trainer that it is a callback of.
        validate: whether there are validation rows.
        patience: evaluations in a row without a new lowest loss after which the run ends; None for never.
    """

    def __init__(self, trainer: "TokenTrainer", validate: bool, patience: int | None) -> None:
        self.trainer, self.validate, self.patience = trainer, validate, patience

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.end_step()
        if control.should_save and self.validate:
            control.should_evaluate = True
        stop = torch.tensor(float(self.trainer.interrupted), device=args.device)
        if self.trainer.accelerator.reduce(stop, reduction="sum") > 0:
            # Not evaluated: the log of the whole run must not tell that it was interrupted here.
            self.trainer.interrupted = control.should_save = control.should_training_stop = True

    def on_evaluate(self, args, state, control, **kwargs):
        if self.patience is None:
            return
        losses = [entry["eval_loss"] for entry in self.trainer.records if "eval_loss" in entry]
        losses = [math.inf if math.isnan(loss) else loss for loss in losses]  # NaN is never a new lowest
        if losses and len(losses) - 1 - losses.index(min(losses)) >= self.patience:
            control.should_save = control.should_training_stop = True


class Progress(TrainerCallback):
    """A bar with the loss of the last step, the validation loss, tokens a second, peak memory and the time left.

    Drawn on stderr in plain text, so that it needs no widgets and a notebook's page stays free of it.
    """

    def __init__(self, trainer: "TokenTrainer") -> None:
        self.trainer = trainer
        self.bar = None

    def on_train_begin(self, args, state, control, **kwargs):
        from tqdm.std import tqdm

        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="training",
            unit="step",
            mininterval=0.5,
            disable=not state.is_world_process_zero,
        )
        self.shown, self.seen, self.started = {}, 0, time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        entry = self.trainer.records[-1]
        self.seen += entry["input_tokens"]
        if "loss" in entry:
            self.shown["loss"] = f"{entry['loss']:.4f}"
        self.shown["tok/s"] = f"{self.seen / (time.perf_counter() - self.started):.0f}"
        self.shown["GB"] = f"{peak_memory() / 1e9:.1f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if self.bar is not None:
            self.shown["validation"] = f"{metrics['eval_loss']:.4f}"
            self.bar.set_postfix(self.shown)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()
        self.bar = None


def peak_memory() -> int:
    """Bytes: the most that torch has had on the GPU, without one the most that the process has had."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
