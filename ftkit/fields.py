"""Dataclass fields: the help text that stands below one, for the command line, the book's tables and readers; seeds."""

import ast
import inspect
import textwrap

from ftkit.errors import ConfigError


def field_docs(cls: type) -> dict[str, str]:
    """Field name to the string literal below it, on one line, in the order of the source, a base's fields first."""
    docs = {name: text for base in cls.__bases__ if base is not object for name, text in field_docs(base).items()}
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
    for field, below in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[field.target.id] = " ".join(below.value.value.split())
    return docs


def check_seed(seed: int) -> None:
    """
    Raises:
        ConfigError: NumPy, which draws some of what a seed decides, takes 32 bits and no more.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be at least 0 and below 2**32, not {seed!r}.")
