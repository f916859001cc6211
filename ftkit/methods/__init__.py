"""How each parameter-efficient method is set up on PEFT, and what PEFT lacks.

Importing this package loads no torch; a public name is imported when it is first used.
"""

from importlib import import_module

_PUBLIC = {
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
}
__all__ = [*_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ftkit.methods' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
