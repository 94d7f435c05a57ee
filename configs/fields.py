"""Fields of a config as a person reads them: name, type, default, range, meaning. Help texts are made of them.

The meaning is the text below the field (an attribute docstring), or its line in the ``Attributes:`` section of
the class's docstring; of a field that a subclass sets anew without a text, that of the class above.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from configs.loading import Config
from configs.names import Registered

BASIC = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path", Any: "any value"}


@dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
        name: dotted, as in ``key.sub=value``; ``NAME`` stands for any key of a mapping, ``N`` for an index.
        type: as a person reads it, such as ``integer or null``.
        default: as it would be written; None: required.
        range: ``1 or more``, ``above 0, at most 1``; empty: anything of the type.
        meaning: what it is and its unit; empty if the config's author wrote none.
        nested: the field is a config of its own, whose fields follow.
    """

    name: str
    type: str
    default: str | None
    range: str
    meaning: str
    nested: bool = False


def fields(cls: type[Config], prefix: str = "", given: Config | None = None) -> Iterator[Field]:
    """All fields of a config in their order, nested ones after the field that holds them.

    Args:
        prefix: of their names.
        given: whose values are the defaults, of a config within another; None: the class's.
    """
    meanings = _meanings(cls)
    for name, info in cls.model_fields.items():
        inner = list(_configs(info.annotation, f"{prefix}{name}"))
        value = _default(info) if given is None else getattr(given, name)
        yield Field(
            f"{prefix}{name}",
            type_text(Annotated[info.annotation, *info.metadata] if _choice(info.metadata) else info.annotation),
            _written_default(value, bool(inner)),
            _range(info.metadata),
            meanings.get(name) or (first_sentence(inner[0][1]) if inner else _constant(info.annotation)),
            bool(inner),
        )
        for place, kind in inner:
            yield from fields(kind, f"{place}.", value if isinstance(value, kind) else None)


def _configs(kind: Any, place: str) -> Iterator[tuple[str, type[Config]]]:
    """The configs within a type, and the dotted name of each."""
    if isinstance(kind, type) and issubclass(kind, Config):
        yield place, kind
        return
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return
    deeper = f"{place}.NAME" if origin is dict else f"{place}.N" if origin in (tuple, list) else place
    for inner in arguments:
        if inner is not ...:
            yield from _configs(inner, deeper)


def _constant(kind: Any) -> str:
    """Of a field that has one value, which tells a config's kind in its record."""
    values = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    return f"Always {_written(values[0])}." if len(values) == 1 else ""


def type_text(kind: Any) -> str:
    """A type in words: ``integer``, ``list of text``, ``adamw | sgd``, ``path or null``."""
    if kind in BASIC:
        return BASIC[kind]
    if isinstance(kind, type) and issubclass(kind, Config):
        return "settings"
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        choice, limits = _choice(arguments[1:]), _range(arguments[1:])
        if choice:
            return f"name ({choice.listed})" if choice.listed else " | ".join(choice.names())
        return type_text(arguments[0]) + (f" ({limits})" if limits else "")
    if origin is Literal:
        return " | ".join(_written(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys("null" if a is type(None) else type_text(a) for a in arguments))
    if origin in (tuple, list):
        return "list of " + " and ".join(dict.fromkeys(type_text(a) for a in arguments if a is not ...))
    if origin is dict:
        return f"mapping of {type_text(arguments[0])} to {type_text(arguments[1])}"
    return getattr(kind, "__name__", str(kind))


def _choice(marks: typing.Iterable[Any]) -> Registered | None:
    return next((mark for mark in marks if isinstance(mark, Registered)), None)


def _default(info: FieldInfo) -> Any:
    if info.default_factory is not None:
        return info.get_default(call_default_factory=True, validated_data={})
    return info.default


def _written_default(value: Any, nested: bool) -> str | None:
    if value is PydanticUndefined:
        return None
    return "" if nested and isinstance(value, Config) else _written(value)


def _written(value: Any) -> str:
    """A value as it would be given after ``=``."""
    if isinstance(value, str | Path):
        return str(value) or "''"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_written(v) for v in value)}]"
    if isinstance(value, Config):
        return json.dumps(value.model_dump(mode="json", exclude_defaults=True))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return json.dumps(value, default=str)


def _range(marks: typing.Iterable[Any]) -> str:
    """Limits of a value in words, from pydantic's constraints."""
    low, high, rest = "", "", []
    for mark in marks:
        if isinstance(mark, annotated_types.Ge):
            low = f"{mark.ge} or more"
        elif isinstance(mark, annotated_types.Gt):
            low = f"above {mark.gt}"
        elif isinstance(mark, annotated_types.Le):
            high = f"at most {mark.le}"
        elif isinstance(mark, annotated_types.Lt):
            high = f"below {mark.lt}"
        elif isinstance(mark, annotated_types.MultipleOf):
            rest.append(f"a multiple of {mark.multiple_of}")
        elif isinstance(mark, annotated_types.MinLen):
            rest.append("not empty" if mark.min_length == 1 else f"at least {mark.min_length} entries")
        elif isinstance(mark, annotated_types.MaxLen):
            rest.append(f"at most {mark.max_length} entries")
    if low.endswith("or more") and high.startswith("at most"):
        low, high = f"{low.removesuffix(' or more')} to {high.removeprefix('at most ')}", ""
    return ", ".join(part for part in (low, high, *rest) if part)


def _meanings(cls: type[Config]) -> dict[str, str]:
    """Meaning by field: from the classes above first, each laid over by those below."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base is Config or not (isinstance(base, type) and issubclass(base, Config)):
            continue
        found |= attributes(base.__doc__ or "")
        own = inspect.get_annotations(base)
        described = {n: info.description for n, info in base.model_fields.items() if n in own}
        found |= {name: _one_line(text) for name, text in described.items() if text}
    return found


SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Note|Notes|Example|Examples):\s*$")
NAMES = re.compile(r"^(\w+(?:, *\w+)*):(?: +|$)")


def attributes(docstring: str) -> dict[str, str]:
    """Texts of the ``Attributes:`` section by name; of ``a, b: text`` each name gets the text."""
    found: dict[str, list[str]] = {}
    inside, indent = False, 0
    names: list[str] = []
    for line in inspect.cleandoc(docstring).splitlines():
        depth = len(line) - len(line.lstrip())
        if depth == 0 and line.strip():
            inside, indent, names = bool(SECTION.match(line) and line.startswith("Attributes")), 0, []
        elif inside and line.strip():
            indent = indent or depth
            if depth == indent and (match := NAMES.match(line.strip())):
                names = [name.strip() for name in match[1].split(",")]
                found |= {name: [line.strip()[match.end() :]] for name in names}
            else:
                for name in names:
                    found[name].append(line.strip())
    return {name: " ".join(filter(None, lines)) for name, lines in found.items()}


def _one_line(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split())


def first_sentence(cls: Any) -> str:
    """The first sentence of a docstring, up to a colon."""
    first = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
    return first.partition(": ")[0].rstrip(".") + "." if first else ""
