"""The guide's classes, fields and methods are all there, under their names."""

import dataclasses

import pytest

import ftkit

FIELDS = {
    "DataConfig": "model_name max_seq_length train_split val_split test_split min_length max_length deduplicate"
    " quality_filter seed num_proc",
    "FullFineTuningConfig": "model_name torch_dtype use_flash_attention trust_remote_code learning_rate weight_decay"
    " num_epochs batch_size gradient_accumulation_steps max_grad_norm warmup_ratio use_gradient_checkpointing"
    " mixed_precision data_dir max_seq_length output_dir save_steps eval_steps logging_steps project_name run_name"
    " use_wandb seed",
    "LoRAConfig": "model_name torch_dtype use_flash_attention trust_remote_code lora_r lora_alpha lora_dropout"
    " target_modules modules_to_save use_rslora learning_rate weight_decay num_epochs batch_size"
    " gradient_accumulation_steps max_grad_norm warmup_ratio lr_scheduler_type use_lora_plus lora_plus_lambda data_dir"
    " max_seq_length output_dir save_steps eval_steps logging_steps save_total_limit project_name run_name use_wandb"
    " seed",
    "QLoRAConfig": "model_name trust_remote_code load_in_4bit bnb_4bit_compute_dtype bnb_4bit_quant_type"
    " bnb_4bit_use_double_quant lora_r lora_alpha lora_dropout target_modules modules_to_save learning_rate"
    " weight_decay num_epochs batch_size gradient_accumulation_steps max_grad_norm warmup_ratio lr_scheduler_type optim"
    " data_dir max_seq_length output_dir save_steps eval_steps logging_steps save_total_limit project_name run_name"
    " use_wandb seed",
    "EvaluationConfig": "model_path torch_dtype device trust_remote_code max_new_tokens temperature top_p do_sample"
    " batch_size num_samples compute_perplexity compute_rouge compute_bleu output_dir",
}
METHODS = {
    "DataPreparationPipeline": "load_data clean_text deduplicate quality_filter format_instruction tokenize_dataset"
    " create_splits process_instruction_dataset run_pipeline",
    "FullFineTuner": "setup_accelerator setup_seed load_model_and_tokenizer load_data setup_optimizer_and_scheduler"
    " setup_wandb evaluate save_checkpoint train",
    "LoRAFineTuner": "load_model_and_tokenizer get_optimizer_grouped_parameters load_data create_trainer train"
    " merge_and_save",
    "QLoRAFineTuner": "load_model_and_tokenizer load_data create_trainer train merge_and_save",
    "LLMEvaluator": "compute_perplexity generate_responses compute_rouge_scores compute_bleu_score"
    " evaluate_instruction_following run_lm_eval_harness analyze_errors run_full_evaluation print_summary",
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_the_guide_is_there(name):
    fields = {field.name for field in dataclasses.fields(getattr(ftkit, name))}
    assert not set(FIELDS[name].split()) - fields


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_guide_is_there(name):
    made = getattr(ftkit, name)
    assert all(callable(getattr(made, method)) for method in METHODS[name].split())


def test_the_estimate_of_the_guide_is_there():
    assert callable(ftkit.estimate_memory_requirements)


@pytest.mark.parametrize(
    ("name", "different"),
    [
        ("DataConfig", {"model_name": "embedded"}),
        ("FullFineTuningConfig", {"model_name": "embedded", "trust_remote_code": False, "use_wandb": False}),
        ("LoRAConfig", {"lora_dropout": 0.0, "use_rslora": False, "use_lora_plus": False, "modules_to_save": None}),
        ("QLoRAConfig", {"lora_dropout": 0.0, "modules_to_save": None, "use_wandb": False}),
        ("EvaluationConfig", {"do_sample": False, "trust_remote_code": False}),
    ],
)
def test_e0_2_defaults_are_safe(name, different):
    made = getattr(ftkit, name)()
    assert {field: getattr(made, field) for field in different} == different
