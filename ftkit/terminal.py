"""`ftkit chat`: turns from a terminal or a pipe, answers as they are generated."""

import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

from ftkit.errors import ConfigError, DataError
from ftkit.fields import check_seed

NEW, HELP = "/new", "An empty line is passed over; /new begins anew; Ctrl-D ends."


@dataclass
class Chat:
    """Talk to a model: each line is a turn, the answer streams; end with Ctrl-D. Reads a pipe as well."""

    model: str
    """What to talk to: a folder with a model or an adapter, `embedded`, `tiny-<family>`, or a hub id."""
    system: str | None = None
    """System prompt. Default: what the model's own chat template puts there, if anything."""
    max_new_tokens: int = 512
    """Longest answer in tokens."""
    temperature: float = 0.0
    """0 answers with the likeliest tokens, the same each time; above, tokens are drawn."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability."""
    seed: int = 42
    """Seed of the drawing."""
    dtype: str = "auto"
    """Precision: auto, float32, bfloat16 or float16."""
    trust_remote_code: bool = False
    """Run Python code that a hub repository brings. Off: a model's weights should not execute code."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be above 0, not {self.max_new_tokens}.")
        check_seed(self.seed)
        if self.temperature < 0:
            raise ConfigError(f"temperature must not be negative, but is {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, not {self.top_p}.")
        if self.top_p < 1 and not self.temperature:
            raise ConfigError("top_p means nothing at temperature 0, where nothing is drawn; raise it or drop top_p.")


def chat(options: Chat) -> None:
    import torch

    from ftkit.evaluation.stream import stream
    from ftkit.models import load

    model, tokenizer = load(
        options.model, dtype=options.dtype, trust_remote_code=options.trust_remote_code, verbose=False
    )
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        print(f"{options.model}: {HELP}", file=sys.stderr)
    torch.manual_seed(options.seed)
    settings = {n: getattr(options, n) for n in ("max_new_tokens", "temperature", "top_p")}
    start = [{"role": "system", "content": options.system}] if options.system is not None else []
    messages = list(start)
    for turn in _turns(sys.stdin, prompt="> " if at_terminal else ""):
        if turn == NEW:
            messages = list(start)
            continue
        messages.append({"role": "user", "content": turn})
        try:
            answer = stream(model, tokenizer, messages, _write, **settings)
        except DataError as error:
            if not at_terminal:
                raise
            print(f"ftkit: {error} {HELP}", file=sys.stderr)
            messages.pop()
            continue
        print(flush=True)
        messages.append({"role": "assistant", "content": answer})


def _turns(lines: TextIO, prompt: str) -> Iterable[str]:
    """Lines that hold something, until the end of input; at a terminal with its line editing."""
    while True:
        if prompt:
            try:
                line = input(prompt)
            except EOFError:
                print()
                return
        else:
            try:
                line = lines.readline()
            except UnicodeDecodeError as error:
                raise DataError(f"the input is not UTF-8 ({error.reason}); convert it.") from None
            if not line:
                return
        if line.strip():
            yield line.strip()


def _write(text: str) -> None:
    """To stdout, without the control characters by which a text could command a terminal."""
    print("".join(c for c in text if unicodedata.category(c) != "Cc" or c in "\n\t"), end="", flush=True)
