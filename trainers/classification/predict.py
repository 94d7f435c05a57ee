"""Trained runs as predictors: a batch and its condition in, logits out, per way of choosing the prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from configs.backbone import load_backbone
from models.backbone import Backbone
from models.batch import AVBatch
from models.conditions import CASES, Condition, case_of
from models.detector import QualityDetector
from models.prompts import DualPrompts, concatenate
from models.settings import MODALITIES
from models.tuned import Tuned
from shards.checkpoint import load_checkpoint
from shards.errors import InputError
from trainers.classification.config import CaseConfig
from trainers.classification.detector import load_detector
from trainers.classification.stages import build_case_module
from trainers.recipe import FinishedRun

SELECTIONS = ("situation", "concat", "detected")


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

    run: FinishedRun
    backbone: Backbone
    predict: Predict
    trained: int
    parameters: int


def load_finetuned(run: FinishedRun, device: torch.device) -> Predictor:
    """Load a finished run of `finetune`.

    Raises:
        InputError: its checkpoint is missing or damaged.
    """
    backbone = load_backbone(run.folder)
    net = backbone.net.to(device).eval()
    count = sum(p.numel() for p in net.parameters())

    def predict(batch: AVBatch, condition: Condition) -> dict[str, Tensor]:
        return {"": net(batch.audio, batch.visual, batch.present)}

    return Predictor(run, backbone, predict, count, count)


def load_case_wise(run: FinishedRun, device: torch.device) -> Predictor:
    """Load a finished run of prompts, LoRA or adapters, with its backbone and detector.

    Raises:
        InputError: a checkpoint is missing, damaged, or was made for another backbone.
    """
    config: Any = run.config
    backbone = load_backbone(run.locate(config.backbone))
    tuned: dict[str, Tuned] = {case: _load_case(run, config, backbone, case).to(device).eval() for case in config.cases}
    if missing := [case for case in CASES if case not in tuned]:
        message = f"was not trained on {', '.join(missing)}"
        raise InputError(message, file=run.folder, field="cases", remedy="train all four cases")
    detector = load_detector(run.folder).to(device)
    chooser = _Chooser(backbone, tuned, _concat(backbone, tuned, config, device), detector, config.depth)
    trained = sum(p.numel() for p in tuned["complete"].trained().values())
    return Predictor(run, backbone, chooser, trained, sum(p.numel() for p in backbone.net.parameters()))


def _load_case(run: FinishedRun, config: CaseConfig, backbone: Backbone, case: str) -> Tuned:
    checkpoint = load_checkpoint(run.folder / case, kind=config.recipe)
    if checkpoint.meta["backbone_fingerprint"] != backbone.fingerprint:
        remedy = "train it again on this backbone, or put the old backbone back"
        raise InputError(f"was trained on another backbone than {config.backbone}", file=run.folder, remedy=remedy)
    tuned = Tuned(backbone.net, build_case_module(config, backbone.net), config.head)
    try:
        tuned.load_trained(checkpoint.weights)
    except ValueError as error:
        raise InputError(str(error), file=run.folder / case, remedy="train the case again") from None
    return tuned


def _concat(backbone: Backbone, tuned: dict[str, Tuned], config: CaseConfig, device: torch.device) -> Tuned | None:
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
