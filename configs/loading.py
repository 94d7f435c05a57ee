"""From a preset and overrides to a validated config; every refusal names place, field and remedy."""

from __future__ import annotations

import hashlib
import json
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from configs.presets import Sources, apply_override, read_preset
from shards.errors import InputError, nearest


class Config(pydantic.BaseModel):
    """Base of all configs: frozen, nested, unknown names and NaN refused, defaults checked too.

    A text below a field is its help (`configs.fields`).
    """

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


ConfigT = TypeVar("ConfigT", bound=Config)


def load_config(cls: type[ConfigT], preset: str | Path | None = None, overrides: Sequence[str] = ()) -> ConfigT:
    """A validated ``cls`` from a preset (name in configs/, or path) with ``key.sub=value`` overrides on top.

    A preset may name another one as its ``base`` and is then laid over it, mapping by mapping; so no config
    has a field of that name.

    Raises:
        InputError: unknown preset, unknown name, wrong type or broken constraint.
    """
    assert "base" not in cls.model_fields, f"{cls.__name__}.base: presets use this name for inheritance"
    values, sources = read_preset(preset) if preset is not None else ({}, {})
    for override in overrides:
        apply_override(values, sources, override)
    try:
        return cls.model_validate(values)
    except pydantic.ValidationError as error:
        raise _explain(cls, error, sources) from None


def config_to_dict(config: Config) -> dict[str, Any]:
    """The config as plain nested values that json can write."""
    return config.model_dump(mode="json")


def config_hash(config: Config) -> str:
    """The digest of the config: of every field, defaults too."""
    return digest(config_to_dict(config))


def digest(value: Any) -> str:
    """First 12 hex digits of the sha256 of plain values, as canonical json."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _explain(cls: type[Config], error: pydantic.ValidationError, sources: Sources) -> InputError:
    """The first problem, unknown names before all others, as an InputError."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    parts = [str(part) for part in problem["loc"]]
    field, kind = ".".join(parts), problem["type"]
    place = _source(parts, sources)
    if kind == "extra_forbidden":
        remedy = _nearest_remedy(cls, parts)
        return InputError(f"unknown name '{parts[-1]}'", file=place, field=field, remedy=remedy)
    if kind == "missing":
        remedy = f"add it to the preset or give {field}=VALUE"
        return InputError("is required and was not given", file=place, field=field or None, remedy=remedy)
    wish = re.sub(r"^(Input should be|Value error,) ?|, (unable|got) .*$", "", problem["msg"])
    remedy = f"give {field or 'it'} a value that fits" if kind == "value_error" else f"give a value that is {wish}"
    expected = re.findall(r"'([^']*)'", str(problem.get("ctx", {}).get("expected", "")))
    remedy = nearest(problem["input"], expected) + remedy
    return InputError(f"{problem['input']!r} does not fit: {wish}", file=place, field=field or None, remedy=remedy)


def _source(parts: list[str], sources: Sources) -> str | None:
    """What set the value: the longest prefix of the name that a file or an override gave."""
    for length in range(len(parts), 0, -1):
        if source := sources.get(".".join(parts[:length])):
            return source
    return None


def _nearest_remedy(cls: type[Config], parts: list[str]) -> str:
    """``did you mean ...? valid names: ...`` for an unknown name: from its level, else from deeper ones."""
    level = _names_at(cls, parts[:-1])
    prefix = "".join(f"{part}." for part in parts[:-1])
    deeper = [name for name in all_names(cls) if name.rpartition(".")[2] == parts[-1]]
    hint = nearest(parts[-1], deeper) or nearest(".".join(parts), [prefix + name for name in level])
    return f"{hint or nearest(parts[-1], all_names(cls))}valid names: {', '.join(sorted(level))}"


def _names_at(cls: type[Config], parts: list[str]) -> list[str]:
    models = [cls]
    for part in parts:  # a part that is no field is an index, a key or a union's tag: stay where we are
        inner = [m for model in models for f, info in model.model_fields.items() if f == part for m in _models(info)]
        models = inner or models
    return [name for model in models for name in model.model_fields]


def all_names(cls: type[Config], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields, those of nested configs too."""
    for name, info in cls.model_fields.items():
        yield prefix + name
        for model in _models(info):
            yield from all_names(model, f"{prefix}{name}.")


def _models(info: pydantic.fields.FieldInfo) -> list[type[Config]]:
    """The config classes inside a field's type: itself, or within Optional, unions, tuples and mappings."""

    def search(kind: Any) -> Iterator[type[Config]]:
        if isinstance(kind, type) and issubclass(kind, Config):
            yield kind
        for inner in typing.get_args(kind):
            yield from search(inner)

    return list(search(info.annotation))
