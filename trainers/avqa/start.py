"""Where the parts of a question-answering run start from: earlier runs, or training samples (slots)."""

from __future__ import annotations

from pathlib import Path

from models.avqa.answerer import Answerer
from models.noise import generator
from shards.checkpoint import Checkpoint, checkpoint_in, has_checkpoint, load_checkpoint
from shards.errors import InputError
from trainers.avqa.config import AVQAConfig
from trainers.avqa.items import QuestionItems
from trainers.data import collate

KIND = "avqa"  # of the checkpoints
RECIPES = ("avqa", "rmm", "avr")  # whose stages make them
SAMPLES = 64  # training samples from which slots start


def answerer_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint of a run of `avqa`, `rmm` or `avr`: `folder` is the run's, or the checkpoint's own.

    Raises:
        InputError: nothing there, or something else.
    """
    for recipe in RECIPES:
        if has_checkpoint(Path(folder) / recipe):
            return load_checkpoint(checkpoint_in(folder, recipe), kind=KIND)
    return load_checkpoint(folder, kind=KIND)


def memorise(answerer: Answerer, train: QuestionItems) -> None:
    """Let slots start from training samples that are complete, where the method has slots."""
    rmm = getattr(answerer.recovery, "rmm", answerer.recovery)
    if not hasattr(rmm, "memorise"):
        return
    order = generator("memorise", train.seed).permutation(len(train)).tolist()
    whole = [i for i in order if all(train.clips.present(train.questions[i].clip))][:SAMPLES]
    if whole:
        batch = collate([train[i] for i in whole], train.kind)
        rmm.memorise(batch.audio, batch.visual, batch.question, train.seed)  # type: ignore[attr-defined]


def start_from_runs(answerer: Answerer, config: AVQAConfig) -> None:
    """Put the weights of `network_from` and `recovery_from` in.

    Raises:
        InputError: a run's part is of another kind or size.
    """
    if config.network_from is not None:
        _adopt(answerer, config.network_from, "network", "network.", "network_from")
    for folder in config.recovery_from:
        theirs = answerer_checkpoint(folder).meta["design"]["recovery"]
        part = theirs if config.recovery == "rmm_avr" and theirs != "rmm_avr" else ""
        _adopt(answerer, folder, "recovery", f"recovery.{part}.".replace("..", "."), "recovery_from")


def _adopt(answerer: Answerer, folder: Path, theirs: str, ours: str, field: str) -> None:
    """Copy a run's weights below `theirs` to those below `ours`."""
    weights = answerer_checkpoint(folder).weights
    state = {
        ours + name.removeprefix(f"{theirs}."): x for name, x in weights.items() if name.startswith(f"{theirs}.")
    }
    own = {name: x for name, x in answerer.state_dict().items() if name.startswith(ours)}
    wrong = sorted(own.keys() ^ state.keys()) or [n for n in own if own[n].shape != state[n].shape]
    if wrong or not state:
        message = f"its {theirs} does not fit: {', '.join(wrong[:3]) or 'it has none'}"
        remedy = "start from a run of the same kind, sizes, questions and features"
        raise InputError(message, file=folder, field=field, remedy=remedy)
    answerer.load_state_dict({**answerer.state_dict(), **state})
