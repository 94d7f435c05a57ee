"""Search spaces: what a sweep may set, and the trials that a grid or a random search draws from it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pydantic

from configs import Config
from shards.errors import InputError

Params = dict[str, Any]  # dotted setting -> value
TRIES = 20  # draws per wanted trial before a space counts as exhausted


class Axis(Config):
    """One setting's values: exactly one of the four.

    Attributes:
        grid: every value, crossed with all other axes; a plain list means this.
        choice: values to draw from.
        range: lowest and highest value; whole numbers if both are.
        log_range: the same, drawn evenly over the logarithm.
    """

    grid: tuple[Any, ...] | None = pydantic.Field(default=None, min_length=1)
    choice: tuple[Any, ...] | None = pydantic.Field(default=None, min_length=1)
    range: tuple[int | float, int | float] | None = None
    log_range: tuple[int | float, int | float] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _list_is_grid(cls, value: Any) -> Any:
        return {"grid": value} if isinstance(value, list | tuple) else value

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Axis:
        kinds = [k for k, v in self if v is not None]
        if len(kinds) != 1:
            given = " and ".join(kinds) or "none"
            raise ValueError(f"give one of {', '.join(Axis.model_fields)}, not {given}")
        for low, high in filter(None, (self.range, self.log_range)):
            if not low < high:
                raise ValueError(f"{low} is not below {high}")
        if self.log_range is not None and self.log_range[0] <= 0:
            raise ValueError("a log_range begins above 0")
        listed = [json.dumps(value, sort_keys=True) for value in self.values or ()]
        if len(set(listed)) < len(listed):
            raise ValueError("a value is given twice")
        return self

    @property
    def values(self) -> tuple[Any, ...] | None:
        """The listed values; None for a range."""
        return self.grid if self.grid is not None else self.choice

    @property
    def bounds(self) -> tuple[int | float, int | float]:
        """Lowest and highest value of a range."""
        found = self.range or self.log_range
        assert found is not None
        return found

    @property
    def whole(self) -> bool:
        """A range of whole numbers."""
        return all(isinstance(bound, int) for bound in self.bounds)

    def probes(self) -> tuple[Any, ...]:
        """Values that stand for all in a check: the listed ones, or both ends."""
        return self.values if self.values is not None else self.bounds

    def every(self) -> tuple[Any, ...] | None:
        """All values; None for a range of real numbers."""
        if self.values is not None:
            return self.values
        low, high = self.bounds
        return tuple(range(int(low), int(high) + 1)) if self.whole else None

    def domain(self) -> Any:
        """The axis as Ray Tune's search-space object."""
        from ray import tune

        if self.values is not None:
            kind = tune.grid_search if self.grid is not None else tune.choice
            return kind(list(self.values))
        low, high = self.bounds
        if self.whole:
            draw = tune.lograndint if self.log_range is not None else tune.randint
            return draw(int(low), int(high) + 1)
        return (tune.loguniform if self.log_range is not None else tune.uniform)(low, high)


Space = Mapping[str, Axis]


def draw(space: Space, draws: int, seed: int) -> list[Params]:
    """The trials of a grid, or of `draws` random draws, each crossed with the grid axes; no two are equal.

    Ray Tune's sampling, seeded: the same space, number and seed give the same trials in the same order.

    Raises:
        InputError: the space has fewer different points than `draws`.
    """
    grid = [name for name, axis in space.items() if axis.grid is not None]
    cells = 1
    for name in grid:
        cells *= len(space[name].grid or ())
    found: dict[str, Params] = {}
    for params in itertools.islice(_variants(space, seed), draws * cells * TRIES):
        found.setdefault(json.dumps(params, sort_keys=True), params)
        if len(found) == draws * cells:
            return list(found.values())
    message = f"the space has only {len(found) // cells} different points, not {draws}"
    raise InputError(message, field="search.trials", remedy=f"set it to {len(found) // cells}, or use grid")


def _variants(space: Space, seed: int) -> Iterator[Params]:
    from ray.tune.search.variant_generator import generate_variants

    rng = np.random.RandomState(seed)
    while True:
        spec = {name: axis.domain() for name, axis in space.items()}
        for _, variant in generate_variants(spec, constant_grid_search=True, random_state=rng):
            yield {name: _plain(variant[name]) for name in space}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
