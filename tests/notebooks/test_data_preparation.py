"""Chapter 7 on a tiny model's tokenizer: that it runs, and that what it computed is what it says."""

import re
from dataclasses import fields

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS
from ftkit import DataConfig
from ftkit.data.cleaning import LONG_ENOUGH, MIN_LETTERS


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    parameters = {"MODEL": "tiny-smollm", "MAX_TOKENS": 1024}
    return execute(NOTEBOOKS / "07_data_preparation.ipynb", tmp_path_factory.mktemp("notebook"), parameters)


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def printed(notebook, cell_id: str) -> str:
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


def test_every_row_is_accounted_for_and_the_figure_s_steps_add_up(computed):
    account, after = computed["account"], computed["after"]
    assert account["read"] == account["kept"] + sum(account["dropped"].values())
    assert list(after.values()) == sorted(after.values(), reverse=True)
    assert after["Encode"] == after["Split"] == account["kept"] == sum(computed["sizes"].values())
    assert set(account["formats"]) == {"messages", "text", "alpaca", "sharegpt", "prompt/completion"}


def test_e7_11_e7_14_broken_rows_are_named_with_file_and_line(notebook, computed):
    assert re.search(r"1 no text in a message: dirty\.jsonl, line \d+", printed(notebook, "broken-code"))
    assert computed["account"]["dropped"]["no text in a message"] == 1
    assert "__index_level_0__" in printed(notebook, "frames-code").splitlines()[0]
    assert "nested.json" in printed(notebook, "errata-read-run")


def test_e7_11_a_nested_file_is_no_row_and_named_columns_are_used(notebook):
    assert "1 row of ['data']" in printed(notebook, "errata-read")
    ending, nested, named = printed(notebook, "errata-read-run").splitlines()
    assert "2 + 2 =" in ending and "DataError: nested.json" in nested and "'content': 'Me.'" in named


def test_e7_14_a_row_without_an_answer_goes_and_one_without_a_system_prompt_stays(notebook):
    filled, no_system, no_answer = printed(notebook, "errata-none").splitlines()
    assert filled.endswith("<system>None<user>Hi<assistant>")
    assert "'user'" in no_system and "'system'" not in no_system and "None" not in no_system
    assert "BrokenRow" in no_answer


def test_e7_15_the_architecture_does_not_tell_the_template_either(notebook):
    *by_name, built = printed(notebook, "errata-family").splitlines()
    assert len(by_name) == 3 and all(line.endswith("-> llama") for line in by_name)
    assert "built like Llama, begins '<|im_start|>'; Llama 3 begins '<|begin_of_text|>'" in built


def test_e7_4_cleaning_changes_few_texts_and_most_of_them_at_the_edges_alone(notebook, computed):
    texts, changed, around = computed["cleaned"]
    assert 0 < around <= changed < texts / 10 and around > 0.9 * changed
    shown = next(cell for cell in notebook.cells if cell.id == "clean-code").outputs[0].data["text/plain"]
    assert r"'\n\n    y \n'" in shown and "'    y'" in shown and r"'a\tb\nc\td'" in shown


def test_e7_6_the_input_of_an_alpaca_row_is_part_of_its_question(notebook):
    assert "Name the capital.\\n\\nNorway" in printed(notebook, "formats")


def test_e7_5_a_share_of_letters_misjudges_both_ways(computed):
    judged = computed["judged"]
    dropped = {name for name, row in judged.items() if row["half letters"] == "drop"}
    assert {"arithmetic", "table", "JSON", "code", "Hindi"} < dropped and "spam" not in dropped
    assert {name for name, row in judged.items() if row["distinct words"] == "drop"} == {"spam"}
    code, shortest = computed["probes"]["code"], min(map(len, computed["probes"].values()))
    assert shortest >= LONG_ENOUGH and sum(c.isalnum() or c.isspace() for c in code) < MIN_LETTERS * len(code)
    assert {name: row["kind"] for name, row in judged.items()}.items() >= {"code": "code", "Hindi": "prose"}.items()
    assert {name for name, row in judged.items() if row["ftkit"] != "keep"} == {"noise", "spam"}
    characters, letters = computed["empty_template"]
    assert characters > 10 and letters >= 0.5


def test_e7_12_minhash_estimates_and_finds_what_it_should(computed):
    estimates, j = computed["estimates"], computed["jaccard"]
    assert all(abs(x - j) < 4 * (j * (1 - j) / int(k)) ** 0.5 for k, x in estimates.items())
    assert all(abs(share - formula) < 4 * (0.25 / 300) ** 0.5 for _, share, formula in computed["bands"])
    assert computed["same_pairs"] and computed["near_pairs"] > 0 and computed["exact_repeats"] > 0


def test_e7_12_e7_13_splits_are_apart_and_none_is_empty(computed):
    assert list(computed["held"].values()) == [False, True]
    assert computed["torn"]["row by row"] > computed["torn"]["by group"] == 0
    assert computed["small_split"] == {"train": 17, "validation": 1, "test": 1}
    assert computed["cut_split"] == {"train": 17, "validation": 0, "test": 2}


def test_e7_12_no_row_holds_a_text_of_a_later_split_and_the_doctor_agrees(notebook, computed):
    before, after = computed["seen"]
    assert before > 0 == after
    assert f"hold one of a later split: {before}" in printed(notebook, "contained-code")
    assert printed(notebook, "contained-doctor") and "overlap" not in printed(notebook, "contained-doctor")


def test_e7_1_e7_2_another_family_s_format_has_no_stop_token(computed):
    own4, foreign4, own, foreign = computed["wrong_template"]
    assert own4[3] == 2 and own[3] == 1 and foreign4[3] == foreign[3] == 0
    assert foreign4[2] > own4[2] and foreign[2] > own[2]


def test_e7_7_masks_are_production_s_and_hold_the_stop_token(computed):
    assert computed["same_mask"] and computed["stop_trained"]
    assert 0 < computed["trained"]["last"] < computed["trained"]["all"] < computed["trained"]["full"]
    assert computed["qwen_rows"] == 2


def test_plain_text_is_trained_in_full_between_an_untrained_bos_and_eos(notebook, computed):
    own, _, llama, _, _ = printed(notebook, "modes-text-code").splitlines()
    assert "<|im_end|>" in own and "-100" not in own
    assert llama.startswith("['<|begin_of_text|>'") and "'<|eot_id|>'] [-100, " in llama and llama.count("-100") == 1
    assert computed["same_text"]
    formats = computed["account"]["formats"]
    assert formats["text"] > sum(formats.values()) / 2


def test_e7_9_padding_to_the_limit_wastes_most_and_packing_least(computed):
    waste = list(computed["waste"].values())
    assert waste[0] > waste[1] > waste[2] >= waste[-1] >= 0
    trained, context, _ = zip(*computed["tokens"].values(), strict=True)
    assert len(set(trained)) == len(set(context)) == 1


def test_packed_rows_are_apart_unless_a_mask_of_ones_joins_them(notebook, computed):
    assert computed["isolated"] < 1e-5 < 0.1 < computed["leaking"]
    source = next(cell.source for cell in notebook.cells if cell.id == "isolation-compare")
    assert source.count("**places") == 2 and "the same positions" in printed(notebook, "isolation-compare")
    first, second = computed["moved"]
    assert first > 0.1 and second == 0


def test_e7_8_pad_is_eos(computed):
    assert set(computed["masked_stops"]) == {-100} and set(computed["kept_stops"]) == {computed["stop"]}
    assert computed["said"]["trained"] == "Yes?<|im_end|>" and "<|im_end|>" not in computed["said"]["masked"]


def test_the_loss_weighs_tokens_and_does_not_see_the_padding(computed):
    joint, weighted, of_means = computed["average"]
    assert joint == pytest.approx(weighted, rel=1e-5) and abs(joint - of_means) > 1e-3
    assert max(computed["pad_losses"]) == pytest.approx(min(computed["pad_losses"]), abs=1e-6)
    assert computed["no_prefix"].startswith("DataError: the rendered prompt is not a prefix")


def test_e7_3_e7_4_and_the_empty_mask(computed):
    assert computed["bos"] == [2, 1]
    assert computed["flat"].startswith("SyntaxError") and computed["kept"] == "valid Python"
    assert computed["empty_mask"] == 0 and computed["losses"] == ["nan", 0.0]


@pytest.mark.parametrize(
    ("cell", "check"),
    [
        ("fault-pad-doctor", "stop_not_trained"),
        ("fault-bos-code", "bos_count"),
        ("fault-lines-doctor", "special_token_in_text"),
        ("fault-mask-code", "no_target"),
        ("fault-cut-code", "truncated_answer"),
    ],
)
def test_the_doctor_names_each_fault(notebook, computed, cell, check):
    assert check in printed(notebook, cell) and "training would be wrong" in printed(notebook, cell)
    on_the_page = {finding["check"] for finding in computed["page"]["findings"]}
    assert on_the_page == {"stop_not_trained", "no_target", "padding_trained", "truncated_answer"}


def test_e7_10_a_row_that_was_cut_is_kept_and_named_by_the_doctor_alone(notebook):
    shown = printed(notebook, "fault-cut-counted")
    assert "2 rows read (2 prompt/completion), 1 kept, 1 left out\n  1 the prompt alone fills max_seq_length" in shown
    assert shown.count("left out") == 1 and "truncated_answer, 1 rows" in shown


@pytest.mark.parametrize("cell", ["fault-pad-fixed", "fault-bos-fixed", "fault-lines-fixed", "fault-mask-fixed"])
def test_what_was_mended_is_healthy(notebook, cell):
    assert printed(notebook, cell).strip().endswith("healthy")


def test_conversations_are_made_by_the_guide_s_methods(notebook):
    written = printed(notebook, "format-code")
    assert "system\nBe brief." in written and "assistant\nOslo<|im_end|>" in written and "BrokenRow" in written
    talk, report, reason = printed(notebook, "named-code").splitlines()
    assert talk == "[('user', '2 + 2 ='), ('assistant', '4')]"
    assert "1 kept, 1 left out" in report and "1 no text in a message: row 2" in reason


def test_the_whole_pipeline_writes_the_guide_s_six_entries(notebook, computed):
    *six, others = printed(notebook, "whole-code").splitlines()
    made = dict(line.split(" = ") for line in six)
    assert list(made) == "model_name model_family max_seq_length train_size val_size test_size".split()
    sizes = [int(made[name]) for name in list(made)[3:]]
    assert min(sizes) > 0 and sum(sizes) == computed["account"]["kept"] + 1  # the row that overlaps the foreign test
    assert others.endswith("config rows")


def test_the_memory_of_signatures_is_computed(notebook):
    assert printed(notebook, "scale-code") == "a signature: 200 bytes; of a million rows: 191 MiB\n"


def test_the_steps_run_one_by_one_and_every_setting_is_explained(notebook, computed):
    assert set(computed["by_hand"]) == {"train", "validation", "test"} and min(computed["by_hand"].values()) > 0
    shown = printed(notebook, "settings-code")
    assert all(f"{field.name} = " in shown for field in fields(DataConfig))


def test_exercises_wait_and_their_solutions_are_right(notebook, computed):
    for cell in notebook.cells:
        if cell.id.startswith("exercise-"):
            assert "Not yet" in cell.outputs[0]["data"]["text/plain"]
    assert len(computed["verdicts"]) == 3 and all(verdict.startswith("Right") for verdict in computed["verdicts"])


def test_every_figure_has_its_own_description(notebook, alts):
    found = alts(notebook)
    assert len(found) == len(set(found)) == 4 and all(len(alt.split()) > 8 for alt in found)
