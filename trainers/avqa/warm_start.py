"""Where the parts of a question-answering run start from: earlier runs, or training samples (slots)."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.avqa.answerer import Answerer
from models.avqa.batch import AVQABatch
from models.avqa.contract import HoldsSamples
from models.avqa.networks import NETWORKS
from models.avqa.recovery.rmm import RMM
from shards.checkpoint import Checkpoint, checkpoint_in, checkpoint_meta, has_checkpoint, load_checkpoint, to_ask
from shards.errors import InputError
from shards.sequence import StepChoice
from shards.stored_folder import reading
from trainers.avqa.clips import Clips
from trainers.avqa.config import AVQAConfig, QuestionConfig
from trainers.avqa.items import QuestionItems
from trainers.data import shuffled_subset

KIND = "avqa"  # of the checkpoints
RECIPES = ("avqa", "recovery", "rmm", "avr")  # whose stages make them
IMPORTED = "imported"  # in the checkpoint of a published network: how it reads its inputs
READING = ("standardise", "steps", "steps_at")  # settings of that
EARLIER = "calls"  # how often AVR had drawn noise: no weight, in checkpoints of earlier versions
SAMPLES = 64  # training samples from which slots start


def answerer_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint of a run of one of `RECIPES`: `folder` is the run's, or the checkpoint's own.

    Raises:
        InputError: nothing there, or something else.
    """
    found = load_checkpoint(_checkpoint_folder(folder), kind=KIND)
    return replace(found, weights={n: x for n, x in found.weights.items() if n.rpartition(".")[2] != EARLIER})


def _checkpoint_folder(folder: Path) -> Path:
    here = reading(folder, to_ask)
    recipe = next((name for name in RECIPES if has_checkpoint(here / name)), None)
    return here if recipe is None else checkpoint_in(here, recipe)


def start_runs(config: AVQAConfig) -> list[Path]:
    """The runs that a run starts from."""
    return [*([config.network_from] if config.network_from is not None else []), *config.recovery_from]


def published_start(config: QuestionConfig) -> dict[str, Any] | None:
    """What the checkpoint of a published network that the run starts from says; None where it starts from none. Its
    words and answers, in their order, become the run's.

    Raises:
        InputError: no checkpoint there, or a text tower whose weights only such a network has.
    """
    folder, sizes = getattr(config, "network_from", None), getattr(config, "sizes", {})
    meta = None if folder is None else checkpoint_meta(_checkpoint_folder(folder))[0]
    if meta is not None and IMPORTED in meta:
        return meta
    if getattr(config, "network", None) == "pstp" and sizes.get("text", "lstm") != "lstm":
        remedy = "start from an imported PSTP-Net (network_from=RUN), or leave sizes.text out"
        raise InputError("CLIP's text tower has weights of its own", field="sizes.text", remedy=remedy)
    return None


def check_reading(config: AVQAConfig, meta: Mapping[str, Any], stored: int) -> None:
    """Refuse settings by which the weights of a published network would answer otherwise than published.

    Args:
        meta: of its checkpoint.
        stored: time steps of the features.

    Raises:
        InputError: says which settings to give.
    """
    theirs, design = meta[IMPORTED], meta["design"]
    own = {name: p.default for name, p in inspect.signature(NETWORKS[design["network"]]).parameters.items()}
    own |= config.sizes
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}
    wrong = {} if config.network == design["network"] else {"network": design["network"]}
    wrong |= {f"sizes.{name}": value for name, value in design["sizes"].items() if plain.get(name) != value}
    if config.standardise != theirs["standardise"]:
        wrong["standardise"] = theirs["standardise"]
    if config.choice.of(stored) != StepChoice(theirs["steps"], theirs["steps_at"]).of(stored):
        wrong |= {name: theirs[name] for name in ("steps", "steps_at")}
    if wrong:
        remedy = "give " + " ".join(f"{k}={json.dumps(v).strip(chr(34))}" for k, v in wrong.items())
        message = "is a published network, which reads its inputs otherwise than these settings"
        raise InputError(message, file=config.network_from, field="network_from", remedy=remedy)


def memorise(answerer: Answerer, train: QuestionItems) -> None:
    """Let slots start from training samples that are complete, where the method has slots.

    Raises:
        InputError: none is.
    """
    rmm = getattr(answerer.recovery, "rmm", answerer.recovery)
    if isinstance(rmm, RMM):
        batch = _complete_samples(answerer, train, "memorise", SAMPLES, "leave memorise out")
        rmm.memorise(batch.audio, batch.visual, batch.question, train.seed)


def fill_bank(answerer: Answerer, train: QuestionItems) -> None:
    """Give a method that holds training samples those that it is to hold.

    Raises:
        InputError: fewer training samples are complete.
    """
    bank = answerer.recovery
    if not isinstance(bank, HoldsSamples):
        return
    batch = _complete_samples(answerer, train, "bank", bank.samples, "choose another recovery method")
    if (found := len(batch)) < bank.samples:
        message = f"{bank.samples} complete training samples are to be held, there are {found}"
        raise InputError(message, field="recovery_sizes.samples", remedy=f"give {found} or fewer")
    bank.fill(batch.audio, batch.visual, batch.question)


def no_complete_clip(clips: Clips, remedy: str) -> InputError:
    """What is wrong where no training clip has both modalities; `remedy` beside training on others."""
    remedy = f"train on clips that have both, lower the rates of train_missing, or {remedy}"
    return InputError("no training clip has both modalities", file=clips.folder, field="data", remedy=remedy)


def _complete_samples(answerer: Answerer, train: QuestionItems, purpose: str, most: int, remedy: str) -> AVQABatch:
    """Complete samples of those that are trained on, drawn by the run's seed and standardised."""
    order = shuffled_subset(train.ids, train.seed, train.proportion, purpose)
    whole = order[train.present[train.numbers[order]].all(axis=1)][:most].tolist()
    if not whole:
        raise no_complete_clip(train.clips, remedy)
    return answerer.standardise(train.batch(whole))


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
        if name == "extractor" and IMPORTED in start.meta and not start.meta[name]:
            continue  # imported without features
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
