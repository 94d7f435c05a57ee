"""A sweep: its table by parameters, a grid of two of them, curves by epoch, the metric against cost."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from shards.errors import InputError
from tuning.config import Search, SweepConfig
from tuning.report import drawings, intervals
from tuning.report.parts import (
    Block,
    Cell,
    Drawing,
    Folded,
    Table,
    Text,
    figure,
    folded_rows,
    plural,
    short,
    spread,
    text,
)
from tuning.space import Space
from tuning.sweep import RECORD
from tuning.tables import SHARES, Line, best, drawing, front, summarise
from tuning.trial_result import Outcome, outcomes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 24  # lines of the table that are not folded away
COSTS = {  # cost -> heading, digits
    "trained": ("trained", 0),
    "epoch_seconds": ("s / epoch", 2),
    "train_seconds": ("train s", 1),
    "peak_memory_mb": ("peak MiB", 0),
}


def sweep_blocks(folder: Path, tag: str) -> tuple[Block, ...]:
    """All of a sweep that its folder tells, finished or not."""
    try:
        config = read_sweep(folder)
    except InputError as error:
        return (Text(str(error.message), warn=True),)
    search, found = config.search, outcomes(folder)
    lines = summarise(found, search.metric)
    if not any(line.mean is not None for line in lines):
        return (Text(f"No trial has reported a figure yet ({plural(len(found), 'trial')} ended)."),)
    cost = search.cost or "epoch_seconds"
    shown = intervals.of_outcomes(lines)
    edge = {id(shown[lines.index(line)]) for line in front(lines, search, cost)}
    table = _table(shown, config, edge, cost)
    blocks: list[Block] = [Text(_said(found, config, lines))]
    blocks += [_grid(shown, config.space, search)] if _is_grid(config.space) else []
    blocks += folded_rows(table, SHOWN, f"all {plural(len(table.rows), 'line')}")
    drawn = drawings.svg(lambda: _drawing(shown, config), f"{tag} space")
    blocks.append(Drawing(drawn, f"{_unit(search)} against every parameter, and against {_heading(cost)}."))
    return (*blocks, *_curves(found, search, tag))


def _drawing(lines: Sequence[Line], config: SweepConfig) -> Figure:
    page = drawing(lines, config.space, config.search, columns=2)
    return drawings.within_percent(page) if _share(config.search) else page


def read_sweep(folder: Path) -> SweepConfig:
    """The config of the sweep in `folder`.

    Raises:
        InputError: its record is not there, or of another version.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return SweepConfig.model_validate(record["config"])
    except FileNotFoundError:
        raise InputError(f"Its folder is not here: {folder}", remedy="bring it here") from None
    except (ValueError, KeyError, pydantic.ValidationError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"Its {RECORD} can't be read by this version: {first}", remedy="use its version") from None


def _said(found: Sequence[Outcome], config: SweepConfig, lines: Sequence[Line]) -> str:
    states = [o.status for o in found]
    counted = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    out = f"{config.recipe}, {config.search.method}: {plural(len(found), 'trial')} ended ({counted})"
    planned = config.total()
    out += f" of {planned} planned" if planned != len(found) else ""
    top = best(lines, config.search)
    if top is not None:
        shown = ", ".join(f"{k} = {_value(v)}" for k, v in top.params.items())
        out += f". Best {_unit(config.search)}: {_scale(config.search) * (top.mean or 0.0):.4g} with {shown}"
    return out + "."


def _table(lines: Sequence[Line], config: SweepConfig, edge: set[int], cost: str) -> Table:
    """Every line, the best first; parameters that do not differ are left out."""
    search = config.search
    differing = [
        name
        for name in config.space
        if name != "seed" and len({json.dumps(line.params.get(name)) for line in lines}) > 1
    ]
    sign = -1 if search.mode == "max" else 1
    ordered = sorted(lines, key=lambda line: (line.mean is None, sign * (line.mean or 0.0)))
    top = best(lines, search)
    head = (*differing, _unit(search), "seeds", *(heading for heading, _ in COSTS.values()), "remarks")
    body = []
    for line in ordered:
        mark = "best" if line is top else ""
        cells = [_parameter(line.params.get(name)) for name in differing]
        cells += [spread(line.mean, line.sd, 1 if _share(search) else 4, _scale(search), mark)]
        cells += [figure(line.seeds, 0)]
        for name, (_, digits) in COSTS.items():
            marked = "front" if name == cost and id(line) in edge else ""
            cells.append(figure(line.costs.get(name), digits, mark=marked))
        body.append((*cells, text(line.status)))
    several = any(line.seeds > 1 for line in lines)
    note = f"{_unit(search)} after the last epoch, mean over the stages"
    note += f"; {intervals.SAID}. " if several else "; one seed, so no interval. "
    note += f"Bold: the best. Marked {_heading(cost)}: on the Pareto front. "
    note += "Trained parameters and epoch time per stage."
    return Table(head, tuple(body), len(differing), "By parameters", note)


def _is_grid(space: Space) -> bool:
    """Whether two listed parameters, and no others, make a table of two sides."""
    axes = [axis for name, axis in space.items() if name != "seed"]
    return len(axes) == 2 and all(axis.values is not None for axis in axes)


def _grid(lines: Sequence[Line], space: Space, search: Search) -> Table:
    down, across = (name for name in space if name != "seed")
    by_point = {(json.dumps(x.params[down]), json.dumps(x.params[across])): x for x in lines}
    top = best(lines, search)
    body = []
    for first in space[down].values or ():
        cells = [_parameter(first)]
        for second in space[across].values or ():
            line = by_point.get((json.dumps(first), json.dumps(second)))
            cells.append(_mean_cell(line, search, line is not None and line is top))
        body.append(tuple(cells))
    head = (down, *(f"{across} = {_value(v)}" for v in space[across].values or ()))
    return Table(head, tuple(body), 1, f"{_unit(search)} by {down} and {across}")


def _mean_cell(line: Line | None, search: Search, top: bool) -> Cell:
    if line is None:
        return Cell("", -math.inf)
    digits = 1 if _share(search) else 4
    return spread(line.mean, line.sd, digits, _scale(search), "best" if top else "")


def _curves(found: Sequence[Outcome], search: Search, tag: str) -> tuple[Block, ...]:
    """The metric by epoch, a line per trial."""
    drawn = [o for o in found if len(o.curve) > 1]
    if not drawn:
        return ()
    scale = _scale(search)
    lines = [(_called(o), [scale * value for value in o.curve]) for o in drawn]
    sign = 1 if search.mode == "max" else -1
    at = max(range(len(drawn)), key=lambda i: sign * drawn[i].curve[-1])
    curves = drawings.svg(lambda: drawings.curves(lines, _unit(search), at), f"{tag} curves")
    return (Folded("Curves by epoch", (Drawing(curves, f"{_unit(search)} by epoch, a line per trial."),)),)


def _called(found: Outcome) -> str:
    return short(", ".join(f"{k}={_value(v)}" for k, v in found.params.items()), 40)


def _parameter(value: Any) -> Cell:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(_value(value), float(value) if number else None)


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _share(search: Search) -> bool:
    return search.metric.endswith(SHARES)


def _scale(search: Search) -> float:
    return 100.0 if _share(search) else 1.0


def _unit(search: Search) -> str:
    return search.metric.replace("_", " ") + (", %" if _share(search) else "")


def _heading(cost: str) -> str:
    return COSTS[cost][0]
