"""The card says what the run recorded, and nothing that it does not know."""

import json

import yaml

from ftkit.export.card import base_license, write_card
from ftkit.export.merge import merge
from ftkit.methods.by_name import attach
from ftkit.models import Quantization, load
from ftkit.training.config import RUN_FILE


def front_matter(text):
    return yaml.safe_load(text.split("---")[1])


def run_folder(tmp_path, name="tiny-smollm"):
    base, tokenizer = load(name, quantization=Quantization(), verbose=False)
    attach(base, "lora", r=2).save(str(tmp_path / "run"))
    tokenizer.save_pretrained(str(tmp_path / "run"))
    record = {
        "method": "lora",
        "config": {"model_name": name, "data_dir": "tickets", "lora_r": 2, "learning_rate": 2e-4, "max_steps": None},
        "metrics": {"steps": 3, "train_loss": 1.23456},
        "data_sha256": "abc123",
        "versions": {"torch": "2.0"},
    }
    (tmp_path / "run" / RUN_FILE).write_text(json.dumps(record))
    return tmp_path / "run"


def test_an_adapters_card(tmp_path):
    run = run_folder(tmp_path)
    text = write_card(run).read_text()
    assert front_matter(text)["base_model"] == "tiny-smollm" and front_matter(text)["library_name"] == "peft"
    for said in ("| lora_r | 2 |", "| learning_rate | 0.0002 |", "| train_loss | 1.235 |", "abc123", "`tickets`"):
        assert said in text
    assert "base in 4 bits (nf4, double quantisation)" in text and "| torch | 2.0 |" in text
    assert "max_steps" not in text and "## Merge" not in text  # what is not there is not said


def test_a_merged_models_card_has_its_receipt_and_its_code_runs(tmp_path):
    run = run_folder(tmp_path)
    receipt = merge(run, tmp_path / "merged", max_new_tokens=4)
    text = (tmp_path / "merged" / "README.md").read_text()
    assert front_matter(text)["library_name"] == "transformers"
    for target, found in receipt.changes.items():
        assert f"| {target} | {found.max_logit:.2g} |" in text
    code = text.split("```python\n")[1].split("```")[0].replace("this folder", str(tmp_path / "merged"))
    scope = {}
    exec(code, scope)
    assert scope["model"].config.vocab_size


def test_the_bases_licence_is_its_own_word(tmp_path):
    assert base_license("embedded")[0] == "apache-2.0"
    assert base_license("tiny-llama3")[0] is None
    (tmp_path / "README.md").write_text("---\nlicense: llama3\n---\n# A model\n")
    assert base_license(str(tmp_path))[0] == "llama3"
    for text in ("# no front matter", "---\nlicense: [\n---\n", "---\n- a\n---\n"):
        (tmp_path / "README.md").write_text(text)
        found, why = base_license(str(tmp_path))
        assert found is None and "look at its page" in why


def test_a_run_that_peft_alone_saved_has_a_card_too(tmp_path):
    base, _ = load("tiny-smollm", verbose=False)
    attach(base, "lora", r=2).model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    text = write_card(tmp_path).read_text()
    assert "tiny-smollm" in text and "## Settings" not in text and "## Licence" in text
