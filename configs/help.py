"""Help texts: the fields of a config as a command's ``--help`` prints them."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator

import yaml

from configs.fields import Field, fields
from configs.loading import Config, config_to_dict
from shards.redaction import redacted_values

NARROW, WIDE = 60, 110


def config_help(title: str, cls: type[Config], width: int | None = None) -> str:
    """Every field of ``cls``: name, type, default, range and meaning, nested ones too.

    Args:
        title: what the fields are of, such as ``recipe prompt``.
        width: columns; None: the terminal's, within reason.
    """
    width = width or min(max(shutil.get_terminal_size().columns, NARROW), WIDE)
    about = _plain(" ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split()))
    lines = [f"{title}: {about}" if about else title, "fields (key=value, nested as key.sub=value):"]
    for field in fields(cls):
        lines += _lines(field, width)
    return "\n".join(textwrap.wrap(lines[0], width) + lines[1:])


def resolved(config: Config) -> str:
    """A config with all its defaults as YAML, as ``--dry-run`` prints it; ``--config`` takes it."""
    values = redacted_values(config_to_dict(config))
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, allow_unicode=True, width=NARROW * 2)


def _lines(field: Field, width: int) -> Iterator[str]:
    facts = [field.type if not field.nested or field.type != "settings" else "", field.range]
    facts.append("required" if field.default is None else f"default {field.default}" if field.default else "")
    told = "; ".join(fact for fact in facts if fact)
    yield from textwrap.wrap(f"{field.name}: {told}" if told else f"{field.name}.*", width, **_indent(2))
    yield from textwrap.wrap(_plain(field.meaning), width, **_indent(6))


def _plain(text: str) -> str:
    """A docstring's text without its marks; a value is called as it is written in YAML."""
    text = re.sub(r"`+([^`]*)`+", r"\1", text)
    text = re.sub(r"\bNone\b", "null", text)
    return text[:1].upper() + text[1:]


def _indent(columns: int) -> dict:
    more = " " * (columns if columns > 2 else 10)
    return {"initial_indent": " " * columns, "subsequent_indent": more, "break_on_hyphens": False}
