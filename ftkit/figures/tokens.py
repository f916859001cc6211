"""Token rows as HTML: what each token is, its id, and whether it is trained."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

_BOX = "display:inline-block;margin:2px;padding:1px 4px;border-radius:4px;text-align:center;font:12px/1.35 monospace;"
_TRAINED = _BOX + "background:#b7e4c7;color:#000;border:1px solid #1b4332"
_CONTEXT = _BOX + "border:1px solid #7f8790"


@dataclass(frozen=True)
class TokenStrip:
    """A row of tokens, one above its id above its label; what is trained stands on green. It wraps at the page's width.

    Attributes:
        tokens: the text of each.
        input_ids, labels: as long as `tokens`; a label of -100 is not trained.
    """

    tokens: Sequence[str]
    input_ids: Sequence[int]
    labels: Sequence[int]

    def _repr_html_(self) -> str:
        boxes = []
        for token, token_id, label in zip(self.tokens, self.input_ids, self.labels, strict=True):
            style = _CONTEXT if label == -100 else _TRAINED
            shown = html.escape(token.replace("\n", "⏎").replace(" ", "␣").replace("\t", "⇥"))
            boxes.append(f"<span style='{style}'>{shown}<br>{token_id}<br>{label}</span>")
        return f"<div role='group' aria-label='tokens with their ids and labels'>{''.join(boxes)}</div>"
