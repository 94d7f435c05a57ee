"""An evaluation of question answering: by case, by missing rate, by kind of question, against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.settings import MODALITIES
from trainers.avqa.accuracy import ALL
from trainers.avqa.figure import drawing
from trainers.avqa.results import CASES, COMPLETE, ZERO, Case, Line, Result, regained
from tuning.report import drawings, intervals
from tuning.report.classification import cost_part, costs_of
from tuning.report.compared import difference_rows_of
from tuning.report.evaluations import Evaluation
from tuning.report.parts import Block, Cell, Drawing, Folded, Table, figure, spread, text
from tuning.report.verdict import Standing, verdict

MISSING = {name: case for name, case in CASES.items() if case != COMPLETE}


def answer_blocks(results: Sequence[Result], tag: str) -> tuple[Block, ...]:
    """Tables and figures; `tag` as in `tuning.report.classification.accuracy_blocks`."""
    lines = intervals.of_results(results)
    rates = [_by_rate(lines, modality) for modality in MODALITIES]
    kinds = [_by_kind(lines, name, case) for name, case in CASES.items()]
    blocks: list[Block] = [_overview(lines, results)]
    if any(line.network for line in lines):
        caption = "Accuracy over all questions against the share of clips that lack a modality."
        blocks.append(Drawing(drawings.svg(lambda: drawings.within_percent(drawing(lines)), f"{tag} rates"), caption))
    blocks.append(Folded("Accuracy by missing rate, figures", tuple(t for t in rates if t.rows)))
    blocks += [table for table in kinds if table.rows]
    return tuple(blocks)


def verdict_of(found: Evaluation) -> str:
    """The best method over complete, audio missing and visual missing, of those that were judged in all three."""
    standings = []
    for line in intervals.of_results(found.rows):
        pairs = [line.accuracy.get(case, {}).get(ALL) for case in CASES.values()]
        known = [pair for pair in pairs if pair is not None]
        if line.network and len(known) == len(pairs):
            mean = sum(mean for mean, _ in known) / len(known)
            standings.append(Standing(line.name, mean, max(half for _, half in known)))
    blind = [line.mean(COMPLETE) for line in intervals.of_results(found.rows) if not line.network]
    compared = [row for row in difference_rows_of(found) if row.condition == "mean"]
    said = verdict("the mean of complete, audio missing and visual missing", standings, differences=compared)
    floor = max((value for value in blind if value is not None), default=None)
    return f"{said} The question alone answers {100 * floor:.1f} %." if said and floor is not None else said


def no_details(found: Evaluation) -> tuple[Block, ...]:
    """Nothing beyond the kinds of question."""
    return ()


def _overview(lines: Sequence[Line], results: Sequence[Result]) -> Table:
    zeros = {(line.network, line.train_missing): line for line in lines if line.method == ZERO and line.network}
    head = ["method", "complete"]
    for name in MISSING:
        head += [name, *(["regained, %"] if zeros else [])]
    body = []
    for line in lines:
        cells = [text(line.name), _cell(line, COMPLETE)]
        for case in MISSING.values():
            cells.append(_cell(line, case))
            cells += (
                [figure(regained(line, zeros.get((line.network, line.train_missing)), case), 0, 100)] if zeros else []
            )
        body.append((*cells, figure(line.seeds, 0)))
    asked = max((r.samples for r in results if r.kind == ALL), default=0)
    note = f"On {asked} questions; {intervals.said(results)}. "
    if zeros:
        note += "Regained: share of what zero fill loses. "
    note += "Methods without a network neither hear nor see. Averages are over questions."
    return Table((*head, "seeds"), tuple(body), 1, "Accuracy over all questions, percent", note)


def _cell(line: Line, case: Case, kind: str = ALL) -> Cell:
    mean, half = line.accuracy.get(case, {}).get(kind, (None, math.nan))
    return spread(mean, half, 1, 100)


def _by_rate(lines: Sequence[Line], modality: str) -> Table:
    """Accuracy over all questions by missing rate; a method that was judged at one rate alone is left out."""
    rates = sorted({rate for line in lines for what, rate in line.accuracy if what == modality})
    judged = [line for line in lines if len(line.curve(modality)) > 1]
    body = [(text(line.name), *(_cell(line, (modality, rate)) for rate in rates)) for line in judged]
    head = ("method", *(f"{rate} %" for rate in rates))
    return Table(head, tuple(body), 1, f"{modality} missing in so many percent of the clips: accuracy, percent")


def _by_kind(lines: Sequence[Line], name: str, case: Case) -> Table:
    judged = [line for line in lines if case in line.accuracy]
    kinds = list(dict.fromkeys(kind for line in judged for kind in line.accuracy[case]))
    body = [(text(line.name), *(_cell(line, case, kind) for kind in kinds)) for line in judged]
    return Table(("method", *kinds), tuple(body), 1, f"By kind of question, {name}: accuracy, percent")


def cost_blocks(results: Sequence[Result], tag: str) -> tuple[Block, ...]:
    """Accuracy over all cases against cost, of what was judged in every one (a specialist is not)."""
    points = []
    for line in intervals.of_results(results):
        means = [line.mean(case) for case in CASES.values()]
        if line.network and None not in means:
            gain = 100 * sum(mean or 0.0 for mean in means) / len(means)
            points.append((line.name, gain, costs_of(line)))
    if len(points) < 2:
        return ()
    return cost_part(points, "accuracy, mean of complete, audio missing and visual missing, %", tag)
