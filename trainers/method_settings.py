"""Settings of a method chosen by name: its sizes are its keyword arguments, its losses have weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from shards.errors import nearest


def settings_of(kind: type, given: Sequence[str]) -> list[str]:
    """Names of what `kind` is built with, besides what it is `given`."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(kind).parameters.items()
    return [name for name, parameter in found if parameter.kind in kinds and name not in given]


def check_names(sizes: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse a size that is not among the known.

    Raises:
        ValueError: names the nearest one.
    """
    for name in sizes:
        if name not in known:
            raise ValueError(f"unknown size '{name}'; {nearest(name, known)}known: {', '.join(known) or 'none'}")


def checked_weights(given: Mapping[str, float], declared: Mapping[str, float]) -> dict[str, float]:
    """The weight of every declared loss: as given, or its default.

    Raises:
        ValueError: a weight of a loss that nobody declares (names the nearest), or one below 0.
    """
    for name, weight in given.items():
        if name not in declared:
            hint = nearest(name, declared)
            known = ", ".join(f"{k} ({v:g})" for k, v in declared.items()) or "none"
            raise ValueError(f"weights: no loss '{name}'; {hint}losses of this choice, with their weights: {known}")
        if weight < 0:
            raise ValueError(f"weights.{name}: {weight:g} is below 0")
    return {**declared, **given}
