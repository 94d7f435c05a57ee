"""Where the parts of a question-answering run start from: earlier runs, or training samples (slots)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.avqa.answerer import Answerer
from models.avqa.batch import AVQABatch
from models.avqa.contract import HoldsSamples
from models.avqa.recovery.rmm import RMM
from shards.checkpoint import Checkpoint, checkpoint_in, has_checkpoint, load_checkpoint
from shards.errors import InputError
from trainers.avqa.config import AVQAConfig
from trainers.avqa.items import QuestionItems
from trainers.draws import shuffled

KIND = "avqa"  # of the checkpoints
RECIPES = ("avqa", "recovery", "rmm", "avr")  # whose stages make them
SAMPLES = 64  # training samples from which slots start


def answerer_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint of a run of one of `RECIPES`: `folder` is the run's, or the checkpoint's own.

    Raises:
        InputError: nothing there, or something else.
    """
    for recipe in RECIPES:
        if has_checkpoint(Path(folder) / recipe):
            return load_checkpoint(checkpoint_in(folder, recipe), kind=KIND)
    return load_checkpoint(folder, kind=KIND)


def start_runs(config: AVQAConfig) -> list[Path]:
    """The runs that a run starts from."""
    return [*([config.network_from] if config.network_from is not None else []), *config.recovery_from]


def memorise(answerer: Answerer, train: QuestionItems) -> None:
    """Let slots start from training samples that are complete, where the method has slots."""
    rmm = getattr(answerer.recovery, "rmm", answerer.recovery)
    if isinstance(rmm, RMM) and (batch := _complete_samples(answerer, train, "memorise", SAMPLES)):
        rmm.memorise(batch.audio, batch.visual, batch.question, train.seed)


def fill_bank(answerer: Answerer, train: QuestionItems) -> None:
    """Give a method that holds training samples those that it is to hold.

    Raises:
        InputError: no training sample is complete.
    """
    bank = answerer.recovery
    if not isinstance(bank, HoldsSamples):
        return
    batch = _complete_samples(answerer, train, "bank", bank.samples)
    if batch is None:
        remedy = "train on clips that have both modalities, or choose another recovery method"
        raise InputError("no training clip has both modalities", file=train.clips.folder, remedy=remedy)
    bank.fill(batch.audio, batch.visual, batch.question)


def _complete_samples(answerer: Answerer, train: QuestionItems, purpose: str, most: int) -> AVQABatch | None:
    """Complete training samples, drawn by the run's seed and standardised; None where there are none."""
    order = shuffled(train.ids, purpose, train.seed).tolist()
    whole = [i for i in order if train.clips.present[train.numbers[i]].all()][:most]
    return answerer.standardise(train.batch(whole)) if whole else None


def start_from_runs(answerer: Answerer, config: AVQAConfig, meta: Mapping[str, Any]) -> None:
    """Put the weights of `network_from` and `recovery_from` in; `meta` is what our own checkpoint will say.

    Raises:
        InputError: a run's part is of another kind or size, or knows other words, answers or features.
    """
    if config.network_from is not None:
        start = _fitting(config.network_from, "network_from", meta)
        _adopt(answerer, start, config.network_from, "network", "network.")
    for folder in config.recovery_from:
        start = _fitting(folder, "recovery_from", meta)
        theirs = start.meta["design"]["recovery"]
        part_of_ours = theirs != config.recovery and hasattr(answerer.recovery, theirs)  # of a composition
        inner = f"{theirs}." if part_of_ours else ""
        _adopt(answerer, start, folder, "recovery", f"recovery.{inner}")


def _fitting(folder: Path, field: str, meta: Mapping[str, Any]) -> Checkpoint:
    start = answerer_checkpoint(folder)
    for name in ("vocabulary", "extractor", "scale"):
        if json.dumps(start.meta[name]) != json.dumps(meta[name]):
            remedy = "start from a run on the same questions and features"
            raise InputError(f"was trained with another {name}", file=folder, field=field, remedy=remedy)
    return start


def _adopt(answerer: Answerer, start: Checkpoint, folder: Path, part: str, ours: str) -> None:
    """Copy the weights of a run's `part` to those below `ours`."""
    state = {
        ours + name.removeprefix(f"{part}."): x for name, x in start.weights.items() if name.startswith(f"{part}.")
    }
    added = tuple(f"{ours}{name}." for name in getattr(getattr(answerer, part), "added", ()))
    own = {
        name: x
        for name, x in answerer.state_dict().items()
        if name.startswith(ours) and (name in state or not name.startswith(added))  # what is added may begin anew
    }
    wrong = sorted(own.keys() ^ state.keys()) or [n for n in own if own[n].shape != state[n].shape]
    if wrong or not state:
        message = f"its {part} does not fit: {', '.join(wrong[:3]) or 'it has none'}"
        remedy = "start from a run of the same kind and sizes"
        raise InputError(message, file=folder, field=f"{part}_from", remedy=remedy)
    answerer.load_state_dict({**answerer.state_dict(), **state})
