"""Rows, the one chat function, the masks that decide what is trained, and the doctor that looks them over."""

from importlib import import_module

_PUBLIC = {
    "DataConfig": "ftkit.data.config",
    "DataPreparationPipeline": "ftkit.data.pipeline",
    "load_data": "ftkit.data.sources",
    "encode": "ftkit.data.chat",
    "encode_prompt": "ftkit.data.chat",
    "encode_rows": "ftkit.data.chat",
    "render_prompt": "ftkit.data.chat",
    "doctor": "ftkit.data.checkup",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ftkit.data' has no attribute {name!r}")
