"""Shell completion by argcomplete: commands, options, recipes, presets, ``key=value`` fields and their choices."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from configs.command_line import CommandParser, words
from configs.fields import Field, fields
from shards.errors import InputError

ParserOf = Callable[[Sequence[str]], tuple[argparse.ArgumentParser | None, list[str]]]


def complete(commands: Iterable[str], parser_of: ParserOf, **more: Any) -> None:
    """Answer the shell and end the process.

    Args:
        commands: of ``avmend``.
        parser_of: of a line that begins with a command, its parser (None if it has none that is quick to make) and the
            words after the command.
        more: as argcomplete's autocomplete takes it (tests).
    """
    import argcomplete

    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    begun = line.split() if line.endswith(" ") else line.split()[:-1]  # without the word that is being written
    name = begun[1] if len(begun) > 1 else ""
    parser, rest = parser_of(begun[1:]) if name in commands else (None, [])
    if parser is not None:
        os.environ["_ARGCOMPLETE"] = str(len(begun) - len(rest))  # words that are not the parser's: avmend COMMAND
        _complete_fields(parser, rest)
    else:
        parser = argparse.ArgumentParser(prog="avmend")
        parser.add_argument("command", choices=list(commands))
    argcomplete.autocomplete(parser, **{"always_complete_options": False, **more})


def _complete_fields(parser: argparse.ArgumentParser, begun: list[str]) -> None:
    if not isinstance(parser, CommandParser):
        return
    try:
        known = [field for cls in parser.configs(words(begun)).values() for field in fields(cls)]
    except InputError:  # no such recipe: it has no fields
        return
    for action in parser._actions:
        if action.dest in ("overrides", "set"):
            action.completer = lambda prefix, **_: overrides(known, prefix)  # type: ignore[attr-defined]


def overrides(known: Iterable[Field], prefix: str) -> list[str]:
    """What ``prefix`` may become: ``name=``, or ``name=choice`` once the name is written."""
    name, equals, _ = prefix.partition("=")
    if not equals:
        return [f"{field.name}=" for field in known if not field.nested and "NAME" not in field.name]
    found = next((field for field in known if field.name == name), None)
    if found is None:
        return []
    choices = "true | false" if found.type.startswith("true or false") else found.type
    return [f"{name}={choice}" for choice in choices.split(" | ")] if " | " in choices else []
