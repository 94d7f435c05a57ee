"""Tables of a sweep as papers print them: two parameters against each other; accuracy by what is missing, by
steps of the diffusion and by kind of question (Tables 5 and 6 of the AVQA paper)."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.atomic import replacing
from trainers.avqa.accuracy import ALL
from trainers.tables import markdown_table, spread
from tuning.config import SweepConfig
from tuning.space import Params
from tuning.tables import SHARES, Line, best, summarise
from tuning.test_answers import BLIND, CASES, Answer, answered
from tuning.trial_result import Outcome

VALIDATED = {
    "audio missing": "val_accuracy_audio_missing",
    "visual missing": "val_accuracy_visual_missing",
    "complete": "val_accuracy",
}


@dataclass(frozen=True)
class Row:
    """A point of the space over its seeds: its trials, and what each answered at the protocol."""

    params: Params
    outcomes: tuple[Outcome, ...]
    answers: tuple[tuple[Answer, ...], ...]

    def values(self, case: str, steps: int = 0, kind: str = ALL) -> list[float]:
        """The accuracies of one figure, one per seed."""
        wanted = (case, steps, kind)
        return [a.accuracy for of in self.answers for a in of if (a.case, a.steps, a.kind) == wanted]


def as_printed(out: Path, outcomes: Sequence[Outcome], config: SweepConfig) -> str:
    """All tables that the trials have figures for, as markdown; answers.csv and answers.png go to `out`."""
    lines = summarise(outcomes, config.search.metric)
    names = [name for name in config.space if name != "seed"]
    rows = _rows(out, outcomes)
    parts = [_crossed(lines, names, config.search.metric), _validated(rows, names)]
    sat = [row for row in rows if any(row.answers)]
    if sat:
        top = best(lines, config.search)
        parts += _protocol(sat, names, top.params if top is not None else {}, config.protocol.split)
        _write_csv(out / "answers.csv", sat, list(config.space))
        if len(names) == 1:
            figure(sat, names[0], out / "answers.png")
    return "\n\n".join(part for part in parts if part)


def _rows(out: Path, outcomes: Sequence[Outcome]) -> list[Row]:
    groups: dict[str, list[Outcome]] = {}
    for found in sorted(outcomes, key=lambda o: o.number):
        params = {k: v for k, v in found.params.items() if k != "seed"}
        if found.status != "failed" and found.curve:
            groups.setdefault(json.dumps(params, sort_keys=True), []).append(found)
    return [
        Row(json.loads(key), tuple(group), tuple(answered(place_of(out, o)) for o in group))
        for key, group in groups.items()
    ]


def place_of(out: Path, found: Outcome) -> Path:
    """A trial's place in the sweep's folder."""
    return out / "trials" / f"{found.number:03d}-{found.name}"


def _crossed(lines: Sequence[Line], names: Sequence[str], metric: str) -> str:
    """The metric and the seconds per epoch by two parameters; empty unless they make a whole grid."""
    if len(names) != 2:
        return ""
    down, across = (list(dict.fromkeys(_short(line.params[name]) for line in lines)) for name in names)
    found = {(_short(line.params[names[0]]), _short(line.params[names[1]])): line for line in lines}
    if min(len(down), len(across)) < 2 or len(found) != len(down) * len(across):
        return ""
    share = metric.endswith(SHARES)
    head = [names[0], *(f"{names[1]}={a}" for a in across), *(f"{names[1]}={a}, s/epoch" for a in across)]
    body = []
    for value in down:
        mine = [found[value, a] for a in across]
        cells = ["" if x.mean is None else _percent([x.mean]) if share else f"{x.mean:.4g}" for x in mine]
        body.append([value, *cells, *(f"{x.costs['epoch_seconds']:.2f}" if x.costs else "" for x in mine)])
    unit = " in percent" if share else ""
    return f"## {metric}{unit} by {' and '.join(names)}\n\n{markdown_table(head, body, 1)}"


def _validated(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Accuracy on validation questions by case; empty for trials that have no cases."""
    if not rows or any(m not in o.metrics for r in rows for o in r.outcomes for m in VALIDATED.values()):
        return ""
    body = []
    for row in rows:
        columns = [[o.metrics[metric] for o in row.outcomes] for metric in VALIDATED.values()]
        mean = [statistics.fmean(of) for of in zip(*columns, strict=True)]
        body.append([*_point(row, names), *(_percent(values) for values in (*columns, mean))])
    table = markdown_table([*names, *VALIDATED, "mean"], body, len(names))
    return f"## Validation questions, by which trials are chosen\n\n{table}"


def _protocol(rows: Sequence[Row], names: Sequence[str], chosen: Params, split: str) -> list[str]:
    parts = [f"## Protocol: {split} questions, which chose nothing", _by_case(rows, names, chosen)]
    if steps := _by_steps(rows, names):
        parts += ["### With another number of steps than trained with", steps]
    for case in CASES:
        parts += [f"### By kind of question, {case}", _by_kind(rows, names, case)]
    return parts


def _by_case(rows: Sequence[Row], names: Sequence[str], chosen: Params) -> str:
    body = []
    for row in rows:
        columns = [row.values(case) for case in CASES]
        mean = [statistics.fmean(of) for of in zip(*(c for c in columns if c), strict=True)]
        cells = [*_point(row, names), *(_percent(v) for v in (*columns, mean, row.values(BLIND)))]
        body.append([f"**{cell}**" for cell in cells] if row.params == chosen else cells)
    asked = next(a.samples for of in rows[0].answers for a in of if a.kind == ALL)
    return (
        f"{markdown_table([*names, *CASES, 'mean', BLIND], body, len(names))}\n\nAccuracy in percent on {asked} "
        "questions; bold: the best on validation questions. *question alone* looks the answer up, without "
        "sound and picture."
    )


def _by_steps(rows: Sequence[Row], names: Sequence[str]) -> str:
    missing = [case for case, modality in CASES.items() if modality is not None]
    body = [
        [*_point(row, names), str(steps), *(_percent(row.values(case, steps)) for case in missing)]
        for row in rows
        for steps in sorted({a.steps for of in row.answers for a in of if a.steps})
    ]
    return markdown_table([*names, "steps", *missing], body, len(names) + 1) if body else ""


def _by_kind(rows: Sequence[Row], names: Sequence[str], case: str) -> str:
    kinds = list(dict.fromkeys(a.kind for row in rows for of in row.answers for a in of))
    body = [[*_point(row, names), *(_percent(row.values(case, kind=kind)) for kind in kinds)] for row in rows]
    return markdown_table([*names, *kinds], body, len(names))


def _point(row: Row, names: Sequence[str]) -> list[str]:
    return [_short(row.params[name]) for name in names]


def _percent(values: Sequence[float]) -> str:
    """Mean and, of several, standard deviation."""
    if not values:
        return ""
    mean, sd = spread(values)
    return f"{100 * mean:.1f} ± {100 * sd:.1f}" if len(values) > 1 else f"{100 * mean:.1f}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write_csv(path: Path, rows: Sequence[Row], names: Sequence[str]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["number", *names, "run", "case", "steps", "kind", "accuracy", "samples"])
        for row in rows:
            for o, answers in zip(row.outcomes, row.answers, strict=True):
                start = [o.number, *(o.params[name] for name in names), o.name]
                for a in answers:
                    writer.writerow([*start, a.case, a.steps or "", a.kind, a.accuracy, a.samples])


def figure(rows: Sequence[Row], name: str, path: Path) -> None:
    """Accuracy at the protocol against the space's one parameter, a line per case."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes, at = page.subplots(), range(len(rows))
    for case in (*CASES, BLIND):
        values = [[100 * v for v in row.values(case)] for row in rows]
        means, sds = zip(*(spread(v) if v else (float("nan"), 0.0) for v in values), strict=True)
        style = ":" if case == BLIND else "o-"
        axes.errorbar(at, means, yerr=sds if any(sds) else None, fmt=style, label=case)
    axes.set_xticks(at, [_short(row.params[name]) for row in rows])
    axes.set(xlabel=name, ylabel="accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    with replacing(path) as temporary:
        page.savefig(temporary, dpi=150)
