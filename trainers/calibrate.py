"""``avmend calibrate RUN ...``: temperatures of finished runs, fitted on validation data, into their folders.

A run's logits are divided by a temperature before they become probabilities: no answer changes. There is one for each
thing that can be told of a sample without an oracle: which modalities are there, and what the run's detector says.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs import Config, load_config
from models.conditions import coarser_observation
from shards.command import command
from shards.errors import InputError
from shards.progress import Progress
from shards.store import Place, absolute
from trainers.answers import Answers
from trainers.calibration import CALIBRATION_FILE, Calibration, Temperature, read_calibration, weights_of
from trainers.command_line import calibrate_parser
from trainers.confidence import expected_calibration_error, fit_temperature, probabilities, selected
from trainers.evaluate import common_task
from trainers.recipe import Evaluation, FinishedRun, Task
from trainers.runs import read_run
from trainers.tables import markdown_table

FEWEST = 30  # samples of an observation of its own; else it is served with all of the same modalities


def calibrate(folders: Sequence[Place], config: Config, stage: str | None = None) -> dict[str, Calibration]:
    """Calibrate runs of one task; those that were, on the same data by the same settings, are left as they are.

    Args:
        folders: of finished runs, or their addresses.
        config: an instance of the task's `evaluation`: whose data and conditions are fitted to.
        stage: position in a longer job, for the progress line.

    Returns:
        the calibrations by the run's name.

    Raises:
        InputError: a run that is none, runs of two tasks, what the task refuses, test data.
    """
    if getattr(config, "split", None) == "test":
        remedy = "fit to other data, such as split=val; test data would then tell nothing any more"
        raise InputError("temperatures are not fitted to test data", field="split", remedy=remedy)
    if getattr(config, "adapt", ()):
        remedy = "leave adapt out: a run that adapts at test time has no one temperature"
        raise InputError("temperatures are fitted to trained networks alone", field="adapt", remedy=remedy)
    runs = [read_run(folder) for folder in folders]
    task = common_task(runs)
    return {run.folder.name: _calibrated(run, task, config, stage) for run in runs}


def _calibrated(run: FinishedRun, task: Task, config: Config, stage: str | None) -> Calibration:
    known = _known(run)
    evaluation = task.evaluate([run], config)
    inputs = inputs_of(evaluation)
    if known is not None and known.inputs == inputs:
        return known
    with Progress("calibrate", evaluation.total, "samples", stage=stage) as progress:
        parts = [answers for _, _, answers in evaluation.answers(progress.advance)]
    if any(found.label.ndim == 2 for part in parts for found in part.values()):
        message, remedy = (
            "its clips have several labels, whose probabilities no temperature scales",
            "leave it as it is",
        )
        raise InputError(message, file=run.folder, field="label", remedy=remedy)
    made = Calibration(weights=weights_of(run), inputs=inputs, groups=fit_groups(parts))
    made = made.model_copy(update={"abstaining": abstaining(made, parts)})
    made.save(run.place)
    return made


def _known(run: FinishedRun) -> Calibration | None:
    """The run's calibration; one that is damaged or of other weights is removed: it is made anew."""
    try:
        return read_calibration(run)
    except InputError:
        (run.folder / CALIBRATION_FILE).unlink(missing_ok=True)
        return None


def inputs_of(evaluation: Evaluation) -> dict[str, Any]:
    """What the temperatures depend on besides the run's weights."""
    left_out = {"runs", "calibrations", "audit"}
    inputs = {name: value for name, value in evaluation.inputs.items() if name not in left_out}
    settings = {k: v for k, v in inputs["config"].items() if k not in ("abstain_below", "audit", "batch_size", "rates")}
    return {**inputs, "config": settings}


def fit_groups(parts: Sequence[Mapping[str, Answers]]) -> dict[str, dict[str, Temperature]]:
    """Temperatures by selection and observation, over all conditions.

    Raises:
        InputError: no sample has its label among the answers.
    """
    out: dict[str, dict[str, Temperature]] = {}
    for selection in dict.fromkeys(name for part in parts for name in part):
        answers = Answers.joined([part[selection] for part in parts if selection in part])
        observed = np.array(answers.observed)
        coarse = np.array([coarser_observation(name) for name in answers.observed])
        groups = {str(name): coarse == name for name in sorted(set(coarse))}
        groups |= {str(name): mask for name in sorted(set(observed)) if (mask := observed == name).sum() >= FEWEST}
        out[selection] = {name: _fitted(answers, mask) for name, mask in groups.items()}
    return out


def abstaining(calibration: Calibration, parts: Sequence[Mapping[str, Answers]]) -> dict[str, Any]:
    """What `Calibration.abstaining` holds."""
    out = {}
    for selection in calibration.groups:
        answers = Answers.joined([part[selection] for part in parts if selection in part])
        scaled = probabilities(answers.logits, calibration.temperatures(selection, answers.observed)).max(axis=1)
        out[selection] = tuple(selected(scaled, answers.right, percent / 100) for percent in range(101))
    return out


def _fitted(answers: Answers, mask: np.ndarray) -> Temperature:
    logits, label, right = answers.logits[mask], answers.label[mask], answers.right[mask]
    try:
        temperature = fit_temperature(logits, label)
    except ValueError as error:
        raise InputError(f"can't be calibrated: {error}", field="split", remedy="give data with known labels") from None
    before, after = (
        expected_calibration_error(probabilities(logits, t).max(axis=1), right) for t in (1.0, temperature)
    )
    return Temperature(temperature=temperature, samples=len(right), ece_before=before, ece_after=after)


def text(found: Mapping[str, Calibration]) -> str:
    """A table of all temperatures."""
    body = [
        [
            *(run, selection or "-", group, str(t.samples)),
            *(f"{t.temperature:.2f}", f"{100 * t.ece_before:.1f}", f"{100 * t.ece_after:.1f}"),
        ]
        for run, calibration in found.items()
        for selection, groups in calibration.groups.items()
        for group, t in groups.items()
    ]
    head = ["run", "selection", "observed", "samples", "temperature", "ECE before, %", "after, %"]
    return markdown_table(head, body, left=3)


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = calibrate_parser().parse(argv)
    data = [f"data={absolute(args.data)}"] if args.data is not None else []
    task = common_task([read_run(folder) for folder in args.runs])
    found = calibrate(args.runs, load_config(task.evaluation, None, ["split=val", *data, *args.set]))
    print(text(found))
    mean = statistics.fmean(t.ece_after for c in found.values() for g in c.groups.values() for t in g.values())
    print(f"\nmean calibration error on what was fitted to: {100 * mean:.1f} %; evaluate tells that of test data")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
