"""The whole path on a tiny model: train, save, load with PEFT alone, merge."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from ftkit.errors import ConfigError, DataError, TrainingError
from ftkit.evaluation.config import EvaluationConfig
from ftkit.evaluation.evaluator import LLMEvaluator
from ftkit.models import load
from ftkit.training.config import RUN_FILE, FullFineTuningConfig, LoRAConfig
from ftkit.training.full import FullFineTuner
from ftkit.training.lora import LoRAFineTuner


def settings(folder, **changes):
    fast = {"lora_r": 4, "learning_rate": 1e-2, "batch_size": 4, "gradient_accumulation_steps": 1, "num_epochs": 4}
    steps = {"eval_steps": 4, "save_steps": 4, "logging_steps": 1}
    return LoRAConfig(model_name="tiny-smollm", output_dir=str(folder), **{**fast, **steps, **changes})


@pytest.fixture(scope="module")
def data():
    words = "red green blue black white".split()
    rows = [
        {"messages": [{"role": "user", "content": f"{w} {v}?"}, {"role": "assistant", "content": f"{v} {w}."}]}
        for w in words
        for v in words
    ]
    return {"train": rows[:16], "validation": rows[16:]}


@pytest.fixture(scope="module")
def tuner(data, tmp_path_factory):
    tuner = LoRAFineTuner(settings(tmp_path_factory.mktemp("run") / "lora"), data)
    tuner.metrics = tuner.train()
    tuner.logged = list(tuner.history)
    return tuner


def test_the_loss_falls_on_rows_it_did_not_see(tuner):
    validation = [entry["eval_loss"] for entry in tuner.history if "eval_loss" in entry]
    assert validation[-1] < validation[0] and tuner.metrics["eval_loss"] <= min(validation) + 1e-9


def test_only_the_adapter_was_trained(tuner):
    base, _ = load("tiny-smollm", verbose=False)
    trained = {name for name, p in tuner.model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    # the frozen weights are those of the base, to the bit
    for name, parameter in tuner.model.get_base_model().named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, base.get_parameter(name.replace(".base_layer", "")))


def test_the_trainable_count_is_the_closed_form(tuner):
    base, _ = load("tiny-smollm", verbose=False)
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    linear = [m for n, m in base.named_modules() if n.rsplit(".", 1)[-1] in names]
    expected = sum(4 * (m.in_features + m.out_features) for m in linear)
    assert tuner.model.get_nb_trainable_parameters()[0] == expected


def test_what_is_trained_is_float32_on_a_half_precision_base(data, tmp_path):
    tuner = LoRAFineTuner(settings(tmp_path / "run", torch_dtype="bfloat16", max_steps=2), data)
    tuner.train()
    parameters = dict(tuner.model.named_parameters())
    assert {p.dtype for p in parameters.values() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in parameters.values() if not p.requires_grad} == {torch.bfloat16}


def test_the_same_seed_gives_the_same_weights(tuner, data, tmp_path):
    torch.manual_seed(12345)  # what was drawn before must not matter
    again = LoRAFineTuner(settings(tmp_path / "run"), data)
    again.train()
    for (name, a), (_, b) in zip(tuner.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_e8_1_the_evaluation_does_not_depend_on_the_batch_size(tuner):
    from ftkit.loss import trained_positions_only

    losses = []
    with trained_positions_only(tuner.model.get_base_model()):
        for size in (1, 2, 9):
            tuner.trainer.args.per_device_eval_batch_size = size
            losses.append(tuner.trainer.evaluate()["eval_loss"])
    assert max(losses) - min(losses) < 1e-6


def test_e8_6_accumulation_weighs_tokens_not_batches(rows, tmp_path):
    def first_gradient(batch_size, accumulation):
        config = settings(
            tmp_path / f"{batch_size}-{accumulation}",
            batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            max_grad_norm=1e9,
        )
        tuner = LoRAFineTuner(config, {"train": rows[:4]})
        tuner.train()
        entry = next(e for e in tuner.history if "grad_norm" in e)
        return entry["grad_norm"], entry["loss"]

    whole = first_gradient(4, 1)
    for split in ((2, 2), (1, 4)):
        assert first_gradient(*split) == pytest.approx(whole, rel=1e-5)


def test_gradient_checkpointing_changes_no_gradient(rows, tmp_path):
    histories, forwards = [], []
    for use in (False, True):
        tuner = LoRAFineTuner(
            settings(tmp_path / str(use), use_gradient_checkpointing=use, max_steps=3), {"train": rows}
        )
        tuner.load_model_and_tokenizer()
        runs = []
        tuner.model.get_base_model().model.layers[0].mlp.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        tuner.train()
        forwards.append(len(runs))
        histories.append([e["loss"] for e in tuner.history if "loss" in e])
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)
    assert forwards == [3, 6]  # once a step, and once more in the backward pass


def test_e9_5_lora_plus_groups_keep_rate_and_decay(data, tmp_path):
    tuner = LoRAFineTuner(settings(tmp_path / "run", use_lora_plus=True, lora_plus_lambda=8.0, weight_decay=0.1), data)
    tuner.load_model_and_tokenizer()
    of = {id(p): name for name, p in tuner.model.named_parameters()}
    for group in tuner.get_optimizer_grouped_parameters():
        kinds = {"B" if "lora_B" in of[id(p)] else "A" for p in group["params"]}
        assert len(kinds) == 1 and group["weight_decay"] == 0.1
        assert group["lr"] == pytest.approx(8e-2 if kinds == {"B"} else 1e-2)


def test_the_folder_holds_what_repeats_the_run_and_no_pickle(tuner):
    folder = Path(tuner.config.output_dir)
    record = json.loads((folder / RUN_FILE).read_text())
    assert record["config"]["lora_r"] == 4 and record["versions"]["peft"] and len(record["data_sha256"]) == 64
    assert [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] == tuner.logged
    assert (folder / "adapter_model.safetensors").is_file()
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_peft_alone_loads_the_adapter_and_gives_the_same_logits(tuner, tmp_path):
    base, tokenizer = load("tiny-smollm", verbose=False)
    base.save_pretrained(str(tmp_path / "base"))
    ids = torch.arange(20)[None] + 30
    code = (
        "import sys, torch; from peft import PeftModel; from transformers import AutoModelForCausalLM as M;"
        f"m = M.from_pretrained({str(tmp_path / 'base')!r});"
        f"m = PeftModel.from_pretrained(m, {tuner.config.output_dir!r}).eval();"
        f"torch.save(m(torch.arange(20)[None] + 30).logits, {str(tmp_path / 'logits')!r});"
        "assert not any(n.startswith('ftkit') for n in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "logits"), tuner.model(ids).logits, atol=1e-6, rtol=1e-5)


def test_ftkit_loads_the_run_by_its_folder(tuner):
    ids = torch.arange(20)[None] + 30
    loaded, _ = load(tuner.config.output_dir, verbose=False)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, tuner.model(ids).logits, atol=1e-6, rtol=1e-5)


def test_a_run_with_another_seed_is_loaded_on_the_base_that_it_was_trained_on(data, tmp_path):
    tuner = LoRAFineTuner(settings(tmp_path / "run", seed=7, max_steps=2), data)
    tuner.train()
    evaluator = LLMEvaluator(EvaluationConfig(model_path=tuner.config.output_dir), verbose=False)
    ids = torch.arange(20)[None] + 30
    with torch.no_grad():
        assert torch.equal(evaluator.model(ids).logits, tuner.model(ids).logits)
    assert evaluator.compute_perplexity(["red green?"])["perplexity"] > 0


def test_merging_gives_the_adapters_logits(tuner, tmp_path):
    assert tuner.merge_and_save(tmp_path / "merged") < 1e-5
    merged, _ = load(str(tmp_path / "merged"), dtype="float32", verbose=False)
    ids = torch.arange(20)[None] + 30
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, tuner.model(ids).logits, atol=1e-5, rtol=1e-4)
        base, _ = load("tiny-smollm", verbose=False)
        assert (base(ids).logits - tuner.model(ids).logits).abs().max() > 1e-2  # the adapter does something


def test_an_existing_run_is_never_overwritten(tuner, data):
    with pytest.raises(ConfigError, match="is not empty"):
        LoRAFineTuner(tuner.config, data).train()


def test_e7_10_rows_that_are_too_long_are_left_out_and_counted_never_cut(rows, tmp_path, capsys):
    tuner = LoRAFineTuner(settings(tmp_path / "run", max_seq_length=130), {"train": rows})
    tuner.load_model_and_tokenizer()
    kept = tuner.load_data()["train"]
    assert 0 < len(kept) < len(rows) and max(len(row["input_ids"]) for row in kept) <= 130
    assert f"{len(rows) - len(kept)} longer than 130 left out" in capsys.readouterr().out


def test_no_row_that_fits_is_an_error_with_the_length_it_takes(rows, tmp_path):
    tuner = LoRAFineTuner(settings(tmp_path / "run", max_seq_length=5), {"train": rows})
    tuner.load_model_and_tokenizer()
    with pytest.raises(DataError, match="raise it to at least that"):
        tuner.load_data()


def test_a_target_that_the_model_lacks_is_an_error_with_near_matches(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'q_proj'"):
        LoRAFineTuner(settings(tmp_path / "run", target_modules=("q_porj",))).load_model_and_tokenizer()


@pytest.mark.parametrize("method", ["lora", "vera", "adalora"])
def test_a_module_to_save_that_the_model_lacks_is_an_error_with_near_matches(tmp_path, method):
    config = settings(tmp_path / "run", method=method, modules_to_save=("embed_token",), max_steps=40)
    with pytest.raises(ConfigError, match="no such module. Did you mean 'embed_tokens'"):
        LoRAFineTuner(config).load_model_and_tokenizer()


def test_a_row_that_the_template_refuses_is_named(rows, tmp_path):
    rows[3] = {"messages": [{"role": "user", "content": "a"}, *rows[3]["messages"]]}
    config = settings(tmp_path / "run")
    config.model_name = "tiny-gemma3"
    tuner = LoRAFineTuner(config, {"train": rows})
    tuner.load_model_and_tokenizer()
    with pytest.raises(DataError, match="train row 4: the chat template refuses"):
        tuner.load_data()


def test_rows_in_memory_are_read_as_those_of_a_file(tmp_path):
    rows = [{"instruction": f"Say {i}.", "output": str(i)} for i in range(4)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = []
    for data in (None, rows, {"train": rows}, pd.DataFrame(rows)):
        tuner = LoRAFineTuner(settings(tmp_path / "run", data_dir=str(file)), data)
        tuner.load_model_and_tokenizer()
        seen.append(tuner.load_data())
    assert all(one == seen[0] for one in seen[1:])
    for data, says in (
        ({"train": [*rows, {"prompt": "x"}]}, "train row 5: has the fields 'prompt'"),
        ({"train": []}, "no training rows in data"),
        ("rows.jsonl", "does not exist"),
    ):
        with pytest.raises(DataError, match=says):
            LoRAFineTuner(settings(tmp_path / "run"), data).train()


def test_a_token_without_an_embedding_is_named_before_training(rows, tmp_path):
    tuner = LoRAFineTuner(settings(tmp_path / "run"), {"train": rows})
    tuner.load_model_and_tokenizer()
    tuner.tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    rows[3]["messages"][1]["content"] = "<tool>"
    with pytest.raises(DataError, match="train row 4: the token '<tool>' has the id .*resize_token_embeddings"):
        tuner.load_data()


def test_early_stopping_without_validation_rows_is_refused(rows, tmp_path):
    with pytest.raises(ConfigError, match="early_stopping_patience needs validation rows"):
        LoRAFineTuner(settings(tmp_path / "run", early_stopping_patience=2), {"train": rows}).train()


def test_data_that_is_not_there_costs_no_loading_of_the_model(tmp_path):
    tuner = LoRAFineTuner(settings(tmp_path / "run", data_dir=str(tmp_path / "nowhere.jsonl")))
    with pytest.raises(DataError, match="does not exist"):
        tuner.train()
    assert tuner.model is None


def test_an_output_folder_that_cannot_be_is_refused_before_anything_is_loaded(data, tmp_path):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        tuner = LoRAFineTuner(settings(output), data)
        with pytest.raises(ConfigError, match="cannot be written"):
            tuner.train()
        assert tuner.model is None


@pytest.mark.parametrize("kind", [(FullFineTuner, FullFineTuningConfig), (LoRAFineTuner, LoRAConfig)])
def test_an_adapter_is_no_base_to_train_on(tuner, tmp_path, kind):
    trainer, config = kind
    with pytest.raises(ConfigError, match="is an adapter; merge it"):
        trainer(config(model_name=tuner.config.output_dir, output_dir=tmp_path / "run"))


def test_a_tracker_that_does_not_exist_is_not_to_be_installed(data, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'tensorboard'"):
        LoRAFineTuner(settings(tmp_path / "run", report_to=("tensorbord",)), data).train()


def test_the_weights_can_be_read_by_those_who_can_read_the_rest(tuner, tmp_path):
    tuner.merge_and_save(tmp_path / "merged")
    run = Path(tuner.config.output_dir)
    for weights in (run / "adapter_model.safetensors", tmp_path / "merged" / "model.safetensors"):
        assert weights.stat().st_mode == (weights.parent / "README.md").stat().st_mode


def test_a_disk_that_fills_up_at_the_end_leaves_a_run_that_can_be_finished(data, tmp_path, monkeypatch):
    tuner = LoRAFineTuner(settings(tmp_path / "run", max_steps=2), data)
    tokenizer = type(tuner.load_model_and_tokenizer()[1])
    save = tokenizer.save_pretrained

    def full(self, folder):
        if "checkpoint" not in folder:
            raise Exception("No space left on device (os error 28)")  # as tokenizers says it
        save(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "save_pretrained", full)
        with pytest.raises(TrainingError, match="No space left.*the last checkpoint stands"):
            tuner.train()
    metrics = LoRAFineTuner(settings(tmp_path / "run", max_steps=2), data).train(resume=True)
    assert metrics["steps"] == 2 and (tmp_path / "run" / RUN_FILE).exists()


def test_dropout_is_refused_where_the_family_adapts_parameters(tmp_path):
    config = settings(tmp_path / "run", lora_dropout=0.1)
    config.model_name = "tiny-deepseek-v3.2"
    with pytest.raises(ConfigError, match="set lora_dropout=0.0"):
        LoRAFineTuner(config).load_model_and_tokenizer()


@pytest.mark.parametrize("family", ["llama3", "llama4", "qwen3", "qwen3-moe", "deepseek-v3.2", "gemma3"])
def test_the_families_train_save_reload_and_merge(family, data, tmp_path):
    config = settings(tmp_path / "run", max_steps=3)
    config.model_name = f"tiny-{family}"
    tuner = LoRAFineTuner(config, data)
    tuner.train()
    losses = [entry["loss"] for entry in tuner.history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert tuner.merge_and_save(tmp_path / "merged") < 1e-5
