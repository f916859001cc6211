"""How each parameter-efficient method is set up on PEFT, and what PEFT lacks.

Importing this package loads no torch; a public name is imported when it is first used.
"""

from ftkit import lazy

__getattr__, __dir__, __all__ = lazy.names(
    __name__,
    {
        "attach": "ftkit.methods.by_name",
        "attach_lora": "ftkit.methods.lora",
        "Adapter": "ftkit.methods.adapter",
        "AdapterCallback": "ftkit.methods.adapter",
        "Method": "ftkit.methods.registry",
        "METHODS": "ftkit.methods.registry",
        "parameter_groups": "ftkit.methods.lora_plus",
        "scale_note": "ftkit.methods.registry",
        "summary": "ftkit.methods.adapted",
        "trained_numbers": "ftkit.methods.registry",
    },
)
