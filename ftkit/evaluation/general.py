"""General English that no fine-tuning task of this package holds: what a model may have forgotten is seen on it."""

from ftkit.errors import ConfigError

PASSAGE = 800
"""Characters of a passage, at most."""


def general_texts(count: int) -> list[str]:
    """`count` passages, at most `PASSAGE` characters each, of Python's language reference (`pydoc_data.topics`).

    They come with every CPython, so no network is needed; another version of Python may word them otherwise, so
    compare models within one call only. Passages are taken evenly over the topics, in alphabetical order.

    Raises:
        ConfigError: fewer than one passage, or more than there are topics of that length.
    """
    from pydoc_data.topics import topics

    passages = [_beginning(text) for _, text in sorted(topics.items()) if len(text) >= PASSAGE]
    if not 0 < count <= len(passages):
        raise ConfigError(f"there are {len(passages)} passages of general text, not {count}.")
    return [passages[i * len(passages) // count] for i in range(count)]


def _beginning(text: str) -> str:
    """The first `PASSAGE` characters, cut between words."""
    return text[: PASSAGE + 1].rpartition(" ")[0]
