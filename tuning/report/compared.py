"""Differences between the methods of an evaluation, as its differences.csv has them."""

from __future__ import annotations

from collections.abc import Sequence

from trainers.differences import AGAINST, BY_KIND, DIFFERENCES_FILE, PAIRS, DifferenceRow, said
from trainers.tables import read_rows
from tuning.report.evaluations import Evaluation
from tuning.report.parts import Block, Cell, Folded, Table, figure, text

CAPTION = "Differences from the baseline, points"


def difference_rows_of(found: Evaluation) -> list[DifferenceRow]:
    """Its rows; none of evaluations of earlier versions."""
    table = found.read(DIFFERENCES_FILE)
    return (read_rows(table, DifferenceRow) if table else None) or []


def difference_blocks(found: Evaluation) -> tuple[Block, ...]:
    """What each method adds to the baseline, with the verdict; every pair, and kinds of question, folded away."""
    rows = difference_rows_of(found)
    against, kinds, pairs = ([row for row in rows if row.family == family] for family in (AGAINST, BY_KIND, PAIRS))
    blocks: list[Block] = []
    if against:
        columns = list(dict.fromkeys(row.condition for row in against))
        blocks.append(_table(against, columns, "condition", CAPTION, said(against).replace("*", "")))
    for condition in dict.fromkeys(row.condition for row in kinds):
        own = [row for row in kinds if row.condition == condition]
        columns = list(dict.fromkeys(row.kind for row in own))
        caption = f"{CAPTION}, {condition.replace('_', ' ')}, by kind of question"
        blocks.append(Folded(caption, (_table(own, columns, "kind", caption),)))
    if pairs:
        columns = list(dict.fromkeys(row.condition for row in pairs))
        note = f"Corrected for all {len(pairs)} comparisons."
        blocks.append(Folded("Every pair of methods", (_table(pairs, columns, "condition", "Every pair", note),)))
    return tuple(blocks)


def _table(rows: Sequence[DifferenceRow], columns: Sequence[str], by: str, caption: str, note: str = "") -> Table:
    cells: dict[tuple[str, str], dict[str, Cell]] = {}
    for row in rows:
        cells.setdefault((row.method, row.other), {})[getattr(row, by)] = Cell(row.words, 100 * row.difference)
    body = [(*map(text, pair), *(own.get(name, figure(None)) for name in columns)) for pair, own in cells.items()]
    head = ("method", "less", *(name.replace("_", " ") for name in columns))
    return Table(head, tuple(body), 2, caption, note)
