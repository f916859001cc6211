"""Shared by all tests: offline, quiet, and a small task that a tiny model can be trained on in seconds."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import pytest


@pytest.fixture
def rows():
    """Twelve conversations of different lengths."""
    words = "one two three four five six seven eight nine ten eleven twelve".split()
    return [
        {
            "messages": [
                {"role": "user", "content": "Say " + " ".join(words[: i + 1])},
                {"role": "assistant", "content": " ".join(reversed(words[: i + 1]))},
            ]
        }
        for i in range(len(words))
    ]
