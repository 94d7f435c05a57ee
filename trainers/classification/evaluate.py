"""Classification under conditions: every method on the same ruined input, condition by condition."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.corruption_files import CorruptionFiles
from models.batch import AVBatch
from models.conditions import Condition
from models.settings import MODALITIES
from shards.atomic import replacing, write_text
from shards.errors import InputError
from shards.keys import safe_name
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from trainers.answers import Answers
from trainers.audit_table import audit_fingerprint, write_by_audit
from trainers.calibration import Calibration, fingerprints, read_calibration
from trainers.classification import ladders
from trainers.classification.adapt import stream_order, with_adapted
from trainers.classification.config import EvaluateConfig
from trainers.classification.items import MediaItems
from trainers.classification.ladders import corruption_rows
from trainers.classification.predict import MeanLogits, Predictor
from trainers.classification.results import ClassRow, Line, Row, figure, line_name, markdown, summarise
from trainers.classification.stages import input_spec, media_info
from trainers.classification.targets import Loss, TargetForm, several_labels
from trainers.classification.uncertainty import (
    BASELINES,
    compared_sets,
    cost_points,
    run_cost,
    scored_of,
    within_intervals,
)
from trainers.comparing import Comparison
from trainers.confidence_table import write_confidence
from trainers.cost import COST_FIGURE, cost_markdown, write_cost_figure
from trainers.data import at_hand, batches
from trainers.differences import chosen_baseline, write_differences
from trainers.distinguish import distinguish
from trainers.identity import content_settings
from trainers.judged import Judged, judged
from trainers.loop import local_rank
from trainers.multilabel_metrics import class_average_precisions, mean_average_precision
from trainers.recipe import FinishedRun, first_data
from trainers.resources import Stopwatch
from trainers.scored import ANSWERS_FILE, Samples, Scored, write_scored
from trainers.tables import MEAN_AP, write_rows

OF_CORRUPTIONS = ("protocol", "severities", "recordings", "overlays")  # told by what they stand for


@dataclass(frozen=True)
class Figures:
    """Of one predictor under one condition, by selection."""

    rows: list[Row]
    scored: list[Scored]
    by_class: list[ClassRow]
    judged: list[Judged]


@dataclass(frozen=True)
class ConditionEvaluation:
    """Runs, conditions and samples of an evaluation; see `trainers.recipe.Evaluation`."""

    config: EvaluateConfig
    data: ShardDataset
    predictors: tuple[Predictor, ...]
    inputs: dict[str, Any]
    experiment: str
    device: torch.device
    calibrations: Mapping[str, Calibration | None]
    by_class: list[ClassRow] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Samples that the methods classify, over all conditions."""
        return len(self.predictors) * len(self.config.applied()) * len(self.data)

    def rows(self, advance: Callable[..., None]) -> list[Row]:
        """Accuracy, or mAP of clips with several labels, by method, selection, seed and condition.

        Raises:
            InputError: no sample has anything left under any condition.
            FloatingPointError: a method's logits are NaN.
        """
        rows: list[Row] = []
        for figures in self._in_order(advance):
            rows += figures.rows
            self.scored.extend(figures.scored)
            self.by_class.extend(figures.by_class)
            self.judged.extend(figures.judged)
        if not rows:
            names = ", ".join(self.config.conditions)
            message = f"no sample of '{self.config.split}' has anything left under {names}"
            raise InputError(message, file=self.data.folder, field="conditions", remedy="evaluate other conditions")
        return within_intervals(rows, self.comparison)

    @cached_property
    def comparison(self) -> Comparison | None:
        """All that was answered, once it was; None where clips have several labels."""
        return Comparison(self.scored, self._samples) if self.scored else None

    @cached_property
    def _samples(self) -> Samples:
        return Samples.of_clips(list(self.data.ids), self.data.column("group").to_pylist())

    def answers(self, advance: Callable[..., None]) -> Iterator[tuple[FinishedRun, str, Mapping[str, Answers]]]:
        """By run, condition and selection."""
        for predictor, condition, outcome, _ in self._outcomes(advance):
            yield predictor.run, condition.name, outcome

    def _in_order(self, advance: Callable[..., None]) -> list[Figures]:
        """By predictor, then by condition: not as they came."""
        place = {id(predictor): i for i, predictor in enumerate(self.predictors)}
        found: list[list[Figures]] = [[] for _ in self.predictors]
        for predictor, condition, outcome, watch in self._outcomes(advance):
            calibration = None if predictor.adapting else self.calibrations[predictor.run.folder.name]
            found[place[id(predictor)]].append(
                Figures(
                    list(_rows(predictor, condition, outcome, watch)),
                    list(scored_of(predictor.run, condition, outcome, len(self.data))),
                    list(_class_rows(predictor, condition, outcome)),
                    list(_judged(predictor, condition, outcome, calibration)),
                )
            )
        return [figures for own in found for figures in own]

    def _outcomes(
        self, advance: Callable[..., None]
    ) -> Iterator[tuple[Predictor, Condition, dict[str, Answers], Stopwatch]]:
        """Of each predictor under each condition; those that meet the same samples do so together, which are read
        and ruined once."""
        for together in _meeting_the_same(self.predictors):
            for condition in self.config.applied():
                watches = [Stopwatch(self.device) for _ in together]
                found = _answers(together, condition, self.data, self.config, self.device, advance, watches)
                yield from zip(together, itertools.repeat(condition), found, watches)

    def write(self, out: Path, rows: Sequence[Row]) -> None:
        """Tables, figures, answers.parquet, differences.csv, classes.csv, confidence.csv, corruptions.csv, and
        draws.csv: what every sample met."""
        write_rows(out / "results.csv", rows)
        write_rows(out / "classes.csv", self.by_class)
        lines, corrupted = summarise(rows), corruption_rows(rows)
        found = ladders.ladders(corrupted)
        texts = [markdown(lines, rows[0].samples, self.config.split, self._drawn()), *self._write_compared(out, lines)]
        texts += map(ladders.markdown, found)
        if self.judged:  # of clips with one label
            texts += write_confidence(out, self.judged, self.config.abstain_below)
            texts += write_by_audit(out, self.judged, list(self.data.ids), self.config.audit)
        write_text(out / "results.md", "\n\n".join(texts) + "\n")
        figure(lines, out / "results.png")
        for ladder in found:
            ladders.figure(ladder, out / f"{safe_name(ladder.protocol)}.png")
        if corrupted:
            write_rows(out / "corruptions.csv", corrupted)
        write_draws(out / "draws.csv", rows_drawn(self.predictors, self.data, self.config))

    def _drawn(self) -> str:
        return "those of one group stay together" if any(self.data.column("group").to_pylist()) else ""

    def _write_compared(self, out: Path, lines: Sequence[Line]) -> Iterator[str]:
        """answers.parquet, differences.csv and cost.png, with the parts of results.md that they are about."""
        points, gain = cost_points(self.comparison, lines)
        if self.comparison is not None:
            write_scored(out / ANSWERS_FILE, self.scored, self._samples)
            baseline = chosen_baseline([line.name for line in lines], self.config.baseline, BASELINES)
            if text := write_differences(out, self.comparison, compared_sets(self.comparison), baseline):
                yield text
        write_cost_figure(out / COST_FIGURE, points, gain)
        yield cost_markdown(points, gain, "finetune_noisy")


def prepare(runs: Sequence[FinishedRun], config: EvaluateConfig) -> ConditionEvaluation:
    """Load what an evaluation needs.

    Raises:
        InputError: a checkpoint of another backbone, labels that a model does not know, no such split; as
            `EvaluateConfig.require_one_noise`, `corruption_inputs` and `with_adapted`.
    """
    config.require_one_noise(run.config for run in runs)
    data_folder = config.data or first_data(runs)
    folder = at_hand(data_folder, config.split)
    config = config.model_copy(update={"data": folder})
    info = media_info(folder)
    inputs = {
        "runs": [run.folder.name for run in runs],
        "config": {k: v for k, v in content_settings(config).items() if k not in OF_CORRUPTIONS},
        "dataset": info.fingerprint(),
        **corruption_inputs(config, info, folder),
        **audit_fingerprint(config.audit),
    }
    calibrations = {run.folder.name: read_calibration(run) for run in runs}
    inputs |= {"calibrations": known} if (known := fingerprints(calibrations)) else {}
    device = local_rank().device
    predictors = tuple(run.recipe.load(run, device) for run in distinguish(runs) if run.recipe.load is not None)
    for predictor in predictors:
        predictor.backbone.net.alone = config.alone or predictor.backbone.net.config.alone
    predictors = with_adapted(predictors, config)
    chosen_baseline(lines_of(predictors), config.baseline, BASELINES)
    data = ShardDataset(folder, config.split, info=info)
    return ConditionEvaluation(config, data, predictors, inputs, data_folder.name, device, calibrations)


def lines_of(predictors: Sequence[Predictor]) -> list[str]:
    """The lines of the table that they will give."""
    return [line_name(p.run.method, selection) for p in predictors for selection in p.selections]


def rows_drawn(
    predictors: Sequence[Predictor], data: ShardDataset, config: EvaluateConfig
) -> Iterator[tuple[int, str, str, str, str]]:
    """What every sample met, once per seed: (seed, condition, id, audio, visual); see `write_draws`."""
    for predictor in {p.run.config.seed: p for p in predictors}.values():
        for condition in config.applied():
            items = items_under(predictor, condition, data, config)
            for i, name in enumerate(data.ids):
                yield predictor.run.config.seed, condition.name, name, *items.corruption(i)


def write_draws(path: Path, drawn: Iterator[tuple[int, str, str, str, str]]) -> None:
    """The masks and noise of an evaluation, one line per seed, condition and sample."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "condition", "id", "audio", "visual"])
        writer.writerows(drawn)


def corruption_inputs(config: EvaluateConfig, info: DatasetInfo, folder: Path) -> dict[str, Any]:
    """What corruptions add to the inputs of an evaluation: severities and the content of the files; nothing where
    there are none.

    Raises:
        InputError: the dataset lacks waveforms that they start from, or the files that they mix in are not there.
    """
    used = [condition.corruption for condition in config.applied() if condition.corruption is not None]
    if not used:
        return {}
    if any(corruption.sound is not None for corruption in used) and not info.preprocessing.get("wave"):
        message = "has no waveforms, which corruptions of the sound start from"
        raise InputError(message, file=folder, field="conditions", remedy="ingest the clips again with keep_wave=true")
    files = CorruptionFiles(config.recordings, config.overlays)
    return {"severities": list(config.severities), "files": files.fingerprint(used)}


def items_under(predictor: Predictor, condition: Condition, data: ShardDataset, config: EvaluateConfig) -> MediaItems:
    """The samples of `data` as a run meets them under a condition."""
    trained = predictor.run.config
    noise = (config.noise or trained.noise).build()
    backbone = predictor.backbone
    files = CorruptionFiles(config.recordings, config.overlays)
    form = TargetForm(several=predictor.several or several_labels(data))
    spec, names = input_spec(backbone), (condition.name,)
    return MediaItems(data, backbone.labels, spec, names, noise, trained.seed, form=form, files=files)


def _meeting_the_same(predictors: Sequence[Predictor]) -> list[list[Predictor]]:
    """Predictors by what decides the samples that they meet, and their order; the noise is that of all."""
    found: list[tuple[Any, list[Predictor]]] = []
    for predictor in predictors:
        seed, backbone = predictor.run.config.seed, predictor.backbone
        own = (seed, backbone.labels, input_spec(backbone), predictor.several, bool(predictor.adapting))
        together = next((others for met, others in found if met == own), None)
        if together is None:
            found.append((own, [predictor]))
        else:
            together.append(predictor)
    return [together for _, together in found]


class _Answering:
    """What becomes of a predictor's looks at the samples [N] of one condition."""

    def __init__(self, predictor: Predictor, condition: Condition, data: ShardDataset, samples: int, watch: Stopwatch):
        self.predictor, self.condition, self.data, self.watch = predictor, condition, data, watch
        self.samples, self.found, self.seen = samples, dict[str, MeanLogits](), [""] * samples

    def look(self, batch: AVBatch, rows: Sequence[int]) -> None:
        """Classify a batch, whose samples are these of the N.

        Raises:
            FloatingPointError: logits are NaN.
        """
        by_selection, _, observed = self.predictor.answer(batch, self.condition, self.watch)
        for at, name in zip(rows, observed, strict=True):
            self.seen[at] = self.seen[at] or name
        for selection, logits in by_selection.items():
            method = f"{self.predictor.run.method} {selection}".strip()
            check_logits(logits, batch.index, self.data, method, self.condition.name)
            mean = self.found.setdefault(selection, MeanLogits(self.samples, logits.shape[1], self.predictor.loss))
            mean.add(rows, logits.float().cpu())


@torch.inference_mode()
def _answers(
    together: Sequence[Predictor],
    condition: Condition,
    data: ShardDataset,
    config: EvaluateConfig,
    device: torch.device,
    advance: Callable[..., None],
    watches: Sequence[Stopwatch],
) -> list[dict[str, Answers]]:
    """By selection, of the samples with anything left, for each of those that meet the same ones; `watches` time
    their looks."""
    items = items_under(together[0], condition, data, config)
    keep = there = np.flatnonzero(testable(data.present, condition))
    answering = [_Answering(p, condition, data, len(there), w) for p, w in zip(together, watches, strict=True)]
    size = config.batch_size
    if together[0].adapting is not None:
        keep, size = stream_order(items, keep), config.adaptation.batch_size
    for predictor in together:
        if predictor.adapting is not None:
            predictor.adapting.begin()
    for frame in range(_passes(items, keep, config)):
        if config.frames == "all":
            items.frame, keep = frame, np.array([i for i in keep.tolist() if frame < items.frames(i)], keep.dtype)
        for batch in batches(items, keep, size, config.loaders, drop_last=False):
            batch = batch.to(device)
            rows = np.searchsorted(there, batch.index.numpy(force=True)).tolist()
            for one in answering:
                one.look(batch, rows)
                if not frame:
                    advance(len(batch), method=one.predictor.run.method)
    advance(len(together) * (len(data) - len(there)))
    label = items.targets.batch(there.tolist()) if len(there) else torch.zeros(0)
    index = torch.from_numpy(there)
    return [
        {selection: Answers.of(index, mean.logits(), label, one.seen) for selection, mean in one.found.items()}
        for one in answering
    ]


def _passes(items: MediaItems, keep: np.ndarray, config: EvaluateConfig) -> int:
    """How often a method looks at the samples."""
    return 1 if config.frames == "middle" else max((items.frames(i) for i in keep.tolist()), default=1)


def _judged(
    predictor: Predictor, condition: Condition, answers: Mapping[str, Answers], calibration: Calibration | None
) -> Iterator[Judged]:
    """Of clips with one label: confidence is that of a softmax."""
    run = predictor.run
    for selection, found in answers.items():
        if found.label.ndim == 1:
            own = (run.method, selection, run.config.seed, condition.name, run.folder.name)
            yield from judged(own, found, calibration)


def _metric(found: Answers) -> str:
    """What answers are judged by: "accuracy"; of clips with several labels "mAP"."""
    return "accuracy" if found.label.ndim == 1 else MEAN_AP


def _scores(found: Answers, loss: Loss) -> np.ndarray:
    """By which clips are ranked, float [N, C]: as probabilities, in the same order and without their ties."""
    return torch.from_numpy(found.logits).log_softmax(dim=1).numpy() if loss == "ce" else found.logits


def _rows(
    predictor: Predictor, condition: Condition, answers: Mapping[str, Answers], watch: Stopwatch
) -> Iterator[Row]:
    run, cost = predictor.run, run_cost(predictor)
    for selection, found in answers.items():
        if _metric(found) == MEAN_AP:
            share, occurring = mean_average_precision(found.label > 0, _scores(found, predictor.loss))
        else:
            share = occurring = int(found.right.sum()) / len(found.right)
        yield Row(
            method=run.method,
            selection=selection,
            seed=run.config.seed,
            condition=condition.name,
            accuracy=share,
            samples=len(found.label),
            trained=predictor.trained,
            parameters=predictor.parameters,
            run=run.folder.name,
            metric=_metric(found),
            occurring=occurring,
            inference_seconds=watch.per_clip(len(found.label), "", *([selection] if selection else [])),
            **cost,
        )


def _class_rows(predictor: Predictor, condition: Condition, answers: Mapping[str, Answers]) -> Iterator[ClassRow]:
    run = predictor.run
    for selection, found in answers.items():
        for label, share, count in _by_class(found, predictor.loss):
            name = predictor.backbone.labels[label]
            own = (run.method, selection, run.config.seed, condition.name, name)
            yield ClassRow(*own, share, count, "accuracy" if _metric(found) == "accuracy" else "AP")


def _by_class(found: Answers, loss: Loss) -> Iterator[tuple[int, float, int]]:
    """Classes that some clip has, with accuracy or average precision, and how many clips have them."""
    if _metric(found) == MEAN_AP:
        true = found.label > 0
        precisions, counts = class_average_precisions(true, _scores(found, loss)), true.sum(axis=0)
        yield from ((int(c), float(precisions[c]), int(counts[c])) for c in np.flatnonzero(counts))
        return
    for label in np.unique(found.label).tolist():
        own = found.right[found.label == label]
        yield label, int(own.sum()) / len(own), len(own)


def testable(present: np.ndarray, condition: Condition) -> np.ndarray:
    """Of which samples something is left under the condition, bool [S] (a silent clip has nothing without its
    picture).

    Args:
        present: bool [S, 2], in the order of `MODALITIES`.
    """
    return np.any(present[:, [m not in condition.missing for m in MODALITIES]], axis=1)


def check_logits(logits: Tensor, index: Tensor, data: ShardDataset, method: str, condition: str) -> None:
    """Refuse NaN [B, C], which argmax would count as the first class: a method read what is absent, or diverged.

    Raises:
        FloatingPointError: names method, condition and sample.
    """
    bad = logits.isnan().any(dim=1)
    if bool(bad.any()):
        first = data.ids[int(index[bad.nonzero()[0, 0]])]
        raise FloatingPointError(f"{method}: logits of sample '{first}' are NaN under {condition}")
