"""Rows, the one chat function, and the masks that decide what is trained."""

from importlib import import_module

_PUBLIC = {
    "load_data": "ftkit.data.sources",
    "encode": "ftkit.data.chat",
    "encode_prompt": "ftkit.data.chat",
    "render_prompt": "ftkit.data.chat",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ftkit.data' has no attribute {name!r}")
