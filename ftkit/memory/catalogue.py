"""The catalogue: exact shapes of the models that people fine-tune, read from a file without torch.

A name that stands in it answers at once. A folder, a `config.json` or any other hub id goes through transformers and
the meta device, which takes some seconds. What is neither is an error: a size is never guessed from a name.
"""

import functools
import json
from pathlib import Path

from ftkit.errors import ModelError, UnknownLayout, near_matches
from ftkit.memory.shapes import Architecture

FILE = Path(__file__).with_name("catalogue.json")
# Whose repositories hold the published models themselves; anyone else's may have changed them.
PUBLISHERS = ("meta-llama", "qwen", "google", "deepseek-ai", "huggingfacetb")
# Endings of a published name that change the weights and not the shapes.
SAME_SHAPES = ("-instruct", "-it", "-base", "-chat", "-hf", "-pt", "-2507")


@functools.cache
def _file() -> dict[str, dict]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def known_models() -> list[str]:
    """The catalogue's own names, without the other names they also answer to."""
    return list(_file())


def canonical(name: str) -> str | None:
    """The catalogue's name for `name` (upper case, a publisher's hub id, `-Instruct` and its like); None where it has
    none."""
    publisher, _, bare = name.lower().rpartition("/")
    if publisher and publisher not in PUBLISHERS:
        return None
    bare = bare.removeprefix("meta-").replace("_", "-")
    while ending := next((e for e in SAME_SHAPES if bare.endswith(e)), None):
        bare = bare.removesuffix(ending)
    for known, entry in _file().items():
        if bare == known or bare in entry["aliases"]:
            return known
    return None


def architecture(model: str) -> Architecture:
    """The architecture of `model`: a catalogue name, a `tiny-<family>`, a folder, a `config.json`, or a hub id.

    Raises:
        ModelError: it is none of these; the text names the nearest known ones.
        UnknownLayout: it has layers that the estimator does not know.
    """
    model = str(model)
    is_path = Path(model).exists()
    if not is_path and (known := canonical(model)):
        return _read(known)
    if not is_path and "/" not in model and not model.startswith("tiny-"):
        raise ModelError(
            f"{model!r} is not in the catalogue, and no folder or config.json either.{near_matches(model, _names())} "
            f"Known are {', '.join(known_models())}; of any other model name its folder, its config.json or its hub id."
        )
    return _slow(model)


@functools.cache
def _read(known: str) -> Architecture:
    return Architecture.from_dict(_file()[known]["architecture"])


def _names() -> list[str]:
    return [name for known, entry in _file().items() for name in (known, *entry["aliases"])]


def _slow(model: str) -> Architecture:
    from ftkit.memory.describe import describe
    from ftkit.models.loading import load_config

    try:
        return describe(load_config(model))
    except UnknownLayout:
        raise  # it was found: no other name was meant
    except ModelError as error:
        # The loader suggests names of models that it can load; here the catalogue's are the nearer ones.
        reason = str(error).partition(" Did you mean")[0]
        raise ModelError(f"{reason}{near_matches(model.rpartition('/')[2].lower(), _names())}") from None
