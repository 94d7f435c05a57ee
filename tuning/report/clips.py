"""A few clips of an evaluation: frame, spectrogram and every method's answer, under every condition.

Nothing is kept of single answers when runs are evaluated, so a few are given again here: from the shards and
the runs' checkpoints, on a CPU, of the first seed. Where those are not here any more, a line says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from models.batch import AVBatch
from models.conditions import CONDITIONS, Condition
from models.noise import generator
from pipelines.thumbnails import heat, photo
from shards.errors import InputError
from shards.reader import ShardDataset
from trainers.classification.config import EvaluateConfig
from trainers.classification.evaluate import items_under, testable
from trainers.classification.predict import Predictor
from trainers.data import collate
from trainers.runs import read_run
from tuning.report.evaluations import Evaluation
from tuning.report.parts import Answer, Block, Clip, Text, View
from tuning.steps import config_at

CPU = torch.device("cpu")
LEAD = (
    "A few clips, drawn at random over the classes, as the methods of the first seed met them; crossed out: "
    "taken away, or never there."
)


def clip_blocks(draw: Callable[[Evaluation, int], Sequence[Clip]], found: Evaluation, count: int) -> tuple[Block, ...]:
    """`count` clips as `draw` makes them; or the line that says why there are none."""
    try:
        return (Text(LEAD), *draw(found, count))
    except (InputError, OSError) as error:
        reason = error.message if isinstance(error, InputError) else error.strerror
        where = getattr(error, "file", None) or getattr(error, "filename", None)
        said = f"No clips are shown: shards or checkpoints are not here as they were ({where}: {reason})."
        return (Text(said, warn=True),)


def first_seed(rows: Sequence[object]) -> dict[str, str]:
    """The runs of the lowest seed -> what they are called, as they were trained (rows of what adapts follow)."""
    with_run = [row for row in rows if row.run]  # type: ignore[attr-defined]
    lowest = min(row.seed for row in with_run)  # type: ignore[attr-defined]
    out: dict[str, str] = {}
    for row in with_run:
        if row.seed == lowest:  # type: ignore[attr-defined]
            out.setdefault(row.run, row.method)  # type: ignore[attr-defined]
    return out


def load_run(folder: Path) -> Any:
    """A finished run, ready to be asked on a CPU.

    Raises:
        InputError: it is not here as it was.
    """
    run = read_run(folder)
    if run.recipe.load is None:
        raise InputError("answers nothing by itself", file=folder)
    return run.recipe.load(run, CPU)


def classified_clips(found: Evaluation, count: int) -> tuple[Clip, ...]:
    """A few clips of a classification's evaluation as its methods met them, with their answers."""
    if not found.config:
        raise InputError("the evaluation's folder is not here", file=found.name)
    config = config_at("evaluation", EvaluateConfig, found.config)
    assert config.data is not None
    data = ShardDataset(config.data, config.split)
    conditions = [CONDITIONS[c].ladder((max(config.severities),))[0] for c in config.conditions]  # the worst of each
    chosen = choose_clips(data, conditions, count)
    predictors = {}
    for run, method in first_seed(found.rows).items():
        predictors[method] = load_run(found.runs[run])
    views: list[list[View]] = [[] for _ in chosen]
    scale: list[tuple[float, float]] | None = None
    for condition in conditions:
        shown = _Shown.of(predictors, condition, data, chosen, config)
        scale = scale or shown.scales()
        for at, view in enumerate(shown.views(scale)):
            views[at].append(view)
    return tuple(
        Clip(data.ids[i], f"It is: {', '.join(data.metas[i].labels)}", tuple(v))
        for i, v in zip(chosen, views, strict=True)
    )


def choose_clips(data: ShardDataset, conditions: Sequence[Condition], count: int) -> list[int]:
    """Positions of `count` clips: a seeded draw, of other classes first; of those that can be shown under
    all of the conditions if there are enough."""
    order = generator("clips of a report", len(data)).permutation(len(data))
    left = np.stack([testable(data.present, c) for c in conditions], axis=1)  # [S, conditions]
    order = order[np.argsort(~left[order].all(axis=1), kind="stable")]
    labels = pc.list_element(data.column("labels"), 0).dictionary_encode().combine_chunks().indices.to_numpy()
    _, first = np.unique(labels[order], return_index=True)
    ranked = order[np.concatenate([np.sort(first), np.delete(np.arange(len(order)), first)])]
    return ranked[left[ranked].any(axis=1)][:count].tolist()


@dataclass(frozen=True)
class _Shown:
    """Some clips under one condition.

    Attributes:
        batch: as the first method met them, audio [B, T, 128], visual [B, 3, S, S].
        truth: the labels of every clip.
        said: method, with its selection -> by clip its best labels, as many as the clip has.
    """

    condition: Condition
    predictor: Predictor
    batch: AVBatch
    fates: list[tuple[str, str]]
    truth: list[tuple[str, ...]]
    said: dict[str, list[tuple[str, ...]]]

    @classmethod
    @torch.inference_mode()
    def of(
        cls,
        predictors: dict[str, Predictor],
        condition: Condition,
        data: ShardDataset,
        chosen: list[int],
        config: EvaluateConfig,
    ) -> _Shown:
        """Ask every method."""
        said: dict[str, list[tuple[str, ...]]] = {}
        truth = [data.metas[i].labels for i in chosen]
        batches: dict[str, AVBatch] = {}
        for method, predictor in predictors.items():
            items = items_under(predictor, condition, data, config)
            batches[method] = batch = collate([items[i] for i in chosen])
            for selection, logits in _logits(predictor, batch, condition).items():
                ranked = logits.argsort(dim=1, descending=True).tolist()
                known = predictor.backbone.labels
                labels = [tuple(known[j] for j in row[: len(t)]) for row, t in zip(ranked, truth, strict=True)]
                said[f"{method}, {selection}" if selection else method] = labels
        first = next(iter(predictors))
        fates = [items_under(predictors[first], condition, data, config).corruption(i) for i in chosen]
        return cls(condition, predictors[first], batches[first], fates, truth, said)

    def scales(self) -> list[tuple[float, float]]:
        """Darkest and brightest log-mel of every clip, for all of its spectrograms."""
        return [
            (float(x.min()), float(x.max())) if bool(there[0]) else (-1.0, 1.0)
            for x, there in zip(self.batch.audio, self.batch.present, strict=True)
        ]

    def views(self, scales: list[tuple[float, float]]) -> Iterator[View]:
        """One per clip."""
        for i, scale in enumerate(scales):
            hears, sees = self.batch.present[i].tolist()
            yield View(
                self.condition.name.replace("_", " ").replace("-", " "),
                photo(self.predictor.backbone.normalisation.pixels(self.batch.visual[i])) if sees else None,
                heat(self.batch.audio[i].numpy(), *scale) if hears else None,
                "; ".join(
                    f"{m}: {fate.replace('_', ' ')}"
                    for m, fate in zip(("sound", "picture"), self.fates[i], strict=True)
                ),
                tuple(_answer(name, labels[i], self.truth[i], hears or sees) for name, labels in self.said.items()),
            )


def _answer(method: str, labels: tuple[str, ...], truth: tuple[str, ...], there: bool) -> Answer:
    right = set(labels) == set(truth)
    return Answer(method, ", ".join(labels), right) if there else Answer(method, "nothing left", None)


def _logits(predictor: Predictor, batch: AVBatch, condition: Condition) -> dict[str, Tensor]:
    """As `Predictor.predict`; the clips of which nothing is left are not asked about."""
    left = batch.present.any(dim=1)
    rows = batch.select(left)
    out = {}
    for selection, logits in predictor.predict(rows, condition).items():
        out[selection] = logits.new_zeros(len(batch), logits.shape[1])
        out[selection][left] = logits
    return out
