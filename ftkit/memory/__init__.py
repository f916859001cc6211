"""Will it fit, how long, what will it cost: predictions by component, and the measurement that checks them.

Importing this package loads no torch; a public name is imported when it is first used.
"""

from ftkit import lazy

__getattr__, __dir__, __all__ = lazy.names(
    __name__,
    {
        "estimate": "ftkit.memory.estimator",
        "estimate_memory_requirements": "ftkit.memory.estimator",
        "Estimate": "ftkit.memory.estimator",
        "Settings": "ftkit.memory.estimator",
        "architecture": "ftkit.memory.catalogue",
        "known_models": "ftkit.memory.catalogue",
        "Architecture": "ftkit.memory.shapes",
        "Shape": "ftkit.memory.shapes",
        "Accelerator": "ftkit.memory.hardware",
        "accelerator": "ftkit.memory.hardware",
        "accelerators": "ftkit.memory.hardware",
        "flops_per_token": "ftkit.memory.cost",
        "training_cost": "ftkit.memory.cost",
        "Cost": "ftkit.memory.cost",
        "fits": "ftkit.memory.fit",
        "largest": "ftkit.memory.fit",
        "largest_model": "ftkit.memory.fit",
        "cheapest": "ftkit.memory.fit",
        "recommend": "ftkit.memory.recommendation",
        "Recommendation": "ftkit.memory.recommendation",
        "measure_step": "ftkit.memory.measure",
        "Measurement": "ftkit.memory.measure",
        "compare": "ftkit.memory.comparison",
        "Comparison": "ftkit.memory.comparison",
    },
)
