"""Classification under conditions: every method on the same ruined input, condition by condition."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.conditions import CONDITIONS, Condition
from models.settings import MODALITIES
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import SampleMeta
from trainers.classification.config import EvaluateConfig
from trainers.classification.items import MediaItems
from trainers.classification.predict import Predictor
from trainers.classification.results import Row, figure, markdown, summarise
from trainers.classification.stages import input_spec, media_info
from trainers.data import batches
from trainers.distinguish import distinguish
from trainers.identity import content_settings
from trainers.loop import local_rank
from trainers.recipe import FinishedRun
from trainers.tables import write_rows


@dataclass(frozen=True)
class ConditionEvaluation:
    """Runs, conditions and samples of an evaluation; see `trainers.recipe.Evaluation`."""

    config: EvaluateConfig
    data: ShardDataset
    predictors: tuple[Predictor, ...]
    inputs: dict[str, Any]
    experiment: str
    device: torch.device

    @property
    def total(self) -> int:
        """Samples that the methods classify, over all conditions."""
        return len(self.predictors) * len(self.config.conditions) * len(self.data)

    def rows(self, advance: Callable[..., None]) -> list[Row]:
        """Accuracy by method, selection, seed and condition.

        Raises:
            InputError: no sample has anything left under any condition.
            FloatingPointError: a method's logits are NaN.
        """
        rows: list[Row] = []
        for predictor in self.predictors:
            for condition in _conditions(self.config):
                rows += _rows(predictor, condition, self.data, self.config, self.device, advance)
        if not rows:
            names = ", ".join(self.config.conditions)
            message = f"no sample of '{self.config.split}' has anything left under {names}"
            raise InputError(message, file=self.data.folder, field="conditions", remedy="evaluate other conditions")
        return rows

    def write(self, out: Path, rows: Sequence[Row]) -> None:
        """Tables, figure, and draws.csv: what every sample met."""
        write_rows(out / "results.csv", rows)
        lines = summarise(rows)
        text = markdown(lines, rows[0].samples, self.config.split)
        (out / "results.md").write_text(text + "\n", encoding="utf-8")
        figure(lines, out / "results.png")
        write_draws(out / "draws.csv", rows_drawn(self.predictors, self.data, self.config))


def prepare(runs: Sequence[FinishedRun], config: EvaluateConfig) -> ConditionEvaluation:
    """Load what an evaluation needs.

    Raises:
        InputError: a checkpoint of another backbone, labels that a model does not know, no such split.
    """
    folder = (config.data or runs[0].locate(runs[0].config.data)).absolute()
    config = config.model_copy(update={"data": folder})
    info = media_info(folder)
    inputs = {
        "runs": [run.folder.name for run in runs],
        "config": content_settings(config),
        "dataset": info.fingerprint(),
    }
    device = local_rank().device
    predictors = tuple(run.recipe.load(run, device) for run in distinguish(runs) if run.recipe.load is not None)
    data = ShardDataset(folder, config.split, info=info)
    return ConditionEvaluation(config, data, predictors, inputs, folder.name, device)


def rows_drawn(
    predictors: Sequence[Predictor], data: ShardDataset, config: EvaluateConfig
) -> Iterator[tuple[int, str, str, str, str]]:
    """What every sample met, once per seed: (seed, condition, id, audio, visual); see `write_draws`."""
    for predictor in {p.run.config.seed: p for p in predictors}.values():
        for condition in _conditions(config):
            items = items_under(predictor, condition, data, config)
            for i, meta in enumerate(data.metas):
                yield predictor.run.config.seed, condition.name, meta.id, *items.corruption(i)


def write_draws(path: Path, drawn: Iterator[tuple[int, str, str, str, str]]) -> None:
    """The masks and noise of an evaluation, one line per seed, condition and sample."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "condition", "id", "audio", "visual"])
        writer.writerows(drawn)


def _conditions(config: EvaluateConfig) -> list[Condition]:
    return [CONDITIONS[c] for c in config.conditions]


def items_under(predictor: Predictor, condition: Condition, data: ShardDataset, config: EvaluateConfig) -> MediaItems:
    """The samples of `data` as a run meets them under a condition."""
    trained = predictor.run.config
    noise = (config.noise or trained.noise).build()
    backbone = predictor.backbone
    return MediaItems(data, backbone.labels, input_spec(backbone), (condition.name,), noise, trained.seed)


@torch.inference_mode()
def _rows(
    predictor: Predictor,
    condition: Condition,
    data: ShardDataset,
    config: EvaluateConfig,
    device: torch.device,
    advance: Callable[..., None],
) -> list[Row]:
    items = items_under(predictor, condition, data, config)
    keep = [i for i, meta in enumerate(data.metas) if testable(meta, condition)]
    right: dict[str, int] = {}
    for batch in batches(items, keep, config.batch_size, config.loaders, drop_last=False):
        batch = batch.to(device)
        for selection, logits in predictor.predict(batch, condition).items():
            check_logits(logits, batch.index, data, f"{predictor.run.method} {selection}".strip(), condition.name)
            hits = int((logits.argmax(dim=1) == batch.label).sum())
            right[selection] = right.get(selection, 0) + hits
        advance(len(batch), method=predictor.run.method)
    advance(len(data) - len(keep))
    run, cost = predictor.run, predictor.run.cost()
    return [
        Row(
            method=run.method,
            selection=selection,
            seed=run.config.seed,
            condition=condition.name,
            accuracy=hits / len(keep),
            samples=len(keep),
            trained=predictor.trained,
            parameters=predictor.parameters,
            run=run.folder.name,
            **cost,
        )
        for selection, hits in right.items()
    ]


def testable(meta: SampleMeta, condition: Condition) -> bool:
    """Something of the sample is left under the condition (a silent clip has nothing without its picture)."""
    return any(getattr(meta, m).present and m not in condition.missing for m in MODALITIES)


def check_logits(logits: Tensor, index: Tensor, data: ShardDataset, method: str, condition: str) -> None:
    """Refuse NaN [B, C], which argmax would count as the first class: a method read what is absent, or diverged.

    Raises:
        FloatingPointError: names method, condition and sample.
    """
    bad = logits.isnan().any(dim=1)
    if bool(bad.any()):
        first = data.metas[int(index[bad.nonzero()[0, 0]])].id
        raise FloatingPointError(f"{method}: logits of sample '{first}' are NaN under {condition}")
