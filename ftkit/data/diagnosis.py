"""What the doctor found, as an object, a table on a terminal, and a page in a notebook."""

import html
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]
VERDICTS = {0: "healthy", 1: "warnings", 2: "training would be wrong"}
_TRAINED, _OFF = "\033[30;42m", "\033[0m"
_MARKS = {"error": "x", "warning": "!", "info": "-"}


@dataclass(frozen=True)
class Finding:
    """One thing to know about the data.

    Attributes:
        check: name of the check, always the same for the same fault.
        severity: "error" where training or its evaluation would be wrong, "warning" where it would suffer, "info".
        rows: how many rows it concerns.
        message: what is the matter and what to do.
        example: one of the rows.
    """

    check: str
    severity: Severity
    rows: int
    message: str
    example: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The doctor's report on one data set.

    Attributes:
        data, model: what was looked at, and for which model.
        counts: `rows`, `tokens`, `trained_tokens`, `mask_coverage` (trained over all), `prefix_violations` and more.
        findings: the most severe first.
        lengths: histogram of row lengths in tokens as (upper bound, rows).
        shown: the first rows as the model sees them: pieces of text, each with whether it is trained.
    """

    data: str
    model: str
    counts: dict[str, Any]
    findings: list[Finding]
    lengths: list[tuple[int, int]] = field(default_factory=list)
    shown: list[list[tuple[str, bool]]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 with warnings, 2 when training would be wrong."""
        return max(({"error": 2, "warning": 1}.get(finding.severity, 0) for finding in self.findings), default=0)

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        return VERDICTS[self.exit_code]

    def as_dict(self) -> dict[str, Any]:
        """`verdict`, `counts`, `findings` and the rest as plain lists and dictionaries, for JSON."""
        return {
            "verdict": self.verdict,
            "data": self.data,
            "model": self.model,
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
            "lengths": [{"up_to": bound, "rows": rows} for bound, rows in self.lengths],
        }

    def text(self, color: bool = False) -> str:
        """A table for a terminal. Trained tokens stand on green, or without `color` between guillemets."""
        lines = [f"{self.data} for {self.model}: {self.verdict}", ""]
        lines += [f"  {name.replace('_', ' '):20} {_number(value)}" for name, value in self.counts.items()]
        lines += ["", "  tokens a row"]
        most = max((rows for _, rows in self.lengths), default=1)
        lines += [f"  {bound:>8,} {'#' * round(20 * rows / most):20} {rows:,}" for bound, rows in self.lengths]
        for finding in self.findings:
            lines += ["", f"{_MARKS[finding.severity]} {finding.check} ({finding.severity}, {finding.rows:,} rows)"]
            lines.append(f"  {finding.message}")
            lines += [f"  e.g. {finding.example!r}"] if finding.example else []
        before, after = (_TRAINED, _OFF) if color else ("«", "»")
        for number, pieces in enumerate(self.shown, start=1):
            row = "".join(f"{before}{_lines(text, color)}{after}" if on else text for text, on in pieces)
            lines += ["", f"row {number} as the model sees it, what is trained marked:", row]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th scope='row'>{html.escape(finding.check)}</th><td>{finding.severity}</td><td>{finding.rows:,}</td>"
            f"<td style='min-width: 14em'>{html.escape(finding.message)}</td>"
            f"<td><code>{html.escape(finding.example)}</code></td></tr>"
            for finding in self.findings
        )
        head = "".join(f"<th scope='col'>{name}</th>" for name in ("check", "severity", "rows", "what", "example"))
        counts = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in self.counts.items())
        rows = "".join(
            f"<pre style='white-space: pre-wrap'>{''.join(map(_mark, pieces))}</pre>" for pieces in self.shown
        )
        title = html.escape(f"{self.data} for {self.model}: {self.verdict}")
        return (
            f"<p><strong>{title}</strong><br>{counts}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"
            f"<p>The first rows as the model sees them; what is trained is marked.</p>{rows}"
        )


def _mark(piece: tuple[str, bool]) -> str:
    text, trained = html.escape(piece[0]), piece[1]
    return f"<mark style='background: #b7e4c7; color: #000'>{text}</mark>" if trained else text


def _lines(text: str, color: bool) -> str:
    # A background that runs over a newline would colour the rest of the terminal's line.
    return text.replace("\n", f"{_OFF}\n{_TRAINED}") if color else text


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.1%}" if isinstance(value, float) else str(value)
