"""Flags and a YAML file over one dataclass: same types, same errors, the command line wins."""

from dataclasses import dataclass

import pytest

from ftkit.arguments import parse
from ftkit.errors import ConfigError


@dataclass
class Options:
    """Some options."""

    source: str
    """Where from, 100%."""
    rank: int = 8
    """Rank."""
    rate: float = 0.1
    """Rate."""
    scale: float | None = None
    """Scale."""
    names: tuple[str, ...] | None = None
    """Names."""
    quick: bool = True
    """Quick."""
    careful: bool | None = None
    """Careful."""


@pytest.fixture
def file(tmp_path):
    def write(text: str):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


def read(*arguments):
    return parse(Options, "try", [str(a) for a in arguments])


ALL = Options("data", 4, 1e-3, 2.0, ("a", "b"), False, True)


def test_flags_and_file_make_the_same(file):
    flags = ["data", "--rank", 4, "--rate", "1e-3", "--scale", 2, "--names", "a", "b", "--no-quick", "--careful"]
    assert read(*flags) == ALL
    text = "source: data\nrank: 4\nrate: 1e-3\nscale: 2\nnames: [a, b]\nquick: false\ncareful: true\n"
    assert read("--config", file(text)) == ALL
    assert read("data") == Options("data")


def test_the_command_line_wins_over_the_file(file):
    path = file("source: data\nrank: 4\nquick: false\nnames: [a]\nscale: 3\n")
    made = read(f"--config={path}", "other", "--rank", 5, "--quick", "--names", "c", "--scale", "none")
    assert made == Options("other", rank=5, names=("c",))


def test_an_empty_file_says_nothing(file):
    assert read("data", "--config", file("# nothing yet\n")) == Options("data")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source: a\nrnak: 3\n", "run.yaml, line 2: there is no setting 'rnak'. Did you mean 'rank'"),
        ("source: a\n\nrank: eight\n", "run.yaml, line 3: rank must be a whole number, not 'eight'"),
        ("rank: true\n", "line 1: rank must be a whole number, not True"),
        ("rank: null\n", "line 1: rank must be a whole number, not None"),
        ("rate: fast\n", "line 1: rate must be a number, not 'fast'"),
        ("quick: 1\n", "line 1: quick must be true or false, not 1"),
        ("names: a\n", "line 1: names must be a list of names, not 'a'"),
        ("source: 3\n", "line 1: source must be text, not 3"),
        ("rank: 3\nrank: 4\n", "line 2: rank stands there for the second time"),
        ("rank: [3\n", "run.yaml, line 2, column 1"),
        ("rank: !!python/name:os.system\n", "line 1: rank cannot be read"),
        ("- rank\n", "must hold lines of the form"),
        ("rank: 3\n---\nrank: 4\n", "line 2"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(file, text, says):
    with pytest.raises(ConfigError, match="(?s).*") as error:
        read("data", "--config", file(text))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_is_no_text(tmp_path, file):
    with pytest.raises(ConfigError, match="nowhere.yaml cannot be read: No such file"):
        read("data", "--config", tmp_path / "nowhere.yaml")
    (path := tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read("data", "--config", path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data", "--rnak", "3"], "ftkit try has no option '--rnak'. Did you mean '--rank'"),
        (["data", "--rank", "3.5"], "argument --rank: must be a whole number, not '3.5'"),
        (["data", "--rate", "fast"], "argument --rate: must be a number, not 'fast'"),
        (["data", "more"], "ftkit try has no use for 'more'"),
        (["data", "--rank"], "argument --rank: expected one argument"),
        ([], "required: SOURCE"),
    ],
)
def test_what_is_wrong_in_a_flag_is_named(arguments, says):
    with pytest.raises(ConfigError) as error:
        read(*arguments)
    assert says in str(error.value)
