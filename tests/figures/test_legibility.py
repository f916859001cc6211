"""On a phone a page is some 340 pixels wide, and a figure with it: its smallest letters are still nine pixels high."""

import importlib
import inspect
import io
import pkgutil
import re
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from ftkit import figures
from ftkit.evaluation.uncertainty import Interval
from ftkit.figures import (
    adapters,
    conclusion,
    data,
    decision,
    evaluation,
    full,
    introduction,
    memory,
    pipeline,
    practice,
    quantisation,
    results,
    sweeps,
    why,
)
from ftkit.figures.style import use_style
from ftkit.memory import estimate
from ftkit.memory.recommendation import OUTCOMES, RULES

PHONE, SMALLEST = 340, 9.0  # CSS pixels

POINTS = [(1, 3.1), (20, 0.2), (50, 0.04)]
LOG = [{"step": step, "loss": loss} for step, loss in POINTS]
INTERVAL = Interval(0.6, 0.53, 0.66)
RUNS = {name: estimate("llama-3-8b", method=name).components for name in ("full", "lora", "qlora")}
STEPS = [
    data.Step("Read", "recognise the format", {"": 1002}, {"no text in a message": 1, "unknown format": 1}),
    data.Step("Deduplicate", "hash, MinHash", {"": 830}, {"exact duplicate": 161, "near duplicate": 9}),
]
PARTS = {
    "metrics": ["exact match +0.66", "perplexity, ROUGE"],
    "benchmarks": ["facts 0.78", "words 0.55"],
    "analysis": ["near miss 39%", "wrong content 10%"],
}
CHANGED = {"float32": {"matrices": 1.0, "norms": 1.0}, "bfloat16": {"matrices": 0.05, "norms": 0.0}}
COMPONENTS = {"quantized_weights": 35.5, "embeddings": 4.2, "optimizer": 3.3}
GIVES = ["exact match 0.03 to 0.59", "130 tokens less a request", "a format that holds"]
ASKS = ["208 examples with answers", "held-out rows and a baseline", "measuring what was forgotten"]

DRAWN = {
    introduction.lifecycle: (2e12, 31_400, 6_170, 134_515_008),
    introduction.starts: ({"pre-trained, rate 0.001": POINTS}, "loss on held-out messages (nats per byte)"),
    why.weighing: (GIVES, [*ASKS, "again, for each new base model"]),
    why.break_even: (5e13, 3.5e10, 482),
    memory.approaches_overview: (RUNS,),
    memory.memory_comparison: (RUNS, {"80 GB": 80, "8 x 80 GB": 640}),
    memory.memory_optimisation: (RUNS, {"24 GB": 24, "80 GB": 80}),
    full.gradient_flow: ([("embedding", 8_416, 1.0), ("layer 0", 9_280, 1.4), ("final norm", 32, 0.56)], 5.75),
    full.training_run: (
        ["135M weights", "float32, AdamW", "data and masks", "seeds"],
        ["4 rows", "loss per token", "gradients, clipped", "rate of the step", "update"],
        ["loss, 52 steps", "validation: 26", "checkpoint: 52", "best one kept"],
    ),
    full.two_curves: ({"bare loop": [5.8, 5.0], "FullFineTuner": [5.8, 5.0]},),
    full.share_changed: (CHANGED,),
    adapters.lora: (1024, 4096, 64),
    adapters.lora_fa: (4096, 4096, 16),
    adapters.vera: (4096, 4096, 256, 32),
    adapters.delta_lora: (range(1, 4), [0, 0, 3.8], [0, 2, 3.1], 2),
    adapters.lora_plus: ([(2e-4, 3.2e-3), (2e-6, 3.2e-5)],),
    sweeps.sweep: ({"ratio 1": {0.001: [3.0, 2.9], 0.016: [0.01, 0.02]}}, "learning rate of A", "loss"),
    sweeps.seeds: ({"lora, alpha x 3": [0.0652, 0.0952], "full": [4.1, 0.02]}, "test loss (nats a letter)"),
    quantisation.code_books: ({"NF4": [-1, 0, 1], "FP4": [-1, 1]}, [0.1, 0.2]),
    quantisation.qlora_layer: (4096, 4096, 16, 8_650_000, 524_288),
    quantisation.memory_distribution: (COMPONENTS,),
    quantisation.qlora_setup: (269_000_000, 54_900_000, 56_700_000, 9_770_000, 4_920_000),
    data.data_pipeline: (STEPS,),
    data.band_curves: ({"b = 20, r = 6 (first)": ([0, 1], [0, 1])}, ([0.5], [0.4])),
    data.filling: ({"padded to the limit": (60_000, 20_000, 100_000)},),
    data.visible: ([[True, False], [True, True]], ["a", "b"]),
    pipeline.lora_pipeline: {
        "parameters": 134_515_008,
        "trained": 2_442_240,
        "rows": 208,
        "steps": 52,
        "validation_loss": 0.0688,
        "adapter_bytes": 9_820_000,
        "merged_bytes": 538_000_000,
    },
    results.loss_curve: (LOG,),
    results.scores: ({"LoRA, plain prompt": INTERVAL}, "exact match on 200 held-out messages, 95% interval"),
    evaluation.framework: (80, PARTS, "exact match better: +0.56 to +0.76"),
    evaluation.differences: ({"answers_bits_per_byte": INTERVAL}, "tuned minus base"),
    evaluation.narrowing: ({10: INTERVAL, 80: INTERVAL}, "field accuracy, tuned minus base"),
    practice.curves: ({"validation, 1,000 rows": POINTS}, "step", "loss (nats per word)"),
    decision.method_flowchart: (RULES, OUTCOMES),
    conclusion.runs_beside: (
        {
            "numbers trained": {"full": 134_515_008, "LoRA": 2_442_240, "QLoRA": 2_442_240},
            "file, MB": {"full": 538.1, "LoRA": 9.8, "QLoRA": 9.8},
            "validation loss": {"full": 0.061, "LoRA": 0.07, "QLoRA": 0.07},
            "exact match, 95%": {"full": INTERVAL, "LoRA": INTERVAL, "QLoRA": INTERVAL},
        },
        ["numbers trained", "file, MB"],
    ),
}
"""Every figure, with what it is given in the book or the like of it."""


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        plt.close("all")


def named(draw) -> str:
    return draw.__name__


def drawn(draw):
    given = DRAWN[draw]
    return draw(**given) if isinstance(given, dict) else draw(*given)


def test_no_figure_is_left_out():
    names = [found.name for found in pkgutil.iter_modules(figures.__path__)]
    modules = [importlib.import_module(f"ftkit.figures.{name}") for name in names]
    drawing = {
        function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
        if inspect.signature(function).return_annotation in ("Figure", '"Figure"')
    }
    assert drawing == set(DRAWN)


@pytest.mark.parametrize("draw", DRAWN, ids=named)
def test_the_smallest_letters_can_be_read_on_a_phone(draw):
    file = io.StringIO()
    drawn(draw).savefig(file, format="svg", bbox_inches="tight")  # as a notebook writes it
    svg = file.getvalue()
    width = float(re.search(r'viewBox="0 0 ([\d.]+) ', svg)[1])
    sizes = [float(size) for size in re.findall(r"font(?:-size)?:[^;\"]*?([\d.]+)px", svg)]
    assert min(sizes) / width * PHONE >= SMALLEST


@pytest.mark.parametrize("draw", DRAWN, ids=named)
def test_no_words_stand_on_others(draw):
    figure = drawn(draw)
    figure.canvas.draw()
    for axes in figure.axes:
        words = [text for text in axes.texts if text.get_text()]
        for one, other in combinations(words, 2):
            pair = one.get_window_extent(), other.get_window_extent()
            assert not pair[0].overlaps(pair[1]), (one.get_text(), other.get_text())
