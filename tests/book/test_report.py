"""The evaluation's report in a browser: a wide window and a phone, light and dark, with hostile answers in it."""

import pytest

from ftkit import EvaluationConfig, LLMEvaluator

HOSTILE = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">" + "long" * 60


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    messages = [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}]
    config = EvaluationConfig("tiny-smollm", max_new_tokens=4, general_texts=2, output_dir=str(folder))
    LLMEvaluator(config, verbose=False).run_full_evaluation([{"messages": messages}] * 3, baseline="tiny-qwen3")
    return folder / "report.html"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_runs_nothing_asks_nobody_and_fits(report, windows, theme, width):
    page = windows[theme].new_page()
    page.set_viewport_size({"width": width, "height": 900})
    asked, said = [], []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(report.as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.title() == "Evaluation of tiny-smollm" and asked == [report.as_uri()] and said == []
    assert page.evaluate("document.scripts.length + document.images.length") == 0
    assert HOSTILE in page.inner_text("main")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    light = [sum(map(int, colour[4:-1].split(","))) for colour in (ink, paper)]
    assert (light[0] < light[1]) == (theme == "light")
    page.close()
