"""Question-answering results as people read them: results.csv (every figure), results.md (the tables),
results.png (accuracy against missing rate)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.settings import MODALITIES
from trainers.avqa.accuracy import ALL, FAMILIES, average
from trainers.differences import varied_network
from trainers.tables import (
    UNKNOWN,
    Interval,
    Spread,
    half_width,
    interval_text,
    markdown_table,
    percent_within,
    spread,
)

Case = tuple[str, int]  # what is missing, in what percent of the clips
COMPLETE: Case = ("none", 0)
CASES: dict[str, Case] = {
    "complete": COMPLETE,
    "audio missing": ("audio", 100),
    "visual missing": ("visual", 100),
}
CONDITIONS = {name: name.replace(" ", "_") for name in CASES}  # as confidence and differences name the cases
ZERO, SPECIALIST = "zero", "specialist"


@dataclass(frozen=True)
class Result:
    """One figure: a method on a network, a seed, what is missing at which rate, a kind of question.

    Attributes:
        network: "" for rules that have none.
        missing: "none", "audio" or "visual".
        rate: percent of the clips that lack it.
        kind: of question, a family's average, or "all".
        accuracy: 0..1 over `samples`.
        trained, parameters: how many the run trained, and has.
        epoch_seconds, peak_memory_mb: of the training, as its logs tell.
        run: the run's folder name.
        low, high: interval of 95 % of the method's mean over its seeds; NaN for kinds of question at other rates than
            0 and 100, and in tables of earlier versions.
        train_seconds: of all epochs, as its logs tell: wall clock, without validation, features and what it starts
            from.
        inference_seconds: for an answer, the median over the evaluation's batches.
        train_missing: what its training clips were made to lack, "" for nothing.
    """

    method: str
    network: str
    seed: int
    missing: str
    rate: int
    kind: str
    accuracy: float
    samples: int
    trained: int
    parameters: int
    epoch_seconds: float
    peak_memory_mb: float
    run: str
    low: float = math.nan
    high: float = math.nan
    train_seconds: float = math.nan
    inference_seconds: float = math.nan
    train_missing: str = ""

    @property
    def line(self) -> str:
        """Name of the line that it belongs to."""
        return line_name(self.network, self.method, self.train_missing)

    @property
    def condition(self) -> str:
        """As confidence and differences name it: "complete", "audio_missing", "audio_missing_40"."""
        return condition_of(self.missing, self.rate)


def line_name(network: str, method: str, train_missing: str) -> str:
    """Network and method, and what training clips lacked."""
    name = f"{network} {method}".strip()
    return f"{name}, trained without {train_missing}" if train_missing else name


def condition_of(missing: str, rate: int) -> str:
    """What is missing, in one word."""
    if missing == "none":
        return "complete"
    return f"{missing}_missing" if rate == 100 else f"{missing}_missing_{rate}"


@dataclass(frozen=True)
class Line:
    """A method on a network over its seeds.

    Attributes:
        accuracy: case -> kind of question -> mean and standard deviation.
        intervals: case -> kind of question -> interval of 95 % of the mean.
        train_seconds: mean and standard deviation.
        answer_seconds: by case, for an answer.
        train_missing: as of `Result`.
    """

    method: str
    network: str
    seeds: int
    accuracy: Mapping[Case, Mapping[str, Spread]]
    trained: int
    parameters: int
    epoch_seconds: float
    peak_memory_mb: float
    intervals: Mapping[Case, Mapping[str, Interval]] = field(default_factory=dict)
    train_seconds: Spread = UNKNOWN
    answer_seconds: Mapping[Case, float] = field(default_factory=dict)
    train_missing: str = ""

    @property
    def name(self) -> str:
        """Network and method, as MLflow and reports name it, and what training clips lacked."""
        return line_name(self.network, self.method, self.train_missing)

    @property
    def params(self) -> dict[str, Any]:
        """Of its MLflow run."""
        lacked = {"train_missing": self.train_missing} if self.train_missing else {}
        return {"network": self.network, "method": self.method, "seeds": self.seeds, **lacked}

    def mean(self, case: Case, kind: str = ALL) -> float | None:
        """Mean accuracy, None where it was not judged."""
        spread = self.accuracy.get(case, {}).get(kind)
        return None if spread is None else spread[0]

    def interval(self, case: Case, kind: str = ALL) -> Interval:
        """Of 95 %, NaN where it is not known."""
        return self.intervals.get(case, {}).get(kind, UNKNOWN)

    @property
    def inference_seconds(self) -> float:
        """Seconds for an answer: the mean of complete and what is missing altogether, as far as judged; NaN where
        not measured."""
        known = [self.answer_seconds[case] for case in CASES.values() if case in self.answer_seconds]
        return statistics.fmean(known) if known else math.nan

    def curve(self, modality: str) -> list[tuple[int, Spread]]:
        """Accuracy over all questions by missing rate of `modality`."""
        return sorted((rate, of[ALL]) for (what, rate), of in self.accuracy.items() if what == modality)

    def curves(self) -> dict[int, dict[str, float]]:
        """For MLflow: figures by missing rate as the step."""
        out: dict[int, dict[str, float]] = {}
        for modality in MODALITIES:
            for rate, (mean, _) in self.curve(modality):
                out.setdefault(rate, {})[f"accuracy_by_{modality}_missing_rate"] = mean
        return out

    def metrics(self) -> dict[str, float]:
        """Flat figures for MLflow."""
        out: dict[str, float] = {"trained": self.trained, "parameters": self.parameters}
        out |= {"epoch_seconds": self.epoch_seconds, "peak_memory_mb": self.peak_memory_mb}
        measured = {"train_seconds": self.train_seconds[0], "inference_seconds": self.inference_seconds}
        out |= {name: value for name, value in measured.items() if not math.isnan(value)}
        for name, case in CASES.items():
            for kind, (mean, sd) in self.accuracy.get(case, {}).items():
                where = f"{name} {kind}".replace(" ", "_")
                out |= {f"accuracy/{where}": mean, f"sd/{where}": sd}
        return out


def summarise(results: Sequence[Result]) -> list[Line]:
    """Means and standard deviations over seeds, one line per network, method and what training clips lacked, in order
    of appearance.

    The two specialists of a network are one line: each has its own modality's cases.
    """
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.network, result.method, result.train_missing), []).append(result)
    return [_line(*key, group) for key, group in groups.items()]


def _line(network: str, method: str, train_missing: str, results: Sequence[Result]) -> Line:
    figures: dict[Case, dict[str, list[float]]] = {}
    for r in results:
        figures.setdefault((r.missing, r.rate), {}).setdefault(r.kind, []).append(r.accuracy)
    accuracy = {case: {kind: spread(values) for kind, values in kinds.items()} for case, kinds in figures.items()}
    intervals: dict[Case, dict[str, Interval]] = {}
    seconds: dict[Case, list[float]] = {}
    for r in results:
        intervals.setdefault((r.missing, r.rate), {})[r.kind] = (r.low, r.high)
        if r.kind == ALL:
            seconds.setdefault((r.missing, r.rate), []).append(r.inference_seconds)
    trained = {r.run: r.train_seconds for r in results}
    return Line(
        method,
        network,
        len({r.seed for r in results}),
        accuracy,
        results[0].trained,
        results[0].parameters,
        statistics.fmean(r.epoch_seconds for r in results),
        statistics.fmean(r.peak_memory_mb for r in results),
        intervals,
        spread(list(trained.values())),
        {case: statistics.fmean(values) for case, values in seconds.items()},
        train_missing,
    )


def regained(line: Line, zero: Line | None, case: Case) -> float | None:
    """Share of what zero fill loses in `case` that `line` has of it; None where zero fill loses nothing, or no more
    than half of its interval, which would be a share of chance."""
    if zero is None:
        return None
    whole, less, mine = zero.mean(COMPLETE), zero.mean(case), line.mean(case)
    if whole is None or less is None or mine is None:
        return None
    known = half_width(zero.interval(case))
    if whole - less <= (0.0 if math.isnan(known) else known):
        return None
    return (mine - less) / (whole - less)


def markdown(lines: Sequence[Line], notes: Mapping[str, Any], between: Sequence[str] = ()) -> str:
    """The tables: all questions by case, then what is `between`, then every case by kind of question."""
    parts = [_overview(lines), _explained(lines, notes), *(part for part in between if part)]
    for name, case in CASES.items():
        parts.append(f"### Accuracy by kind of question, {name}\n\n{_by_kind(lines, case)}")
    return "\n\n".join(parts)


def _overview(lines: Sequence[Line]) -> str:
    head = [*_named(lines), "complete"]
    for name in list(CASES)[1:]:
        head += [name, "to specialist", "regained"]
    head += ["parameters", "s/epoch", "peak MiB"]
    body = []
    for line in lines:
        cells = [*_names(line, lines), _cell(line, COMPLETE)]
        zero, special = _beside(line, ZERO, lines), _beside(line, SPECIALIST, lines)
        for case in list(CASES.values())[1:]:
            cells += [_cell(line, case), _gap(line, special, case), _percent(regained(line, zero, case))]
        cost = [f"{line.parameters:,}", f"{line.epoch_seconds:.1f}", f"{line.peak_memory_mb:.0f}"]
        body.append(cells + (cost if line.network else [""] * 3))
    return markdown_table(head, body, len(_named(lines)))


def _named(lines: Sequence[Line]) -> list[str]:
    """Heads of what names a line: without that of the training clips where none lacked anything."""
    return ["network", "method", *(["training clips lack"] if any(x.train_missing for x in lines) else [])]


def _names(line: Line, lines: Sequence[Line]) -> list[str]:
    return [line.network, line.method, line.train_missing][: len(_named(lines))]


def _beside(line: Line, method: str, lines: Sequence[Line]) -> Line | None:
    """Another method on the same network, or on the one that it is a variant of, trained on the same clips."""
    known = {x.network: x for x in lines if x.network and (x.method, x.train_missing) == (method, line.train_missing)}
    base = varied_network(line.network, known)
    return None if base is None else known[base]


def _gap(line: Line, special: Line | None, case: Case) -> str:
    """Points above or below the specialist."""
    mine, ceiling = line.mean(case), special.mean(case) if special is not None else None
    if mine is None or ceiling is None or line is special:
        return ""
    return f"{100 * (mine - ceiling):+.1f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _explained(lines: Sequence[Line], notes: Mapping[str, Any]) -> str:
    seeds = max(line.seeds for line in lines)
    unasked = notes["unasked"]
    return (
        f"Accuracy in percent on {notes['questions']} {notes['split']} questions about {notes['clips']} "
        + "clips, "
        + f"{interval_text(seeds, 'questions about one clip stay together')} "
        + (f"{unasked} more can't be asked: their clips are not in the dataset. " if unasked else "")
        + "*zero* puts zeros for a missing modality; features are standardised per channel (unless a run has "
        "standardise=false), so that is the mean of the training data. *specialist* was trained without the "
        "modality from the start, one for either: the ceiling. *to specialist*: points above it. *regained*: share "
        "of what *zero* loses. "
        "*question look-up* and *majority of the kind* neither hear nor see. Averages are over questions. "
        f"Masks of the missing rates are the same for all methods (seed {notes['seed']}, by clip, nested). "
        "Peak memory of training beyond the loaded network: growth of the process on a CPU, allocated on a "
        "GPU."
    )


def _by_kind(lines: Sequence[Line], case: Case) -> str:
    judged = [line for line in lines if case in line.accuracy]
    kinds = list(dict.fromkeys(kind for line in judged for kind in line.accuracy[case]))
    averages = [average(name) for name in FAMILIES]
    head = [*_named(lines), *(f"**{k}**" if k in averages or k == ALL else k for k in kinds)]
    body = [[*_names(x, lines), *(_cell(x, case, k) for k in kinds)] for x in judged]
    return markdown_table(head, body, len(_named(lines)))


def _cell(line: Line, case: Case, kind: str = ALL) -> str:
    return percent_within(line.mean(case, kind), line.interval(case, kind))
