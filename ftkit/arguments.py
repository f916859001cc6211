"""A dataclass from the command line and from a YAML file: the same fields, the same types, the same errors.

A flag is a field's name with dashes, a key of the file is the name itself; the command line wins. What is wrong is one
sentence that names the flag, or the file and the line.
"""

import argparse
import dataclasses
import numbers
import os
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftkit.errors import ConfigError, near_matches
from ftkit.fields import field_docs

CONFIG = "config"
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", tuple: "a list of names"}


def parse(options: type, name: str, arguments: Sequence[str]):
    """An instance of the dataclass `options` from the arguments of command `name`.

    The first field without a default is positional. `--config FILE` reads a YAML file whose values stand in for the
    defaults. The class's own checks see both together.

    Raises:
        ConfigError: an unknown flag or key, a value of another type, or a file that cannot be read.
    """
    fields = dataclasses.fields(options)
    hints = typing.get_type_hints(options)
    finder = _Parser(prog=f"ftkit {name}", add_help=False, allow_abbrev=False)
    finder.add_argument(f"--{CONFIG}", type=Path)
    found, rest = finder.parse_known_args(arguments)
    given = read_yaml(found.config, hints) if found.config is not None else {}

    docs, positional = field_docs(options), False
    asked = [field.name.upper() for field in fields if field.default is dataclasses.MISSING][:1]
    usage = " ".join([f"ftkit {name}", *asked, "[OPTIONS]"])
    parser = _Parser(prog=f"ftkit {name}", usage=usage, description=options.__doc__, allow_abbrev=False)
    for field in fields:
        default = given.get(field.name, field.default)
        required = default is dataclasses.MISSING
        shown = "" if required or default is None else " (default: %(default)s)"
        settings = _argument(hints[field.name]) | {"help": docs[field.name].replace("%", "%%") + shown}
        if field.default is dataclasses.MISSING and not positional:
            positional = True
            settings["metavar"] = field.name.upper()
            settings |= {} if required else {"nargs": "?", "default": default}
            parser.add_argument(field.name, **settings)
        else:
            settings |= {"required": True} if required else {"default": default}
            parser.add_argument(_flag(field.name), dest=field.name, **settings)
    parser.add_argument(f"--{CONFIG}", metavar="FILE", help="YAML file of these options; what is given here wins.")
    parsed, unknown = parser.parse_known_args(rest)
    if unknown:
        known = [flag for action in parser._actions for flag in action.option_strings]
        what = "option" if unknown[0].startswith("-") else "use for"
        given_name = unknown[0].split("=")[0]
        raise ConfigError(f"ftkit {name} has no {what} {given_name!r}.{near_matches(given_name, known)}")
    return options(**{field.name: getattr(parsed, field.name) for field in fields})


def read_yaml(path: Path, hints: dict[str, Any]) -> dict[str, Any]:
    """The values of a YAML mapping, each of the type that `hints` has for its key.

    Raises:
        ConfigError: the file cannot be read, is no mapping, names an unknown key or one twice, or holds a value of
            another type; with its line.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text.") from None
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        raise ConfigError(f"{path}, line {where.line + 1}, column {where.column + 1}: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}.") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path} must hold lines of the form `name: value`.")
    values: dict[str, Any] = {}
    for key_node, value_node in root.value:
        key, where = loader.construct_object(key_node, deep=True), f"{path}, line {key_node.start_mark.line + 1}"
        if key not in hints:
            near = near_matches(str(key).replace("-", "_"), hints)
            raise ConfigError(f"{where}: there is no setting {key!r}.{near}")
        if key in values:
            raise ConfigError(f"{where}: {key} stands there for the second time; drop one of them.")
        try:
            values[key] = _value(loader.construct_object(value_node, deep=True), hints[key])
        except ValueError as error:
            raise ConfigError(f"{where}: {key} must be {error}.") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{where}: {key} cannot be read: {error.problem}.") from None
    return values


def check_types(options: Any) -> None:
    """Make each field of a dataclass what its annotation says, as the command line and a file do.

    A path becomes text, NumPy's numbers Python's, a list a tuple, and a name where several may stand a tuple of one.

    Raises:
        ConfigError: a value of another type.
    """
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        several = _split(hints[field.name])[0] is tuple
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
            value = int(value)
        elif isinstance(value, numbers.Real) and not isinstance(value, bool):
            value = float(value)
        if several and isinstance(value, str | tuple):
            value = [value] if isinstance(value, str) else list(value)
        try:
            setattr(options, field.name, _value(value, hints[field.name]))
        except ValueError as error:
            raise ConfigError(f"{field.name} must be {error}.") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise ConfigError(f"{message}; `{self.prog} --help` lists the options.")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _split(hint: Any) -> tuple[type, bool]:
    """The plain type of an annotation, and whether None is allowed."""
    arms = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = next(arm for arm in arms if arm is not type(None))
    kind = typing.get_origin(kind) or kind
    if kind not in KINDS:
        raise TypeError(f"a field of type {hint} cannot be given on the command line")
    return kind, type(None) in arms


def _argument(hint: Any) -> dict[str, Any]:
    """How argparse reads a field of this type."""
    kind, optional = _split(hint)
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if kind is tuple:
        return {"nargs": "*", "metavar": "NAME", "action": _Tuple}

    def convert(text: str):
        if optional and text.lower() in ("none", "null"):
            return None
        try:
            return _value(_plain(text, kind), hint)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"must be {error}") from None

    return {"type": convert, "metavar": {int: "N", float: "X"}.get(kind, "TEXT")}


class _Tuple(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, None if values in (["None"], ["none"]) else tuple(values))


def _plain(text: str, kind: type) -> Any:
    return int(text) if kind is int and re.fullmatch(r"[+-]?\d+", text) else text


def _value(value: Any, hint: Any) -> Any:
    """`value` as the annotated type; a ValueError says what it must be."""
    kind, optional = _split(hint)
    if value is None and optional:
        return None
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 takes 1e-3, without a point, for text
        except ValueError:
            pass
    if kind is tuple and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    raise ValueError(f"{KINDS[kind]}, not {value!r}")
