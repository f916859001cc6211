"""The catalogue: totals equal the published ones to the unit, and the file is what the script makes."""

import json
import subprocess
import sys

import pytest

from ftkit.errors import ModelError
from ftkit.memory.catalogue import FILE, architecture, canonical, known_models
from ftkit.memory.configurations import MODELS, generate
from ftkit.memory.shapes import Architecture

PUBLISHED = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-4-scout": 107_769_861_120,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 3_880_263_168,
    "gemma-3-12b": 11_766_034_176,
    "gemma-3-27b": 27_009_346_304,
    "deepseek-v3": 671_026_419_200,
    "deepseek-v3.2": 671_877_944_064,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
}


def test_the_file_is_what_the_script_makes():
    assert FILE.read_text() == generate()


def test_totals_are_the_published_ones():
    assert set(PUBLISHED) == set(known_models()) == set(MODELS)
    for name, total in PUBLISHED.items():
        a = architecture(name)
        assert a.parameters + a.buffers == total, name
        assert (a.buffers > 0) == name.startswith("deepseek")


def test_deepseek_shows_both_totals():
    assert architecture("deepseek-v3").parameters == 671_026_404_352
    assert architecture("deepseek-v3.2").parameters == 671_877_929_216
    assert architecture("deepseek-v3").buffers == 58 * 256


def test_active_parameters_are_the_published_ones():
    published = {
        "llama-4-scout": 17_172_894_720,
        "qwen3-30b-a3b": 3_353_032_704,
        "deepseek-v3": 37_552_297_472,
        "deepseek-v3.2": 38_403_822_336,
    }
    for name, active in published.items():
        a = architecture(name)
        assert a.active_parameters + a.buffers == active


def test_reading_gives_back_what_was_written():
    for name in known_models():
        a = architecture(name)
        assert Architecture.from_dict(json.loads(json.dumps(a.to_dict()))) == a


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("meta-llama/Meta-Llama-3-70B", "llama-3-70b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3-70b"),
        ("google/gemma-3-27b-it", "gemma-3-27b"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"),
        ("deepseek-ai/DeepSeek-V3.2", "deepseek-v3.2"),
        ("embedded", "smollm2-135m"),
        ("someone/llama-3-8b", None),  # anyone's model may have other shapes
        ("llama-3-7b", None),
    ],
)
def test_other_names_of_a_published_model(asked, known):
    assert canonical(asked) == known


def test_e10_4_a_size_is_never_guessed_from_a_name():
    # A search for "7b", "70b" in the name took gemma-3-27b and 8x7b for 7B, 170b for 70B and all others for 7B.
    for name in ("mixtral-8x7b", "model-170b", "llama-3-7b", "gemma-3-72b"):
        with pytest.raises(ModelError, match="not in the catalogue"):
            architecture(name)
    assert architecture("gemma-3-27b").parameters > 27e9
    assert len({architecture(f"qwen3-{size}b").parameters for size in ("0.6", "1.7", "4", "8", "14", "32")}) == 6


def test_an_unknown_name_brings_near_matches():
    with pytest.raises(ModelError, match="'llama-3-70b'"):
        architecture("lama-3-70b")
    with pytest.raises(ModelError, match="'qwen3-8b'"):
        architecture("Qwen/Qwen3-9B")


def test_a_configuration_on_disk_goes_through_the_meta_device(tmp_path):
    config = MODELS["llama-3.2-1b"][0]()
    config.save_pretrained(tmp_path)
    assert architecture(tmp_path) == architecture(tmp_path / "config.json") == architecture("llama-3.2-1b")
    config.num_hidden_layers = 2
    config.save_pretrained(tmp_path)
    assert architecture(tmp_path).layers == 2


def test_a_file_that_is_no_configuration_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(ModelError, match="config.json"):
        architecture(tmp_path / "config.json")


def test_the_catalogue_needs_no_torch():
    code = "import sys; from ftkit.memory import architecture, estimate; estimate('deepseek-v3.2', method='lora');"
    code += "print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
