"""Rows, the one chat function, the masks that decide what is trained, and the doctor that looks them over."""

from ftkit import lazy

__getattr__, __dir__, __all__ = lazy.names(
    __name__,
    {
        "DataConfig": "ftkit.data.config",
        "DataPreparationPipeline": "ftkit.data.pipeline",
        "load_data": "ftkit.data.sources",
        "encode": "ftkit.data.chat",
        "encode_prompt": "ftkit.data.chat",
        "encode_rows": "ftkit.data.chat",
        "render_prompt": "ftkit.data.chat",
        "doctor": "ftkit.data.checkup",
    },
)
