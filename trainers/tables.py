"""Results tables: rows as CSV, tables as Markdown, means over seeds."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from shards.atomic import replacing

RowT = TypeVar("RowT")
Spread = tuple[float, float]  # mean, standard deviation over seeds (0 for one)
Interval = tuple[float, float]  # of 95 %, low and high; NaN: not known
UNKNOWN: Interval = (math.nan, math.nan)
MEAN_AP = "mAP"  # of clips with several labels
SHARES = ("accuracy", MEAN_AP)  # metrics of 0 to 1, the more the better: shown in percent


def is_share(metric: str) -> bool:
    """Whether a metric, as journals and MLflow name it, is one of `SHARES`: "complete/val_accuracy", "val_mAP"."""
    return any(name in metric for name in SHARES)


def titled(metric: str) -> str:
    """A metric's name as a sentence begins with it."""
    return "Accuracy" + metric.removeprefix("accuracy") if metric.startswith("accuracy") else metric


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation; 0 for a single value, NaN where a value is."""
    if any(map(math.isnan, values)):
        return UNKNOWN
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def percent(value: Spread | None, several: bool) -> str:
    """A share in percent, with its standard deviation where there are several seeds; empty for None."""
    if value is None:
        return ""
    mean, sd = value
    return f"{100 * mean:.1f} ± {100 * sd:.1f}" if several else f"{100 * mean:.1f}"


def half_width(interval: Interval) -> float:
    """Half of an interval; Wilson's reaches a little further on the side of one half."""
    return (interval[1] - interval[0]) / 2


def percent_within(mean: float | None, interval: Interval = UNKNOWN) -> str:
    """A share in percent ± half of its interval, where that is known; empty for None."""
    if mean is None:
        return ""
    half = half_width(interval)
    return f"{100 * mean:.1f}" if math.isnan(half) else f"{100 * mean:.1f} ± {100 * half:.1f}"


def interval_text(seeds: int, drawn: str = "") -> str:
    """What the figure behind ± is, in a sentence."""
    aside = f" ({drawn})" if drawn else ""
    if seeds == 1:
        return f"one seed ± half of Wilson's 95 % interval over clips{aside}; another seed may differ by more."
    said = f"mean over {seeds} seeds ± half of the 95 % interval: bootstrap over clips{aside}, Student's t over seeds;"
    return f"{said} of a method with one seed Wilson's, over clips alone."


def student_text(seeds: int) -> str:
    """The same of figures that are no shares of clips."""
    return f"mean over {seeds} seeds ± half of the 95 % interval (Student's t)." if seeds > 1 else "one seed."


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]], left: int = 1, last_left: bool = False) -> str:
    """A Markdown table: the first `left` columns are text, the others numbers, the last one text on request. Cells may
    hold any text: a "|" is escaped, a line break is a space."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    if last_left:
        rule[-1] = "---"
    lines = ([" ".join(cell.splitlines()).replace("|", "\\|") for cell in cells] for cells in (head, rule, *body))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Dataclass instances of one kind as a CSV table, a column per field, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_rows(table: str, kind: type[RowT]) -> list[RowT] | None:
    """The rows of a table's text as `write_rows` wrote it; None if its columns are not those of `kind`. Columns at the
    end that have a default may be missing: earlier versions did not write them."""
    reader = csv.DictReader(io.StringIO(table))
    names = list(reader.fieldnames or ())
    known, needed = [f.name for f in fields(kind)], [f.name for f in fields(kind) if f.default is MISSING]  # type: ignore[arg-type]
    if names != known[: len(names)] or len(names) < len(needed):
        return None
    hints = get_type_hints(kind)
    return [kind(**{name: hints[name](row[name]) for name in names}) for row in reader]
