import matplotlib as mpl
import pytest

from ftkit.figures.pipeline import lora_pipeline
from ftkit.figures.style import use_style


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        mpl.pyplot.close("all")


def test_every_number_of_the_run_is_in_the_picture():
    figure = lora_pipeline(
        parameters=8_030_261_248,
        trained=2_442_240,
        rows=1_208,
        steps=52,
        validation_loss=0.0423,
        adapter_bytes=9_800_000,
        merged_bytes=538_000_000,
    )
    words = "\n".join(text.get_text() for text in figure.axes[0].texts)
    assert all(number in words for number in ("8.03B", "2.44M", "1,208", "52 steps", "0.0423", "9.8 MB", "538 MB"))


def test_a_tiny_model_is_drawn_in_thousands():
    tiny = {"parameters": 43_392, "trained": 900, "rows": 3, "steps": 1, "validation_loss": 5.0}
    words = [t.get_text() for t in lora_pipeline(**tiny, adapter_bytes=1, merged_bytes=1).axes[0].texts]
    assert any("43.4k weights" in word for word in words) and any("900 numbers" in word for word in words)
