"""A sweep's results as people read them: sweep.csv (every trial), sweep.md (the table), sweep.png (the
figure)."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from configs.figure_text import figure_text
from shards.atomic import replacing, write_text
from trainers.tables import markdown_table, spread
from tuning.config import Search
from tuning.space import Params, Space
from tuning.trial_result import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ItemT = TypeVar("ItemT")
COSTS = ("trained", "epoch_seconds", "train_seconds", "peak_memory_mb")
SHARES = ("accuracy", "accuracy_mean", "accuracy_audio_missing", "accuracy_visual_missing", "mAP")  # in percent


@dataclass(frozen=True)
class Line:
    """One line of the table: a point of the space over its seeds.

    Attributes:
        params: without the seed.
        seeds: trials with the metric; early-stopped ones count with their last epoch.
        mean, sd: of the metric (sd 0 for one seed); None if all failed.
        costs: means by name.
        status: trials by status, where not all finished.
    """

    params: Params
    seeds: int
    mean: float | None
    sd: float
    costs: dict[str, float]
    status: str


def summarise(outcomes: Sequence[Outcome], metric: str) -> list[Line]:
    """Means over seeds, in the order of the plan."""
    groups: dict[str, list[Outcome]] = {}
    for found in sorted(outcomes, key=lambda o: o.number):
        params = {k: v for k, v in found.params.items() if k != "seed"}
        groups.setdefault(json.dumps(params, sort_keys=True), []).append(found)
    return [_line(group, metric) for group in groups.values()]


def _line(group: list[Outcome], metric: str) -> Line:
    good = [o for o in group if o.status != "failed" and o.curve]
    values = [o.metrics[metric] for o in good]
    mean, sd = spread(values) if values else (None, 0.0)
    odd = [o.status for o in group if o.status != "finished"]
    return Line(
        params={k: v for k, v in group[0].params.items() if k != "seed"},
        seeds=len(good),
        mean=mean,
        sd=sd,
        costs={name: statistics.fmean(o.cost(name) for o in good) for name in COSTS} if good else {},
        status=", ".join(f"{odd.count(s)} {s}" for s in dict.fromkeys(odd)),
    )


def best(lines: Sequence[Line], search: Search) -> Line | None:
    """The line with the best mean."""
    good = [line for line in lines if line.mean is not None]
    sign = 1 if search.mode == "max" else -1
    return max(good, key=lambda line: sign * (line.mean or 0.0), default=None)


def front(lines: Sequence[Line], search: Search, cost: str) -> list[Line]:
    """The lines that no other one beats in both metric and cost, cheapest first."""
    sign = 1 if search.mode == "max" else -1
    good = [line for line in lines if line.mean is not None]
    return pareto(good, lambda line: line.costs[cost], lambda line: sign * (line.mean or 0.0))


def pareto(items: Sequence[ItemT], cost: Callable[[ItemT], float], gain: Callable[[ItemT], float]) -> list[ItemT]:
    """The Pareto front, cheapest first: no other item costs no more and gains no less, and is better in one
    of the two. Equal items are all on it."""
    out: list[ItemT] = []
    for item in sorted(items, key=lambda x: (cost(x), -gain(x))):
        if not out or gain(item) > gain(out[-1]) or (cost(item), gain(item)) == (cost(out[-1]), gain(out[-1])):
            out.append(item)
    return out


def write_tables(
    out: Path, title: str, outcomes: Sequence[Outcome], space: Space, search: Search, more: str = ""
) -> None:
    """Write sweep.csv, sweep.md and sweep.png into `out`; `more` follows the table in sweep.md."""
    ordered = sorted(outcomes, key=lambda o: o.number)
    _write_csv(out / "sweep.csv", ordered, space)
    lines = summarise(ordered, search.metric)
    parts = [markdown(title, lines, ordered, space, search), *([more] if more else [])]
    write_text(out / "sweep.md", "\n\n".join(parts) + "\n")
    figure(lines, space, search, out / "sweep.png")


def _write_csv(path: Path, outcomes: Sequence[Outcome], space: Space) -> None:
    metrics = sorted({name for found in outcomes for name in found.metrics} - {*COSTS, *space})
    fixed = ["number", *space, *(["seed"] if "seed" not in space else []), "status", "epochs"]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*fixed, *metrics, *COSTS, "run", "error"])
        for found in outcomes:
            start = {"number": found.number, "status": found.status, "epochs": found.epochs}
            start |= {**found.params, "seed": found.seed}
            row = [start[name] for name in fixed] + [found.metrics.get(name, "") for name in metrics]
            writer.writerow([*row, *(found.cost(name) for name in COSTS), found.name, found.error])


def markdown(title: str, lines: Sequence[Line], outcomes: Sequence[Outcome], space: Space, search: Search) -> str:
    """The table by parameters, the best line in bold, and what failed."""
    names = [name for name in space if name != "seed"]
    several = max((line.seeds for line in lines), default=0) > 1
    head = [*names, search.metric.replace("_", " "), *(["seeds"] if several else [])]
    head += ["trained", "s/epoch", "train s", "peak MiB", "remarks"]
    top = best(lines, search)
    rows = [_cells(line, names, search, several, line is top) for line in lines]
    text = markdown_table(head, rows, len(names), last_left=True)
    failed = [f"- trial {o.number:03d} failed: {o.error.splitlines()[-1]}" for o in outcomes if o.error]
    return "\n\n".join([f"# {title}", text, _note(search, several), *(["\n".join(failed)] if failed else [])])


def _cells(line: Line, names: list[str], search: Search, several: bool, top: bool) -> list[str]:
    costs = line.costs
    value = _figure(line.mean, search.metric)
    if several and line.mean is not None and line.seeds > 1:
        value += f" ± {_figure(line.sd, search.metric)}"
    cells = [*(_short(line.params[name]) for name in names), f"**{value}**" if top else value]
    cells += [str(line.seeds)] if several else []
    if not costs:
        return [*cells, "", "", "", "", line.status]
    cells += [f"{costs['trained']:.0f}", f"{costs['epoch_seconds']:.2f}", f"{costs['train_seconds']:.1f}"]
    return [*cells, f"{costs['peak_memory_mb']:.0f}", line.status]


def _figure(value: float | None, metric: str) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}" if metric.endswith(SHARES) else f"{value:.4g}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _note(search: Search, several: bool) -> str:
    unit = " in percent" if search.metric.endswith(SHARES) else ""
    seeds = ", mean ± standard deviation over seeds" if several else ""
    return (
        f"`{search.metric}`{unit} after the last epoch{seeds}, mean over the stages; the best is bold. "
        "Trained parameters and epoch time are per stage, train s is all epochs of all stages. Peak memory: "
        "growth of the process on a CPU, allocated on a GPU."
    )


def figure(lines: Sequence[Line], space: Space, search: Search, path: Path) -> None:
    """Write :func:`drawing` into a file."""
    page = drawing(lines, space, search)
    with replacing(path) as temporary:
        page.savefig(temporary, dpi=150)


def drawing(lines: Sequence[Line], space: Space, search: Search, columns: int | None = None) -> Figure:
    """The metric against every parameter, and against the cost with the front of the best.

    Args:
        columns: panels side by side; None: all.
    """
    from matplotlib.figure import Figure

    names = [name for name in space if name != "seed"]
    cost = search.cost or "epoch_seconds"
    good = [line for line in lines if line.mean is not None]
    wide = min(columns or len(names) + 1, len(names) + 1)
    high = math.ceil((len(names) + 1) / wide)
    page = Figure(figsize=(4.2 * wide, 3.8 * high), layout="constrained")
    grid = page.subplots(high, wide, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for at, name in zip(axes, names, strict=False):
        _against(at, good, name, space, search)
    _cost(axes[len(names)], good, search, cost)
    for row in grid:
        row[0].set_ylabel(search.metric.replace("_", " ") + (", %" if search.metric.endswith(SHARES) else ""))
    for at in axes:
        at.spines[["top", "right"]].set_visible(False)
        at.grid(alpha=0.3)
    for at in axes[len(names) + 1 :]:
        at.remove()
    return page


def _scale(search: Search) -> float:
    return 100.0 if search.metric.endswith(SHARES) else 1.0


def _against(at: Any, lines: Sequence[Line], name: str, space: Space, search: Search) -> None:
    """One line per combination of the other parameters where those are listed; else points alone."""
    listed = space[name].values
    others: dict[str, list[Line]] = {}
    for line in lines:
        rest = {k: v for k, v in line.params.items() if k != name}
        others.setdefault(", ".join(f"{k}={_short(v)}" for k, v in rest.items()), []).append(line)
    joined = all(axis.grid is not None for axis in space.values()) and len(others) <= 8
    numbers = listed is None or all(isinstance(v, int | float) and not isinstance(v, bool) for v in listed)
    for label, group in others.items() if joined else [("", list(lines))]:
        x = [line.params[name] if numbers else list(listed or ()).index(line.params[name]) for line in group]
        y = [_scale(search) * (line.mean or 0.0) for line in group]
        sds = [_scale(search) * line.sd for line in group]
        at.errorbar(x, y, yerr=sds if any(sds) else None, fmt="o-" if joined else "o", label=figure_text(label))
    if space[name].log_range is not None:
        at.set_xscale("log")
    if listed is not None:
        at.set_xticks(listed if numbers else range(len(listed)), [_short(v) for v in listed])
    at.set_xlabel(name)
    if joined and len(others) > 1:
        at.legend(fontsize=7, frameon=False)


def _cost(at: Any, lines: Sequence[Line], search: Search, cost: str) -> None:
    scale = _scale(search)
    at.plot([line.costs[cost] for line in lines], [scale * (line.mean or 0.0) for line in lines], "o", alpha=0.5)
    edge = front(lines, search, cost)
    at.plot(
        [line.costs[cost] for line in edge],
        [scale * (line.mean or 0.0) for line in edge],
        "k.-",
        label="front",
    )
    at.set_xlabel({"epoch_seconds": "seconds per epoch", "trained": "trained parameters"}.get(cost, cost))
    at.legend(fontsize=7, frameon=False)
