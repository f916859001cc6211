r"""Perplexity and bits per byte, exact by token, of plain texts or of the answers in conversations.

.. math:: \mathrm{ppl} = \exp\Big(\frac{1}{N} \sum_{t} -\log p(y_t \mid y_{<t})\Big), \qquad
          \mathrm{bpb} = \frac{1}{B \ln 2} \sum_{t} -\log p(y_t \mid y_{<t})

over the N tokens that are predicted from something, and the B bytes (UTF-8) that these tokens stand for. A text's first
token is predicted from the BOS where the tokenizer puts one in front, and from nothing, so not at all, elsewhere.
Perplexity is per token: only models with the same tokenizer can be compared by it. Bits per byte compares any two.

No more logits than `ftkit.loss.CHUNK_LOGITS` exist at once, and none are kept. What all sequences begin with is read
once, as in generation.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftkit.data.chat import encode_rows
from ftkit.errors import DataError, ModelError
from ftkit.evaluation.generate import context_length
from ftkit.evaluation.prefix import SharedPrefix, shared_prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_WINDOW = 2048
"""Longest default window: beyond it, memory and time grow and a token's likelihood hardly changes."""
IGNORE_INDEX = -100


@dataclass(frozen=True)
class Likelihood:
    """Of one text: `nll`, the summed negative log-likelihood in nats, of `tokens`, which stand for `bytes`."""

    nll: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.nll / math.log(2) / self.bytes


@dataclass(frozen=True)
class Perplexity:
    """Of a set of texts, weighted by token and by byte.

    Attributes:
        perplexity, avg_loss: exp of, and, the mean nats a token.
        bits_per_byte: comparable between tokenizers.
        total_tokens, total_bytes: predicted.
        texts: that had a token to predict.
        left_out: that had none (empty, or one token without a BOS before it).
    """

    perplexity: float
    avg_loss: float
    bits_per_byte: float
    total_tokens: int
    total_bytes: int
    texts: int
    left_out: int


def perplexity(likelihoods: Sequence[Likelihood]) -> Perplexity:
    """Summary of `likelihoods`.

    Raises:
        DataError: no text had a token to predict.
    """
    tokens, size = sum(text.tokens for text in likelihoods), sum(text.bytes for text in likelihoods)
    if not tokens:
        raise DataError(
            f"none of the {len(likelihoods)} texts has a token that is predicted from another: perplexity needs one."
        )
    nll = sum(text.nll for text in likelihoods)
    scored = sum(text.tokens > 0 for text in likelihoods)
    loss = nll / tokens
    value = math.exp(loss) if loss < 700 else math.inf
    return Perplexity(value, loss, nll / math.log(2) / max(size, 1), tokens, size, scored, len(likelihoods) - scored)


def text_likelihoods(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], **options
) -> list[Likelihood]:
    """Likelihood of each plain text, in their order, without a chat template; options as in `row_likelihoods`."""
    sequences, sizes = [], []
    for text in texts:
        encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
        ids = encoded["input_ids"]
        start, end = encoded["offset_mapping"][0] if ids else (0, 0)
        sequences.append((ids, ids))
        # The first token, unless it is a BOS, which stands for no text, is predicted from nothing.
        sizes.append(len((text[:start] + text[end:]).encode(errors="surrogatepass")))
    return likelihoods(model, tokenizer, sequences, sizes, **options)


def row_likelihoods(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[dict[str, Any]],
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> list[Likelihood]:
    """Likelihood of each row's last answer and its stop token, given the prompt as training and generation render it.

    Args:
        rows: in the messages format.
        window: tokens that the model sees at once. Default: its context, at most 2,048.
        stride: a text longer than the window is read in windows that begin so many tokens apart; each token is scored
            once, in the first window that holds it. A smaller stride gives more context and takes more time. Default:
            half the window.
        batch_size: windows at once; the result does not depend on it but for rounding.
        progress: draw a bar on stderr.
    """
    encoded = [e.rows[0] for e in encode_rows(tokenizer, rows, on_mismatch="common_prefix")]
    sequences = [(row["input_ids"], row["labels"]) for row in encoded]
    sizes = [len(row["messages"][-1]["content"].encode(errors="surrogatepass")) for row in rows]
    options = {"window": window, "stride": stride, "batch_size": batch_size, "progress": progress}
    return likelihoods(model, tokenizer, sequences, sizes, **options)


def likelihoods(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    sequences: Sequence[tuple[list[int], list[int]]],
    sizes: Sequence[int],
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> list[Likelihood]:
    """Likelihood of the labels of each (`input_ids`, `labels`), labels being -100 where nothing is asked; `sizes` are
    the bytes that the labels of each stand for, the options those of `row_likelihoods`.

    Raises:
        DataError: there are no sequences, or the stride does not fit the window.
        ModelError: as in `check_readable`.
    """
    import torch
    from tqdm.std import tqdm

    check_readable(model)
    if not sequences:
        raise DataError("there are no texts to score; give at least one.")
    window = min(window or MAX_WINDOW, context_length(model))
    stride = stride or max(1, window // 2)
    if not 0 < stride < window:
        raise DataError(f"stride must lie between 1 and window - 1, not {stride} at a window of {window}.")
    windows = [(at, *cut) for at, pair in enumerate(sequences) for cut in _windows(*pair, window, stride)]
    windows.sort(key=lambda cut: len(cut[1]))
    sums, tokens = [0.0] * len(sequences), [0] * len(sequences)
    model.eval()
    bar = tqdm(total=len(windows), desc="perplexity", unit="window", disable=not progress, file=sys.stderr)
    with torch.inference_mode(), bar:
        # The token that predicts a window's first label is read with the window.
        prefix = shared_prefix(model, [ids[: _first_label(labels)] for _, ids, labels in windows])
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            for (at, _, labels), nll in zip(batch, _nll(model, tokenizer.pad_token_id, batch, prefix), strict=True):
                sums[at] += nll
                tokens[at] += sum(label != IGNORE_INDEX for label in labels[1:])
            bar.update(len(batch))
    return [
        Likelihood(*three) if three[1] else Likelihood(0.0, 0, 0) for three in zip(sums, tokens, sizes, strict=True)
    ]


def _windows(ids: list[int], labels: list[int], window: int, stride: int):
    """(ids, labels) of at most `window` tokens, each label in the first window that holds it together with the token
    before it, and -100 in the others."""
    start = scored = 0
    while scored < len(ids):
        end = min(start + window, len(ids))
        cut = [IGNORE_INDEX] * (scored - start) + labels[scored:end]
        if any(label != IGNORE_INDEX for label in cut[1:]):
            yield ids[start:end], cut
        start, scored = start + stride, end


def check_readable(model: "PreTrainedModel") -> None:
    """
    Raises:
        ModelError: the model's likelihoods are not those of its head's logits.
    """
    from ftkit.loss import scaled_by

    if (name := scaled_by(model)) is not None:
        raise ModelError(
            f"{name} scales the logits of this model, which perplexity does not do; evaluate it with "
            "compute_perplexity=False and general_texts=0."
        )


def _first_label(labels: list[int]) -> int:
    """Where the first label stands that is predicted."""
    return next(at for at, label in enumerate(labels) if at and label != IGNORE_INDEX)


def _nll(model, pad_token_id: int, batch, prefix: SharedPrefix | None) -> list[float]:
    """Summed negative log-likelihood of each window's labels."""
    import torch
    from torch.nn.functional import cross_entropy

    from ftkit.loss import CHUNK_LOGITS

    width = max(len(ids) for _, ids, _ in batch)
    ids = torch.tensor([ids + [pad_token_id] * (width - len(ids)) for _, ids, _ in batch])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for _, ids, _ in batch])
    targets = torch.tensor([labels[1:] + [IGNORE_INDEX] * (width - len(labels) + 1) for *_, labels in batch])
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = model.config.get_text_config()
    known = {"use_cache": False}
    if prefix:
        ids, targets = ids[:, prefix.length :], targets[:, prefix.length :]
        known = {"use_cache": True, "past_key_values": prefix.cache(mask)}
    hidden = model.get_decoder()(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), **known
    ).last_hidden_state
    rows, positions = (targets != IGNORE_INDEX).nonzero(as_tuple=True)
    sums = torch.zeros(len(batch), dtype=torch.float64)
    head, cap = model.get_output_embeddings(), getattr(config, "final_logit_softcapping", None)
    chunk = max(1, CHUNK_LOGITS // head.out_features)
    for row, at in zip(rows.split(chunk), positions.split(chunk), strict=True):
        logits = head(hidden[row.to(hidden.device), at.to(hidden.device)]).float()
        logits = logits if cap is None else torch.tanh(logits / cap) * cap
        nll = cross_entropy(logits, targets[row, at].to(logits.device), reduction="none")
        sums.index_add_(0, row, nll.double().cpu())
    return sums.tolist()
