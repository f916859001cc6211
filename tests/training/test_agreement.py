"""ftkit's trainer, TRL's, a bare PEFT loop and the loop of the book on the same rows: one loss at every step."""

import copy

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from ftkit.scratch.training_loop import train
from ftkit.training.collator import Collator
from ftkit.training.config import LoRAConfig
from ftkit.training.lora import LoRAFineTuner

BATCH, ACCUMULATION, STEPS, RATE, WARMUP = 2, 3, 6, 2e-2, 0.3  # 12 rows, two steps an epoch; the clip norm binds


@pytest.fixture
def run(rows, tmp_path, monkeypatch):
    """(model before training, micro-batches in their order, losses as ftkit logged them)."""
    batches, collate = [], Collator.__call__

    def recorded(self, rows):
        batches.append(collate(self, rows))
        return batches[-1]

    monkeypatch.setattr(Collator, "__call__", recorded)
    config = LoRAConfig(
        model_name="tiny-llama3",
        lora_r=4,
        learning_rate=RATE,
        lr_scheduler_type="linear",
        warmup_ratio=WARMUP,
        weight_decay=0.1,
        max_grad_norm=0.5,
        batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        max_steps=STEPS,
        logging_steps=1,
        output_dir=str(tmp_path / "run"),
    )
    tuner = LoRAFineTuner(config, {"train": rows})
    start = copy.deepcopy(tuner.load_model_and_tokenizer()[0]).train()
    tuner.train()
    monkeypatch.undo()
    losses = [entry["loss"] for entry in tuner.history if "loss" in entry]
    assert len(losses) == STEPS and losses[-1] < 0.9 * losses[0]
    return start, batches[: STEPS * ACCUMULATION], losses, tuner.tokenizer


SETTINGS = {"learning_rate": RATE, "weight_decay": 0.1, "max_grad_norm": 0.5}


def test_the_bare_loop_of_the_book_has_the_trainers_losses(run):
    model, batches, losses, _ = run
    bare = train(model, batches, warmup=2, accumulation=ACCUMULATION, **SETTINGS)
    assert bare == pytest.approx(losses, abs=1e-4)


def test_a_bare_peft_loop_has_them(run):
    """torch's optimizer and transformers' own loss, as a reader would write it with the libraries alone."""
    from transformers import get_linear_schedule_with_warmup

    model, batches, losses, _ = run
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = get_linear_schedule_with_warmup(optimizer, 2, STEPS)
    for step in range(STEPS):
        group = batches[step * ACCUMULATION : (step + 1) * ACCUMULATION]
        tokens = sum((batch["labels"] != -100).sum() for batch in group)
        parts = []
        for batch in group:
            parts.append(model(**batch, num_items_in_batch=tokens).loss)
            parts[-1].backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert sum(p.item() for p in parts) == pytest.approx(losses[step], abs=1e-4)


def test_trls_trainer_has_them(run, tmp_path):
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model, batches, losses, tokenizer = run
    rows = []
    for batch in batches:
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
            rows.append({"input_ids": ids[mask.bool()].tolist(), "labels": labels[mask.bool()].tolist()})
    arguments = SFTConfig(
        output_dir=str(tmp_path / "trl"),
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        max_steps=STEPS,
        lr_scheduler_type="linear",
        warmup_steps=2,
        adam_beta2=0.95,
        optim="adamw_torch",
        gradient_checkpointing=False,
        max_length=None,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **SETTINGS,
    )
    trainer = InOrder(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert theirs == pytest.approx(losses, abs=1e-4)


class Gradients(TrainerCallback):
    """What the optimizer gets at the first step."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.seen = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_e8_6_accumulation_gives_the_gradients_of_the_whole_batch(rows, tmp_path):
    def first_gradients(batch_size, accumulation):
        config = LoRAConfig(
            model_name="tiny-llama3",
            lora_r=4,
            batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            max_grad_norm=1e9,
            output_dir=str(tmp_path / f"{batch_size}-{accumulation}"),
        )
        tuner, seen = LoRAFineTuner(config, {"train": rows[:2] + rows[-2:]}), Gradients()
        made = tuner.create_trainer

        def create_trainer():
            trainer = made()
            trainer.add_callback(seen)
            return trainer

        tuner.create_trainer = create_trainer
        tuner.train()
        return seen.seen

    whole = first_gradients(4, 1)
    assert max(g.abs().max() for g in whole.values()) > 1e-3
    for split in ((2, 2), (1, 4)):
        for name, gradient in first_gradients(*split).items():
            torch.testing.assert_close(gradient, whole[name], atol=1e-6, rtol=1e-5)
