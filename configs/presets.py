"""Preset files: YAML on disk to nested values, each value with the place it came from."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from shards.errors import InputError, nearest

PRESET_FOLDER = Path(__file__).resolve().parent
DEEPEST = 64  # levels of a value; no config has a tenth of them

Values = dict[str, Any]
Sources = dict[str, str]  # dotted name -> the file or override that set it


class _Yaml12Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2 (1e-3 is a number, `no` and 2024-01-01 are text); repeated keys are refused."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (PyYAML's own class attribute)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name, (key, _) in zip(names, node.value, strict=True):
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    _Yaml12Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node), 10)  # PyYAML reads 010 as octal and refuses 08


_Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def parse_yaml(text: str, source: str) -> Any:
    """The value written in ``text``.

    Raises:
        InputError: it is not YAML, or nested in itself or deeper than any config; names ``source``.
    """
    try:
        value = yaml.load(text, Loader=_Yaml12Loader)
        _check_depth(value, {}, ())
        return value
    except RecursionError:
        remedy = f"write at most {DEEPEST} levels"
        raise InputError("is nested too deeply, or in itself", file=source, remedy=remedy) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"not readable as YAML: {problem}", file=where, remedy="correct that line") from None


def _check_depth(value: Any, done: dict[int, Any], path: tuple[int, ...]) -> None:
    """RecursionError beyond DEEPEST levels; an alias is a second name for the same object, looked at once."""
    if not isinstance(value, dict | list) or id(value) in done:
        return
    if len(path) >= DEEPEST or id(value) in path:
        raise RecursionError
    for inner in value.values() if isinstance(value, dict) else value:
        _check_depth(inner, done, (*path, id(value)))
    done[id(value)] = value


def parse_value(text: str, source: str) -> Any:
    """The value of ``key=value``: a list, mapping or quoted text as in YAML; else a number, true, false, null
    (or nothing), or the text as it stands, with any sign that has a meaning in YAML (``/a #1``, ``x: y``, ``@z``).

    Raises:
        InputError: a list, mapping or quoted text that is not YAML; names ``source``.
    """
    text = text.strip()
    if text[:1] in ("[", "{", '"', "'"):
        return parse_yaml(text, source)
    tag = _Yaml12Loader("").resolve(yaml.ScalarNode, text, (True, False))
    return text if tag == "tag:yaml.org,2002:str" else parse_yaml(text, source)


def format_value(value: Any) -> str:
    """A plain value as `parse_value` reads it back: JSON, in which only what YAML reads otherwise is escaped. JSON's
    escapes of characters beyond U+FFFF are two surrogates, which YAML does not join."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return "".join(c if c.isprintable() or c > "\uffff" else f"\\u{ord(c):04x}" for c in text)


def preset_names() -> list[str]:
    """Names of the presets that come with the project, sorted."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.yaml"))


def sweep_names() -> list[str]:
    """Names of the sweeps that come with the project, sorted."""
    return sorted(path.stem for path in (PRESET_FOLDER / "sweeps").glob("*.yaml"))


def read_preset(preset: str | Path) -> tuple[Values, Sources]:
    """Values of a preset (a name in configs/ or the path of a YAML file), laid over the ``base`` it names.

    Raises:
        InputError: no such preset, not YAML, not a mapping, or bases in a circle.
    """
    return _read(preset_file(preset), seen=())


def _read(path: Path, seen: tuple[Path, ...]) -> tuple[Values, Sources]:
    if path in seen:
        raise InputError("is its own base", file=path, field="base", remedy="remove the circle of bases")
    own = _read_mapping(path)
    base = own.pop("base", None)
    values, sources = _read(preset_file(base, path), (*seen, path)) if base is not None else ({}, {})
    _lay_over(values, own, sources, str(path))
    return values, sources


def _read_mapping(path: Path) -> Values:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=path, remedy="give a YAML text file") from None
    values = parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise InputError("is not a mapping of names to values", file=path, remedy="write lines `name: value`")
    return values


def preset_file(preset: Any, near: Path | None = None) -> Path:
    """The file of a preset; ``near`` is the file that names it as its base.

    Raises:
        InputError: no such preset; names the nearest.
    """
    named = PRESET_FOLDER / f"{preset}.yaml"
    paths = [
        (near.parent if near else Path()) / str(preset),
        *([named] if named.parent == PRESET_FOLDER else []),
    ]
    for path in reversed(paths):
        if path.is_file():
            return path.resolve()
    known = preset_names()
    remedy = f"{nearest(preset, known)}give a file's path or one of: {', '.join(known) or '(none yet)'}"
    raise InputError(f"no preset '{preset}'", file=near, field="base" if near else None, remedy=remedy)


def _lay_over(values: Values, above: Values, sources: Sources, source: str, prefix: str = "") -> None:
    """Put ``above`` over ``values`` in place, mapping by mapping, noting where each value came from."""
    for name, value in above.items():
        dotted = f"{prefix}{name}"
        sources[dotted] = source
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            _lay_over(values[name], value, sources, source, f"{dotted}.")
        else:
            values[name] = value


def apply_override(values: Values, sources: Sources, override: str) -> None:
    """Set ``key.sub=value`` in ``values`` in place; the value is read by :func:`parse_value`.

    ``~key.sub`` takes out what the preset gave under that name, as a row of a study.
    """
    source = f"override '{override}'"
    if override.startswith("~"):
        _take_out(values, override[1:].strip(), source)
        return
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise InputError("is not of the form key.sub=value", file=source, remedy="for example train.epochs=5")
    inner = values
    for depth, part in enumerate(parts[:-1], start=1):
        if inner.get(part) is None:
            inner[part] = {}
        inner = inner[part]
        if not isinstance(inner, dict):
            field = ".".join(parts[:depth])
            remedy = f"set '{field}' itself, as {field}=VALUE"
            raise InputError(f"has no inner names: it is {inner!r}", file=source, field=field, remedy=remedy)
    inner[parts[-1]] = parse_value(text, source)
    sources[".".join(parts)] = source


def _take_out(values: Values, name: str, source: str) -> None:
    """Remove ``name`` from ``values`` in place; a name that was not given is refused with those that were."""
    inner, rest, above = values, name, ""
    while rest not in inner:  # a name of a row may itself have dots
        head, dot, rest = rest.partition(".")
        if not dot or not isinstance(inner.get(head), dict):
            given = [above + key for key in inner]
            remedy = f"{nearest(name, given)}given are: {', '.join(given) or '(none)'}"
            raise InputError("nothing of that name was given", file=source, field=name, remedy=remedy)
        inner, above = inner[head], f"{above}{head}."
    del inner[rest]
