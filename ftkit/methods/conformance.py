"""Which method has which property, as a table.

Every cell without a reason is held by a test of that property on that method, and every cell with one by a test that
the combination is refused.
"""

from ftkit.methods.registry import FEATURES, METHODS, REASONS

PROPERTIES = {
    "identity": "before the first step, the adapted model answers as its base",
    "equal": "forward pass and gradients of the readable version are those of the one that trains (1e-6, float32)",
    "merge": "merged into the weights, it answers as before",
    "round trip": "merged and unmerged, the base is what it was",
    "count": "as many numbers train as the closed form says",
    "gradients": "what is declared trained gets gradients, and nothing else does",
    "reload": "saved, it loads on a fresh base in a process that has only PEFT",
    "resume": "stopped and gone on with, its state and the optimizer's end as if it had not stopped",
    "checkpointing": "recomputing activations changes no gradient",
    "lora_dropout": "trains with " + FEATURES["lora_dropout"],
    "use_rslora": "takes " + FEATURES["use_rslora"],
    "use_lora_plus": "takes " + FEATURES["use_lora_plus"],
    "fused_experts": "adapts " + FEATURES["fused_experts"],
    "quantised_base": "trains on " + FEATURES["quantised_base"],
}
"""Column to what it says. The last five may be refused."""


def cell(method: str, column: str) -> str:
    """The reason for which `method` refuses `column`; the empty string where it has the property."""
    return METHODS[method].refuses.get(column, "")


def table() -> str:
    """Methods by properties, to print: a dot where the property holds, else a letter, and below what it stands for."""
    given = {cell(method, column) for method in METHODS for column in PROPERTIES}
    reasons = [reason for reason in REASONS if reason in given]
    letter = {"": "·", **{reason: chr(ord("a") + index) for index, reason in enumerate(reasons)}}
    first = max(map(len, METHODS))
    lines = [" ".join([" " * first, *PROPERTIES])]
    for method in METHODS:
        cells = (f"{letter[cell(method, column)]:^{len(column)}}" for column in PROPERTIES)
        lines.append(" ".join([f"{method:{first}}", *cells]).rstrip())
    lines.append("")
    lines += [f"{letter[reason]}: {REASONS[reason]}" for reason in reasons]
    return "\n".join(lines)
