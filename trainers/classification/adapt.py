"""Test-time adaptation of finished runs: a further predictor per run and adaptation, and the order of its stream.

Here a sample's answer depends on those that came before it and with it, on purpose. Labels are not among what an
adaptation gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from models.adaptation import ADAPTATIONS
from models.adaptation.adapting import Adapting
from models.batch import AVBatch
from models.conditions import Condition
from shards.errors import InputError, nearest
from trainers.classification.config import EvaluateConfig
from trainers.classification.items import MediaItems
from trainers.classification.predict import Predictor
from trainers.draws import shuffled


def with_adapted(predictors: Sequence[Predictor], config: EvaluateConfig) -> tuple[Predictor, ...]:
    """The predictors, each followed by those of it that adapt.

    Raises:
        InputError: an adaptation of which no run has what it adapts, an unknown method, settings that don't go with
            it, clips with several labels.
    """
    if not config.adapt:
        return tuple(predictors)
    if config.frames == "all":
        message = "adapts to one picture of every clip"
        raise InputError(message, field="adapt", remedy="leave frames=all out, or adapt")
    names = dict.fromkeys(name for predictor in predictors for name in (predictor.run.name, predictor.run.method))
    if unknown := [name for name in config.adapted or () if name not in names]:
        remedy = f"{nearest(unknown[0], names)}methods of these runs: {', '.join(names)}"
        raise InputError(f"no method '{unknown[0]}'", field="adapted", remedy=remedy)
    found: dict[str, list[Predictor]] = {name: [] for name in config.adapt}
    out = []
    for predictor in predictors:
        out.append(predictor)
        if config.adapted is None or {predictor.run.name, predictor.run.method} & set(config.adapted):
            for name, adapted in _adapted(predictor, config):
                found[name].append(adapted)
                out.append(adapted)
    if idle := [name for name, own in found.items() if not own]:
        message = f"none of these runs has what '{idle[0]}' adapts"
        raise InputError(message, field="adapt", remedy="read and tent adapt finetune and fuse, prompts adapts prompt")
    return tuple(out)


def _adapted(predictor: Predictor, config: EvaluateConfig) -> Iterator[tuple[str, Predictor]]:
    """Those adaptations that a run has something for."""
    for name in config.adapt:
        method, model, stream = ADAPTATIONS[name](), predictor.adaptable, config.adaptation
        if model is None or not method.parameters(model):
            continue
        if predictor.several:
            message = "was trained on clips with several labels, of which there is no one most probable"
            raise InputError(message, file=predictor.run.folder, field="adapt", remedy="leave adapt out")
        adapting = Adapting(model, method, stream.lr, stream.steps, stream.episodic)
        differs = f"{predictor.run.differs} + {method.label}".strip()
        own = {"run": replace(predictor.run, differs=differs), "predict": _predicting(adapting), "adapting": adapting}
        yield name, replace(predictor, **own, choose=None, selections=("",))


def _predicting(adapting: Adapting):
    def predict(batch: AVBatch, condition: Condition) -> dict[str, Tensor]:
        return {"": adapting(batch.audio, batch.visual, batch.present)}

    return predict


def stream_order(items: MediaItems, kept: np.ndarray) -> np.ndarray:
    """The positions in the order in which an adapting network meets them: by the run's seed and the samples' ids."""
    order, there = shuffled(items.ids, "stream", items.seed), np.zeros(len(items), bool)
    there[kept] = True
    return order[there[order]]
