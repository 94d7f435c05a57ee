"""Registries: names to classes or functions, imported when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


def imported(reference: str) -> Any:
    """What ``module:attribute`` names.

    Raises:
        ImportError: no such module.
        AttributeError: no such attribute in it.
    """
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry(MutableMapping[str, T], Generic[T]):
    """A dictionary whose values may be written as ``module:attribute``.

    Such a module is imported when its member is asked for, so that names are known (to configs, help and
    completion) without importing torch. Members from outside the project are added as to any dictionary.

    >>> NETWORKS: Registry[type] = Registry({"avst": "models.avqa.networks.avst:AVST"})
    >>> NETWORKS["mine"] = MyNetwork
    """

    def __init__(self, members: Mapping[str, T | str] | None = None):
        self._members: dict[str, T | str] = dict(members or {})

    def __getitem__(self, name: str) -> T:
        member = self._members[name]
        if isinstance(member, str):
            member = self._members[name] = cast(T, imported(member))
        return member

    def __setitem__(self, name: str, member: T | str) -> None:
        self._members[name] = member

    def __delitem__(self, name: str) -> None:
        del self._members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"Registry({', '.join(self._members)})"
