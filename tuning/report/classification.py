"""An evaluation of classification: accuracy (mAP of clips with several labels) by condition, and against cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from models.conditions import NOISY_CASES
from trainers.classification.results import ClassRow, Line, Row, metrics_of, plain_conditions, recovered
from trainers.tables import MEAN_AP, read_rows, titled
from tuning.report import drawings, intervals
from tuning.report.compared import difference_rows_of
from tuning.report.corruptions import corruption_blocks
from tuning.report.evaluations import Evaluation
from tuning.report.parts import Block, Cell, Drawing, Folded, Table, figure, folded_rows, spread, text
from tuning.report.verdict import Standing, verdict
from tuning.tables import pareto

COSTS = {  # heading, digits, logarithmic axis
    "trained": ("trained parameters", 0, True),
    "train_seconds": ("training, s", 1, True),
    "inference_seconds": ("1,000 answers, s", 2, False),
    "epoch_seconds": ("seconds per epoch", 2, False),
    "peak_memory_mb": ("peak memory, MiB", 0, False),
}
COST_NOTE = (
    "On the front (marked) nothing is both cheaper and better. Means only: look at the intervals before "
    "reading much into small differences. Case-wise methods: parameters and epoch time per case; training in all, with "
    "cached features and detector, without the backbone. Seconds of the wall clock compare only between runs of one "
    "machine. Peak memory of training beyond the loaded network: growth of "
    "the process on a CPU, allocated on a GPU."
)
SHOWN = 40  # rows of a table that are not folded away


def accuracy_blocks(rows: Sequence[Row], tag: str) -> tuple[Block, ...]:
    """Table and figure of accuracy by condition, and tables of corruptions.

    Args:
        tag: of the figure; no other one of the page has it.
    """
    lines = intervals.of_rows(rows)
    conditions = plain_conditions(lines)
    if not conditions:
        return corruption_blocks(rows)
    groups = [
        (
            c.replace("_", " "),
            [(line.name, *_percent(line.accuracy[c])) for line in lines if c in line.accuracy],
        )
        for c in conditions
    ]
    known = any(not math.isnan(half) for line in lines for _, half in line.accuracy.values())
    caption = f"{titled(metrics_of(lines))} by condition{'; bars are 95 % intervals' if known else ''}."
    return (
        *folded_rows(_by_condition(lines, rows, conditions), SHOWN, "all methods"),
        Drawing(drawings.svg(lambda: drawings.dots(groups, metrics_of(lines)), f"{tag} conditions"), caption),
        *corruption_blocks(rows),
    )


def verdict_of(found: Evaluation) -> str:
    """The best method over the noisy cases, or over all conditions where not all of those were evaluated."""
    lines = intervals.of_rows(found.rows)
    noisy = all(line.noisy is not None for line in lines)
    chosen = NOISY_CASES if noisy else tuple(dict.fromkeys(c for line in lines for c in line.accuracy))
    standings = [
        Standing(line.name, statistics.fmean(line.accuracy[c][0] for c in chosen), _joint(line, chosen))
        for line in lines
        if all(c in line.accuracy for c in chosen)
    ]
    classes = {row.label for row in class_rows(found) if row.metric == "accuracy"}
    figure = "the mean of the noisy cases" if noisy else "the mean of all conditions"
    figure = figure if metrics_of(lines) == "accuracy" else f"{metrics_of(lines)}, {figure}"
    compared = [row for row in difference_rows_of(found) if row.condition == "noisy_mean"] if noisy else []
    return verdict(figure, standings, 1 / len(classes) if classes else None, compared)


def _joint(line: Line, conditions: Sequence[str]) -> float:
    """Half width of a mean of conditions: that of the widest, since one seed's conditions go together."""
    return max(line.accuracy[c][1] for c in conditions)


def class_rows(found: Evaluation) -> list[ClassRow]:
    """Accuracy (or average precision) per class, where the evaluation has it."""
    table = found.read("classes.csv")
    return (read_rows(table, ClassRow) if table else None) or []


def class_blocks(found: Evaluation) -> tuple[Block, ...]:
    """Accuracy per class by method, mean over seeds, under the first condition; folded away."""
    rows = class_rows(found)
    if not rows:
        return ()
    condition = rows[0].condition
    values: dict[tuple[str, str], list[float]] = {}
    for row in (row for row in rows if row.condition == condition):
        name = f"{row.method}, {row.selection}" if row.selection else row.method
        values.setdefault((row.label, name), []).append(row.accuracy)
    labels, methods = (list(dict.fromkeys(key[i] for key in values)) for i in (0, 1))
    counts = {row.label: row.samples for row in rows if row.condition == condition}
    body = tuple(
        (
            text(label),
            figure(counts[label], 0),
            *(figure(statistics.fmean(values[label, m]) if (label, m) in values else None, 1, 100) for m in methods),
        )
        for label in labels
    )
    named = "Accuracy" if rows[0].metric == "accuracy" else "Average precision"
    caption = f"{named} per class, {condition.replace('_', ' ')}, percent"
    return (Folded(caption, (Table(("class", "clips", *methods), body, 1, caption),)),)


def _percent(pair: tuple[float, float]) -> tuple[float, float]:
    return 100 * pair[0], 100 * pair[1]


def _by_condition(lines: Sequence[Line], rows: Sequence[Row], conditions: Sequence[str]) -> Table:
    by_name = {line.name: line for line in lines}
    clean, noisy = by_name.get("finetune"), by_name.get("finetune_noisy")
    gains = {line.name: recovered(line, clean, noisy) for line in lines} if clean and noisy else {}
    means = any(line.noisy is not None for line in lines)
    head = ["method", *(c.replace("_", " ") for c in conditions)]
    head += (["noisy mean"] if means else []) + (["gain recovered, %"] if gains else []) + ["seeds"]
    body = []
    for line in lines:
        cells = [text(line.name), *(_accuracy(line, c) for c in conditions)]
        cells += [figure(line.noisy, 1, 100)] if means else []
        cells += [figure(gains[line.name], 0, 100)] if gains else []
        body.append((*cells, figure(line.seeds, 0)))
    return Table(
        tuple(head), tuple(body), 1, f"{titled(metrics_of(lines))} by condition, percent", _note(rows, bool(gains))
    )


def _accuracy(line: Line, condition: str) -> Cell:
    mean, half = line.accuracy.get(condition, (None, math.nan))
    return spread(mean, half, 1, 100)


def _note(rows: Sequence[Row], gains: bool) -> str:
    counts = sorted({row.samples for row in rows})
    clips = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    said = f"On {clips} clips; {intervals.said(rows)}. "
    said += "An absent modality is left out, never filled. "
    if any(row.selection for row in rows):
        said += "situation knows what is ruined, detected does not, concat uses the sets of all cases at once. "
    if len(intervals.one_per_seed(rows)) < len(rows):
        said += "Several runs of one method and seed were averaged first. "
    if len({line.seeds for line in intervals.of_rows(rows)}) > 1:
        said += "Not all methods have the same seeds: their means are not of the same draws. "
    if any(line.metric == MEAN_AP for line in intervals.of_rows(rows)):
        said += "mAP is the mean over all classes; one that no clip has counts 0. "
    if gains:
        said += "Gain recovered: share of what finetune_noisy gains over finetune in the three noisy cases."
    return said.strip()


def cost_blocks(rows: Sequence[Row], tag: str) -> tuple[Block, ...]:
    """Accuracy against what training costs, the Pareto front marked."""
    lines = intervals.of_rows(rows)
    if len(lines) < 2:
        return ()
    noisy = all(line.noisy is not None for line in lines)
    gain = f"{metrics_of(lines)}, mean of {'the noisy cases' if noisy else 'all conditions'}, %"
    points = [
        (
            line.name,
            100 * (line.noisy or 0.0) if noisy else 100 * _mean(line),
            costs_of(line),
        )
        for line in lines
    ]
    return cost_part(points, gain, tag)


def costs_of(line: Any) -> tuple[float, ...]:
    """What a line of either table costs, in the order of `COSTS`; NaN: not known."""
    known = {"train_seconds": line.train_seconds[0], "inference_seconds": 1000 * line.inference_seconds}
    return tuple(float(known[c] if c in known else getattr(line, c)) for c in COSTS)


def _mean(line: Line) -> float:
    return statistics.fmean(mean for mean, _ in line.accuracy.values())


def cost_part(points: Sequence[tuple[str, float, tuple[float, ...]]], gain: str, tag: str) -> tuple[Block, ...]:
    """Table and figure of a gain against `COSTS`.

    Args:
        points: name, gain, and one figure per cost; those that are not known of all are left out, and seconds per
            epoch where there are those of all training.
    """
    known = [c for at, c in enumerate(COSTS) if not any(math.isnan(costs[at]) for _, _, costs in points)]
    shown = [c for c in known if c != "epoch_seconds" or "train_seconds" not in known]
    places, headings = [list(COSTS).index(c) for c in shown], [COSTS[c] for c in shown]
    points = [(name, value, tuple(costs[at] for at in places)) for name, value, costs in points]
    order = range(len(points))
    edges = [
        pareto(order, lambda i, at=at: points[i][2][at], lambda i: points[i][1])  # type: ignore[misc]
        for at in range(len(headings))
    ]
    body = [
        (
            text(name),
            figure(value),
            *(
                figure(cost, digits, mark="front" if i in edge else "")
                for cost, edge, (_, digits, _) in zip(costs, edges, headings, strict=True)
            ),
        )
        for i, (name, value, costs) in enumerate(points)
    ]
    head = ("method", gain, *(heading for heading, _, _ in headings))
    table = Table(head, tuple(body), 1, "Accuracy against cost", COST_NOTE)
    axes = [(heading, log) for heading, _, log in headings]
    drawn = drawings.svg(lambda: drawings.fronts(points, axes, gain, edges), f"{tag} cost")
    caption = "Accuracy against cost; ringed: on the Pareto front of that cost."
    return *folded_rows(table, SHOWN, "all methods"), Drawing(drawn, caption)
