"""What to load and how: the embedded model, tiny random models of every family, folders and hub ids.

Importing this package loads no torch; a public name is imported when it is first used.
"""

from ftkit import lazy

__getattr__, __dir__, __all__ = lazy.names(
    __name__,
    {
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
    },
)
