"""Command-line options from a config class: names, types, ranges, defaults and meanings, from its fields."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from configs import Config
from configs.presets import format_value

LISTS = (tuple, list)
RANGES = ((Ge, "ge", "at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below"))


def add_options(parser: argparse._ActionsContainer, config: type[Config]) -> None:
    """An option ``--field-name`` for each field of ``config`` (and for its other names); none is required here."""
    for name, info in config.model_fields.items():
        kinds = set(_kinds(info.annotation))
        how: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": describe(info).replace("%", "%%")}
        if bool in kinds:
            how["action"] = argparse.BooleanOptionalAction
        else:
            how["metavar"] = _type_name(info).upper().replace(" ", "_")
            if typing.get_origin(info.annotation) in LISTS:
                how["action"] = "append"
        parser.add_argument(*(f"--{each.replace('_', '-')}" for each in _names(name, info)), **how)


def overrides(config: type[Config], given: argparse.Namespace) -> list[str]:
    """The options that were given, as the ``key=value`` that `configs.load_config` takes.

    Text and paths are quoted, so that nothing in them is taken for YAML.
    """
    found = []
    for name, info in config.model_fields.items():
        if name in given:
            value = getattr(given, name)
            literal = isinstance(value, str) and not {str, Path} & set(_kinds(info.annotation))
            found.append(f"{name}={value if literal else format_value(value)}")
    return found


def field_names(config: type[Config]) -> list[str]:
    """All names that the fields of a config go by, the older ones too."""
    return [each for name, info in config.model_fields.items() for each in _names(name, info)]


def describe(info: FieldInfo) -> str:
    """Meaning, type, range and default of a field, for its help text."""
    facts = [_type_name(info), *_ranges(info)]
    if info.is_required():
        facts.append("required")
    elif info.default not in (PydanticUndefined, None, ()):
        facts.append(f"default {info.default}")
    return f"{(info.description or '').replace(chr(10), ' ')} ({', '.join(facts)})"


def _names(name: str, info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    others = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
    return list(dict.fromkeys([name, *others]))


def _kinds(annotation: Any) -> Iterator[type]:
    """The plain types inside an annotation."""
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        inner = tuple(type(value) for value in inner)
    if not inner and isinstance(annotation, type):
        yield annotation
    for each in inner:
        yield from _kinds(each)


def _type_name(info: FieldInfo) -> str:
    if typing.get_origin(info.annotation) is Literal:
        return " or ".join(map(str, typing.get_args(info.annotation)))
    if examples := info.examples:
        return str(examples[0])
    names = {str: "text", int: "int", float: "float", bool: "bool", Path: "path"}
    return next(names[kind] for kind in names if kind in set(_kinds(info.annotation)))


def _ranges(info: FieldInfo) -> list[str]:
    found = []
    for limit in info.metadata:
        found += [f"{words} {getattr(limit, name)}" for kind, name, words in RANGES if isinstance(limit, kind)]
        if isinstance(limit, MultipleOf):
            found.append("whole" if limit.multiple_of == 1 else f"a multiple of {limit.multiple_of}")
    return found
