"""Command lines: options, then ``key=value`` fields of a config, with help and hints made from that config."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from configs.help import config_help
from configs.loading import Config, all_names
from shards.command import Parser
from shards.errors import InputError, nearest, nearest_name

Configs = Mapping[str, type[Config]]  # title, such as "recipe prompt" -> its config


class CommandParser(Parser):
    """A parser whose mistakes are InputErrors with the nearest name, and whose help ends with a config's fields.

    Args:
        prog: ``avmend train``.
        about: what the command does.
        configs: from the words on the command line (those that are neither options nor ``key=value``) to the
            configs whose fields it takes; empty if it depends on a word that is not there.
        before: what stands before a field on this command line, such as ``--set ``.
    """

    def __init__(
        self,
        prog: str,
        about: str,
        configs: Callable[[Sequence[str]], Configs] | None = None,
        before: str = "",
    ):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=about, add_help=False, formatter_class=formatter)
        self.before = before
        self.configs = configs or (lambda words: {})
        self._argv: Sequence[str] = ()
        self.add_argument("-h", "--help", action="store_true", help="this text, and all fields of the config")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The arguments.

        Raises:
            InputError: wrong ones; names the nearest, or the right way to write a field.
            SystemExit: after ``--help``.
        """
        if asks_for_help(argv):
            print(self.help_for(argv))
            raise SystemExit(0)
        self._argv = argv
        arguments, unknown = self.parse_known_intermixed_args(list(argv))
        if unknown:
            raise self._unknown(unknown[0], argv)
        self._check_fields(argv)
        return arguments

    def help_for(self, argv: Sequence[str]) -> str:
        """The help text, with the fields of the configs that the words of ``argv`` name."""
        parts = [self.format_help().rstrip()]
        parts += [config_help(title, cls) for title, cls in self.configs(words(argv)).items()]
        return "\n\n".join(parts)

    def error(self, message: str) -> NoReturn:
        """As a Parser; ``out=X`` where ``--out X`` is required is answered with that."""
        if "arguments are required" in message:
            given = dict(word.partition("=")[::2] for word in self._argv if "=" in word)
            for option in (o for o in re.findall(r"--[\w-]+", message) if o.lstrip("-").replace("-", "_") in given):
                value = given[option.lstrip("-").replace("-", "_")]
                raise InputError(message, remedy=f"it is an option: write {option} {value or 'VALUE'}")
        super().error(message)

    def options(self) -> list[str]:
        """All options as they are written, such as ``--runs``."""
        return [text for action in self._actions for text in action.option_strings if text.startswith("--")]

    def _unknown(self, option: str, argv: Sequence[str]) -> InputError:
        """``--data X`` where ``data=X`` is meant, or a misspelt option."""
        name = option.lstrip("-").partition("=")[0]
        known = [field for cls in self.configs(words(argv)).values() for field in all_names(cls)]
        field = _field_named(name, known)
        close = nearest(f"--{name}", self.options(), cutoff=0.75)
        if field is not None and not close:
            remedy = f"it is a field of the config: write {self.before}{field}={_value_of(option, argv)}"
        else:
            remedy = f"{close}options: {', '.join(self.options())}"
        return InputError(f"{self.prog} has no option {option.partition('=')[0]}", remedy=remedy)

    def _check_fields(self, argv: Sequence[str]) -> None:
        """``data=X`` where ``--data X`` is meant, or a field without what stands before it here."""
        known = {n for cls in self.configs(words(argv)).values() for n in all_names(cls)}
        separate = self.before.strip() not in argv
        for word in argv:
            name, equals, value = word.partition("=")
            option = f"--{name.strip().replace('_', '-')}"
            if not equals or not known or word.startswith("-") or Path(word).exists():
                continue
            if option in self.options() and (name not in known or (self.before and separate)):
                remedy = f"it is an option: write {option} {value or 'VALUE'}"
                raise InputError(f"{self.prog} has no field '{name.strip()}'", remedy=remedy)
            if self.before and separate and name in known:
                remedy = f"it is a field of the config: write {self.before}{word}"
                raise InputError(f"'{word}' stands where {self.prog} has no field", remedy=remedy)


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether the arguments hold ``-h`` or ``--help``."""
    return any(word in ("-h", "--help") for word in argv)


def words(argv: Sequence[str]) -> list[str]:
    """The arguments that are neither options nor ``key=value``."""
    return [word for word in argv if not word.startswith("-") and "=" not in word]


def _field_named(name: str, known: Sequence[str]) -> str | None:
    """The field that an option's name stands for, itself or the nearest."""
    plain = name.replace("-", "_")
    return plain if plain in known else nearest_name(plain, known, cutoff=0.75)


def _value_of(option: str, argv: Sequence[str]) -> str:
    """The value that came with an option, as ``--data=X`` or ``--data X``."""
    if "=" in option:
        return option.partition("=")[2]
    after = list(argv[list(argv).index(option) + 1 :][:1]) if option in argv else []
    return after[0] if after and not after[0].startswith("-") else "VALUE"


def complete_with(action: argparse.Action, names: Callable[[], Iterable[str]]) -> None:
    """Have the shell complete an argument with names that are found when it asks."""

    def completer(**_: Any) -> list[str]:
        return list(names())

    action.completer = completer  # type: ignore[attr-defined]
