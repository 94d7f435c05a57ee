"""An evaluation under corruptions: accuracy by corruption and by severity."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainers.classification.ladders import CorruptionRow as Row
from trainers.classification.ladders import Ladder, Value, body, by_severity, corruption_rows, ladders, over_seeds
from trainers.classification.results import Row as AnyRow
from trainers.tables import titled
from tuning.report import intervals
from tuning.report.parts import Block, Cell, Table, spread, text

NOTE = (
    "Each figure is the mean over severities {severities}. Relative to clean: 1 - (clean - corrupted) / clean; "
    "corruptions.csv in the evaluation's folder has every severity."
)


def corruption_blocks(rows: Sequence[AnyRow]) -> tuple[Block, ...]:
    """Two tables per protocol of which corruptions were evaluated; nothing where none were."""
    found = ladders(corruption_rows(intervals.one_per_seed(rows)))
    return tuple(table for ladder in found for table in _tables(ladder))


def _tables(ladder: Ladder) -> list[Table]:
    note = NOTE.format(severities=", ".join(map(str, ladder.severities)))
    title = f"{titled(ladder.metric)} under the corruptions of {ladder.protocol}, percent"
    tables = [_table("corruption", ladder, body(ladder, _cell), title, note)]
    if len(ladder.severities) > 1:
        title = f"{titled(ladder.metric)} by severity, mean over the corruptions of {ladder.protocol}, percent"
        tables.append(_table("severity", ladder, by_severity(ladder, _cell), title, ""))
    return tables


def _table(head: str, ladder: Ladder, lines: Sequence[tuple[str, Sequence[Cell]]], title: str, note: str) -> Table:
    cells = tuple((text(name), *figures) for name, figures in lines)
    return Table((head, *ladder.methods), cells, 1, title, note)


def _cell(rows: Sequence[Row], value: Value) -> Cell:
    if not rows:
        return spread(None, math.nan)
    mean, sd = over_seeds(rows, value)
    if math.isnan(mean):
        return spread(None, math.nan)
    return spread(mean, intervals.half_width(sd, len({row.seed for row in rows})), 1, 100)
