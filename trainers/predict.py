"""Trained runs as predictors: a batch and its condition in, logits out, per way of choosing the prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.backbone import load_backbone
from models.backbone import Backbone
from models.batch import AVBatch
from models.cavmae import MODALITIES
from models.conditions import CASES, Condition, case_of
from models.detector import QualityDetector
from models.prompts import DualPrompts, concatenate
from models.tuned import Tuned
from shards.checkpoint import load_checkpoint
from shards.errors import InputError
from trainers.classification.detector import load_detector
from trainers.config import CaseConfig, TrainConfig
from trainers.identity import EXECUTION_FIELDS
from trainers.recipes import RECIPES, build_case_module

_SAME_METHOD = EXECUTION_FIELDS | {"depth"}
SELECTIONS = ("situation", "concat", "detected")


@dataclass(frozen=True)
class Trained:
    """A finished run as its folder tells it."""

    folder: Path
    recipe: str
    config: TrainConfig
    differs: str = ""

    @property
    def method(self) -> str:
        """Its name in tables: the recipe, for case-wise ones the depth if it is not 0, and what tells it
        from other runs of that name."""
        depth = getattr(self.config, "depth", 0)
        name = f"{self.recipe} k={depth}" if depth else self.recipe
        return f"{name} {self.differs}" if self.differs else name

    def settings(self) -> dict[str, Any]:
        """What makes two runs of one recipe different methods: all of the config but where it ran, the
        seed, and the paths, which go with the seed."""
        return {k: v for k, v in self.config if k not in _SAME_METHOD and not isinstance(v, Path)}


def read_run(folder: Path) -> Trained:
    """What `avmend train` wrote about a run.

    Raises:
        InputError: this is no run's folder.
    """
    path = Path(folder) / "config.json"
    try:
        record = json.loads(path.read_text())
        config = RECIPES[record["config"]["recipe"]].model_validate(record["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "give the folder that 'avmend train' printed"
        raise InputError(f"no run here: {error}", file=path, field="runs", remedy=remedy) from None
    return Trained(Path(folder), record["recipe"], config)


def tell_apart(runs: Sequence[Trained]) -> list[Trained]:
    """The runs, with the settings that differ added to the names of those that would share one.

    Raises:
        InputError: two runs of one seed differ in nothing that a table could show.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run.method, []).append(run.settings())
    out = [replace(run, differs=_differing(run.settings(), groups[run.method])) for run in runs]
    seen: dict[tuple[str, int], Path] = {}
    for run in out:
        first = seen.setdefault((run.method, run.config.seed), run.folder)
        if first != run.folder:
            message = f"{run.folder.name} and {first.name} are the same method with the same seed"
            raise InputError(message, file=run.folder, field="runs", remedy="evaluate one of them")
    return out


def _differing(own: dict[str, Any], others: Sequence[dict[str, Any]]) -> str:
    keys = [key for key, value in own.items() if any(other.get(key) != value for other in others)]
    return " ".join(f"{key}={own[key]}" for key in keys)


Predict = Callable[[AVBatch, Condition], dict[str, Tensor]]  # logits [B, C] per selection ("" : none to choose)


@dataclass(frozen=True)
class Predictor:
    """A run ready to classify.

    Attributes:
        run: where it comes from.
        backbone: network, labels, normalisation.
        predict: logits by selection.
        trained, parameters: how many parameters were trained per case, and the backbone's.
    """

    run: Trained
    backbone: Backbone
    predict: Predict
    trained: int
    parameters: int


def load_predictor(run: Trained, device: torch.device) -> Predictor:
    """Load a finished run.

    Raises:
        InputError: a checkpoint of it is missing, damaged, or was made for another backbone.
    """
    if isinstance(run.config, CaseConfig):
        return _case_wise(run, run.config, device)
    backbone = load_backbone(run.folder)
    net = backbone.net.to(device).eval()
    count = sum(p.numel() for p in net.parameters())

    def predict(batch: AVBatch, condition: Condition) -> dict[str, Tensor]:
        return {"": net(batch.audio, batch.visual, batch.present)}

    return Predictor(run, backbone, predict, count, count)


def _case_wise(run: Trained, config: CaseConfig, device: torch.device) -> Predictor:
    backbone = load_backbone(config.backbone)
    tuned: dict[str, Tuned] = {case: _load_case(run, config, backbone, case).to(device).eval() for case in config.cases}
    if missing := [case for case in CASES if case not in tuned]:
        message = f"was not trained on {', '.join(missing)}"
        raise InputError(message, file=run.folder, field="cases", remedy="train all four cases")
    detector = load_detector(run.folder).to(device)
    chooser = _Chooser(backbone, tuned, _concat(backbone, tuned, config, device), detector, config.depth)
    trained = sum(p.numel() for p in tuned["complete"].trained().values())
    return Predictor(run, backbone, chooser, trained, sum(p.numel() for p in backbone.net.parameters()))


def _load_case(run: Trained, config: CaseConfig, backbone: Backbone, case: str) -> Tuned:
    checkpoint = load_checkpoint(run.folder / case, kind=config.recipe)  # type: ignore[attr-defined]
    if checkpoint.meta["backbone_fingerprint"] != backbone.fingerprint:
        remedy = "train it again on this backbone, or put the old backbone back"
        raise InputError(f"was trained on another backbone than {config.backbone}", file=run.folder, remedy=remedy)
    tuned = Tuned(backbone.net, build_case_module(config, backbone.net), config.head)
    try:
        tuned.load_trained(checkpoint.weights)
    except ValueError as error:
        raise InputError(str(error), file=run.folder / case, remedy="train the case again") from None
    return tuned


def _concat(backbone: Backbone, tuned: dict[str, Tuned], config: CaseConfig, device) -> Tuned | None:
    """All four sets at once; only prompts can be put side by side, and only with one head."""
    modules = [tuned[case].module for case in CASES]
    sets = [m for m in modules if isinstance(m, DualPrompts)]
    if len(sets) != len(CASES) or config.head:
        return None
    return Tuned(backbone.net, concatenate(sets, backbone.net.config)).to(device).eval()


@dataclass(frozen=True)
class _Chooser:
    """Case-wise prediction: the encoders up to `depth` run once, then every selection's choice from there."""

    backbone: Backbone
    tuned: dict[str, Tuned]
    concat: Tuned | None
    detector: QualityDetector
    depth: int

    def __call__(self, batch: AVBatch, condition: Condition) -> dict[str, Tensor]:
        audio, visual = self.backbone.net.tokens_at(self.depth, batch.audio, batch.visual, batch.present)
        out = {"situation": self.tuned[condition.case](audio, visual, batch.present, self.depth)}
        if self.concat is not None:
            out["concat"] = self.concat(audio, visual, batch.present, self.depth)
        out["detected"] = self._detected(audio, visual, batch.present)
        return out

    def _detected(self, audio: Tensor, visual: Tensor, present: Tensor) -> Tensor:
        cases = detect(self.detector, audio, visual, present)
        logits = audio.new_empty(len(audio), self.backbone.net.classes)
        for case in sorted(set(cases)):
            rows = torch.tensor([c == case for c in cases], device=audio.device).nonzero().squeeze(1)
            logits[rows] = self.tuned[case](audio[rows], visual[rows], present[rows], self.depth)
        return logits


def detect(detector: QualityDetector, audio: Tensor, visual: Tensor, present: Tensor) -> list[str]:
    """The case of every sample, without an oracle: a modality is ruined if it is absent or the detector says
    so."""
    ruined = ~present
    for column, (modality, tokens) in enumerate(zip(MODALITIES, (audio, visual), strict=True)):
        there = present[:, column]
        if bool(there.any()):
            ruined[there, column] = detector(modality, tokens[there]) > 0
    return [case_of(a, v) for a, v in ruined.tolist()]


def describe(run: Trained) -> dict[str, Any]:
    """A run's cost as its logs tell: mean seconds per epoch and peak MiB over stages."""
    from trainers.journal import read_metrics
    from trainers.recipes import stage_names
    from trainers.run import logs

    lines = [line.metrics for part in stage_names(run.config) for line in read_metrics(logs(run.folder, part))]
    if not lines:
        remedy = "give the folder that 'avmend train' made, logs and all"
        raise InputError("has no metrics of its training", file=run.folder / "logs", remedy=remedy)
    return {
        "epoch_seconds": sum(line["epoch_seconds"] for line in lines) / len(lines),
        "peak_memory_mb": max(line["peak_memory_mb"] for line in lines),
    }
