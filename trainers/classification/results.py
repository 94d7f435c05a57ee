"""Results as people read them: results.csv (every figure), results.md (the table), results.png (the
figure)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.figure_text import figure_text
from models.conditions import CONDITIONS, NOISY_CASES
from trainers.legend import legend_below
from trainers.tables import (
    MEAN_AP,
    UNKNOWN,
    Interval,
    Spread,
    interval_text,
    markdown_table,
    percent,
    percent_within,
    spread,
    student_text,
    titled,
)

LOOKS: dict[str, dict] = {  # one colour per method, one look per way of choosing its prompts
    "": {},
    "situation": {},
    "detected": {"alpha": 0.55, "hatch": "//", "edgecolor": "white"},
    "concat": {"alpha": 0.3},
}


@dataclass(frozen=True)
class Row:
    """One figure: a method (and its way of choosing prompts), a seed, a condition.

    Attributes:
        accuracy: 0..1 over `samples`; of clips with several labels the figure that `metric` names.
        trained, parameters: trained per case, and in the backbone.
        epoch_seconds, peak_memory_mb: of the training, as its logs tell.
        run: the run's folder name.
        metric: "accuracy", or "mAP": the mean average precision over all classes, one that no clip has counting 0.
        occurring: of mAP, the same over the classes that some clip has.
        low, high: interval of 95 % of the method's mean over its seeds; NaN where it is not known.
        train_seconds: of all that was made for it, as logs tell: epochs of all cases, cached features and detector;
            wall clock, without validation and without the backbone that it starts from.
        inference_seconds: for a clip, by all its looks, the median over the evaluation's batches.
    """

    method: str
    selection: str
    seed: int
    condition: str
    accuracy: float
    samples: int
    trained: int
    parameters: int
    epoch_seconds: float
    peak_memory_mb: float
    run: str
    metric: str = "accuracy"
    occurring: float = 0.0
    low: float = math.nan
    high: float = math.nan
    train_seconds: float = math.nan
    inference_seconds: float = math.nan

    @property
    def line(self) -> str:
        """Name of the line that it belongs to."""
        return line_name(self.method, self.selection)


def line_name(method: str, selection: str) -> str:
    """Method and selection, as tables, MLflow and reports name them."""
    return f"{method}, {selection}" if selection else method


@dataclass(frozen=True)
class ClassRow:
    """The accuracy of a method on the samples of one class, as in classes.csv.

    Attributes:
        accuracy: 0..1 over `samples`; of clips with several labels the average precision.
        samples: clips that have the class.
        metric: "accuracy" or "AP".
    """

    method: str
    selection: str
    seed: int
    condition: str
    label: str
    accuracy: float
    samples: int
    metric: str = "accuracy"


@dataclass(frozen=True)
class Line:
    """One line of the table: a method over its seeds.

    Attributes:
        accuracy: by condition; what `metric` names.
        metric: "accuracy" or "mAP".
        occurring: by condition, mAP over the classes that occur.
        intervals: by condition, of 95 %, of the mean over seeds.
        train_seconds: mean and standard deviation.
        inference_seconds: for a clip, mean over conditions.
    """

    method: str
    selection: str
    seeds: int
    accuracy: dict[str, Spread]
    trained: int
    parameters: int
    epoch_seconds: float
    peak_memory_mb: float
    metric: str = "accuracy"
    occurring: dict[str, Spread] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    train_seconds: Spread = UNKNOWN
    inference_seconds: float = math.nan

    @property
    def name(self) -> str:
        """Method and selection, as MLflow and reports name it."""
        return line_name(self.method, self.selection)

    @property
    def noisy(self) -> float | None:
        """Mean of the figure over the three noisy cases, None unless all were evaluated."""
        values = [self.accuracy[c][0] for c in NOISY_CASES if c in self.accuracy]
        return statistics.fmean(values) if len(values) == len(NOISY_CASES) else None

    @property
    def params(self) -> dict[str, object]:
        """Of its MLflow run."""
        return {"method": self.method, "selection": self.selection, "seeds": self.seeds}

    def curves(self) -> dict[int, dict[str, float]]:
        """None: conditions have no order."""
        return {}

    def metrics(self) -> dict[str, float]:
        """Flat figures for MLflow."""
        out = {f"{self.metric}/{c}": mean for c, (mean, _) in self.accuracy.items()}
        out |= {f"{self.metric}_occurring/{c}": mean for c, (mean, _) in self.occurring.items()}
        out |= {f"sd/{c}": sd for c, (_, sd) in self.accuracy.items()}
        out |= {"trained": self.trained, "trained_share": self.trained / self.parameters}
        out |= {"epoch_seconds": self.epoch_seconds, "peak_memory_mb": self.peak_memory_mb}
        measured = {"train_seconds": self.train_seconds[0], "inference_seconds": self.inference_seconds}
        out |= {name: value for name, value in measured.items() if not math.isnan(value)}
        return out | ({f"{self.metric}/noisy_mean": self.noisy} if self.noisy is not None else {})


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Means and standard deviations over seeds, one line per method and selection, in order of appearance."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.selection), []).append(row)
    return [_line(*key, group) for key, group in groups.items()]


def _line(method: str, selection: str, rows: list[Row]) -> Line:
    conditions = dict.fromkeys(row.condition for row in rows)
    accuracy = {c: spread([row.accuracy for row in rows if row.condition == c]) for c in conditions}
    occurring = {c: spread([row.occurring for row in rows if row.condition == c]) for c in conditions}
    seeds = len({row.seed for row in rows})
    mean = statistics.fmean
    return Line(
        method,
        selection,
        seeds,
        accuracy,
        rows[0].trained,
        rows[0].parameters,
        mean(row.epoch_seconds for row in rows),
        mean(row.peak_memory_mb for row in rows),
        rows[0].metric,
        occurring if rows[0].metric == MEAN_AP else {},
        {row.condition: (row.low, row.high) for row in rows},
        spread(list({row.run: row.train_seconds for row in rows}.values())),
        mean(row.inference_seconds for row in rows),
    )


def metrics_of(lines: Sequence[Line]) -> str:
    """What the figures of a table are: "accuracy", "mAP", or both, of runs that differ in it."""
    return " or ".join(dict.fromkeys(line.metric for line in lines))


def plain_conditions(lines: Sequence[Line]) -> list[str]:
    """The conditions that were evaluated and are no corruption at a severity, in the registry's order."""
    return [c for c in CONDITIONS if any(c in line.accuracy for line in lines)]


def recovered(line: Line, clean: Line, noisy: Line) -> float | None:
    """Share of what noise-trained fine-tuning gains over the clean one that `line` gains, over the noisy
    cases."""
    if line.noisy is None or clean.noisy is None or noisy.noisy is None or noisy.noisy <= clean.noisy:
        return None
    return (line.noisy - clean.noisy) / (noisy.noisy - clean.noisy)


def markdown(lines: Sequence[Line], samples: int, split: str, drawn: str = "") -> str:
    """The table: accuracy (or mAP) in percent by condition, gain recovered, trained share, epoch time, peak memory.

    Args:
        drawn: what the intervals take for one, beside single clips.
    """
    conditions = plain_conditions(lines)
    by_name = {line.name: line for line in lines}
    clean, noisy = by_name.get("finetune"), by_name.get("finetune_noisy")
    head = ["method", *(c.replace("_", " ") for c in conditions), "noisy mean", "gain recovered"]
    head += ["trained", "s/epoch", "peak MiB"]
    body = []
    for line in lines:
        share = recovered(line, clean, noisy) if clean and noisy else None
        cells = [line.name, *(_cell(line, c) for c in conditions)]
        cells.append(f"{100 * line.noisy:.1f}" if line.noisy is not None else "")
        cells.append(f"{100 * share:.0f} %" if share is not None else "")
        cells.append(_share(line))
        cells += [f"{line.epoch_seconds:.2f}", f"{line.peak_memory_mb:.0f}"]
        body.append(cells)
    seeds = max(line.seeds for line in lines)
    note = (
        f"{titled(metrics_of(lines))} in percent on {samples} {split} clips, "
        + f"{interval_text(seeds, drawn) if metrics_of(lines) == 'accuracy' else student_text(seeds)} "
        + "Case-wise methods: trained parameters per case and epoch time per case. *situation* knows what is "
        "ruined, *detected* does not, *concat* uses all four sets at once. An absent modality is left out, "
        "never filled. Peak memory of training beyond the loaded network: growth of the process on a CPU, "
        "allocated on a GPU."
    )
    return f"{markdown_table(head, body)}\n\n{note}{_occurring(lines, conditions)}"


def _cell(line: Line, condition: str) -> str:
    mean = line.accuracy.get(condition)
    return percent_within(mean[0] if mean is not None else None, line.intervals.get(condition, UNKNOWN))


def _occurring(lines: Sequence[Line], conditions: Sequence[str]) -> str:
    """mAP over the classes that occur, where that is another one; its own table."""
    judged = [line for line in lines if any(line.occurring.get(c) != line.accuracy.get(c) for c in line.occurring)]
    if not judged:
        return ""
    head = ["method", *(c.replace("_", " ") for c in conditions)]
    body = [[line.name, *(percent(line.occurring.get(c), line.seeds > 1) for c in conditions)] for line in judged]
    said = "mAP in percent over the classes that some clip has; above, a class that none has counts 0, as published."
    return f"\n\n{markdown_table(head, body)}\n\n{said}"


def _share(line: Line) -> str:
    share = line.trained / line.parameters
    return "none" if not share else "all" if share == 1 else f"{100 * share:.2f} %"


def whisker(line: Line, condition: str) -> tuple[float, float]:
    """How far the interval reaches below and above the mean; NaN where it is not known."""
    mean, (low, high) = line.accuracy.get(condition, UNKNOWN)[0], line.intervals.get(condition, UNKNOWN)
    return mean - low, high - mean


def figure(lines: Sequence[Line], path: Path) -> None:
    """Accuracy (or mAP) by condition, one bar per method, intervals of 95 % as error bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    conditions = plain_conditions(lines)
    width = 0.84 / len(lines)
    fig, axes = plt.subplots(figsize=(1.8 * len(conditions) + 2, 4.6), layout="constrained")
    methods = list(dict.fromkeys(line.method for line in lines))
    colours = plt.get_cmap("tab10" if len(methods) <= 10 else "tab20")
    for i, line in enumerate(lines):
        look = {"color": colours(methods.index(line.method)), **LOOKS[line.selection]}
        at = [k + (i - (len(lines) - 1) / 2) * width for k in range(len(conditions))]
        mean = [100 * line.accuracy[c][0] if c in line.accuracy else 0.0 for c in conditions]
        whiskers = [whisker(line, c) for c in conditions]
        below, above = ([100 * pair[side] for pair in whiskers] for side in (0, 1))
        bars: dict[str, Any] = {"yerr": (below, above), "error_kw": {"elinewidth": 0.9, "ecolor": "0.25"}}
        axes.bar(at, mean, width * 0.94, label=figure_text(line.name), **bars, **look)
    shown = [100 * line.accuracy[c][0] for line in lines for c in conditions if c in line.accuracy]
    low = min(shown, default=0.0)
    axes.set_ylim(max(0, 10 * (low // 10) - 10), 101)
    axes.set_xticks(range(len(conditions)), [c.replace("_", "\n") for c in conditions])
    axes.set_ylabel(f"{metrics_of(lines)}, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    legend_below(fig)
    fig.savefig(path, dpi=150)
    plt.close(fig)
