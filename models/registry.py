"""Registries: what can be chosen by name, ours and that of plugins.

A plugin is a module outside the project that registers what it has when it is imported:

    from models.avqa.networks import NETWORKS
    NETWORKS.register("mine", MyNetwork)

Plugins are the modules named in the environment variable `AVMEND_PLUGINS` (commas between them) and the
entry points of the group `avmend.plugins`. Each process imports them once, before its first look into any
registry; so Ray's workers, which get the driver's environment, know the same names.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Iterator, Mapping
from typing import TypeVar

VARIABLE, GROUP = "AVMEND_PLUGINS", "avmend.plugins"
T = TypeVar("T")
_state: dict[str, object] = {"plugins": None}  # the value of the variable whose plugins are imported


class UnknownName(KeyError):
    """A name that a registry doesn't have; the message lists those that it has.

    Attributes:
        name: as asked for.
        names: of the registry.
    """

    def __init__(self, kind: str, name: str, names: list[str]):
        super().__init__(f"no {kind} '{name}'; choose from {', '.join(names)}")
        self.name, self.names = name, names

    def __str__(self) -> str:
        return str(self.args[0])


class PluginError(ValueError):
    """A plugin that can't be imported."""


class Registry(Mapping[str, T]):
    """What can be chosen by name, in the order of registration.

    Args:
        kind: what a member is called in messages: "network".
        members: of the project itself.
    """

    def __init__(self, kind: str, members: Mapping[str, T] | None = None):
        self.kind, self._members = kind, dict(members or {})

    def register(self, name: str, member: T) -> T:
        """Add a member.

        Raises:
            ValueError: the name is taken.
        """
        if self._members.get(name, member) is not member:
            raise ValueError(f"{self.kind} '{name}' is registered already")
        self._members[name] = member
        return member

    def __getitem__(self, name: str) -> T:
        """Raises: UnknownName (a KeyError)."""
        load_plugins()
        if name not in self._members:
            raise UnknownName(self.kind, name, list(self._members))
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(self._members)

    def __len__(self) -> int:
        load_plugins()
        return len(self._members)

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self._members)})"


def load_plugins() -> None:
    """Import the plugins, unless this process has.

    Raises:
        PluginError: one can't be imported; names it.
    """
    wanted = os.environ.get(VARIABLE, "")
    if _state["plugins"] == wanted:
        return
    before, _state["plugins"] = _state["plugins"], wanted  # plugins themselves may look into a registry
    try:
        for name in filter(None, (part.strip() for part in wanted.split(","))):
            _import(name, VARIABLE)
        for point in importlib.metadata.entry_points(group=GROUP):
            _import(point.module, f"entry point '{point.name}' of {GROUP}")
    except PluginError:
        _state["plugins"] = before
        raise


def _import(module: str, source: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:
        raise PluginError(f"plugin '{module}' ({source}) can't be imported: {type(error).__name__}: {error}") from error
