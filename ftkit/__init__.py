"""ftkit: the trainers, data path and evaluation behind an executable guide to fine-tuning language models.

`import ftkit` loads neither torch nor transformers: every public name is imported when it is first used.
"""

from ftkit import lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy.names(
    __name__,
    {
        "load": "ftkit.models",
        "DataConfig": "ftkit.data.config",
        "DataPreparationPipeline": "ftkit.data.pipeline",
        "FullFineTuningConfig": "ftkit.training.config",
        "FullFineTuner": "ftkit.training.full",
        "EvaluationConfig": "ftkit.evaluation.config",
        "LLMEvaluator": "ftkit.evaluation.evaluator",
        "LoRAConfig": "ftkit.training.config",
        "LoRAFineTuner": "ftkit.training.lora",
        "QLoRAConfig": "ftkit.training.config",
        "QLoRAFineTuner": "ftkit.training.qlora",
        "estimate_memory_requirements": "ftkit.memory.estimator",
        "recommend": "ftkit.memory.recommendation",
    },
)
__all__ += ["__version__"]
