"""What to load and how: the embedded model, tiny random models of every family, folders and hub ids.

Importing this package loads no torch; a public name is imported when it is first used.
"""

from importlib import import_module

_PUBLIC = {
    "load": "ftkit.models.loading",
    "load_tokenizer": "ftkit.models.loading",
    "known_names": "ftkit.models.loading",
    "Family": "ftkit.models.families",
    "FAMILIES": "ftkit.models.families",
    "LoraTargets": "ftkit.models.families",
    "family_of": "ftkit.models.families",
    "lora_targets": "ftkit.models.families",
    "Quantization": "ftkit.models.quantized",
    "stop_token_ids": "ftkit.models.families",
}
__all__ = [*_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ftkit.models' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
