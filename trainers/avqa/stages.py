"""The question-answering recipes: from config and data to the stage that trains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.avqa.answerer import Answerer, Design
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES
from models.backbone import weights_fingerprint
from shards.checkpoint import file_sha256
from shards.errors import InputError
from shards.questions import Vocabulary, load_questions
from trainers.avqa.clips import Clips, scale_of
from trainers.avqa.config import AVQAConfig, QuestionConfig, RecoveryConfig
from trainers.avqa.items import AnswerableQuestions, QuestionItems, longest
from trainers.avqa.objective import AnswerLoss, OwnLosses
from trainers.avqa.warm_start import KIND, answerer_checkpoint, fill_bank, memorise, start_from_runs, start_runs
from trainers.loop import Stage


@dataclass(frozen=True)
class World:
    """What a question-answering run trains on.

    Attributes:
        clips: features.
        train, val: questions; val is None where there are none.
        vocabulary: of all train questions, those that can't be asked with them.
        words: length of a question.
    """

    clips: Clips
    train: AnswerableQuestions
    val: AnswerableQuestions | None
    vocabulary: Vocabulary
    words: int

    @classmethod
    def of(cls, config: QuestionConfig) -> World:
        """Read features and questions.

        Raises:
            InputError: either is missing, or they do not belong together.
        """
        clips = Clips(config.data, resident=config.resident)
        questions = load_questions(config.questions)
        absent = config.absent if isinstance(config, AVQAConfig) else None
        train = AnswerableQuestions.of(questions, "train", clips, absent)
        validates = any(q.split == "val" for q in questions)
        val = AnswerableQuestions.of(questions, "val", clips, absent) if validates else None
        words = config.words or longest([q for q in questions if q.split == "train"])
        return cls(clips, train, val, Vocabulary.of(questions), words)

    def items(self, config: QuestionConfig, asked: AnswerableQuestions, negatives: bool = False) -> QuestionItems:
        """Questions as items of this run."""
        absent = config.absent if isinstance(config, AVQAConfig) else None
        return QuestionItems(self.clips, asked.questions, self.vocabulary, self.words, config.seed, absent, negatives)


def design(config: QuestionConfig, world: World) -> Design:
    """The module that a run trains."""
    sizes = (len(world.vocabulary.words), len(world.vocabulary.answers))
    if isinstance(config, AVQAConfig):
        return Design(world.clips.spec, *sizes, config.network, config.sizes, config.recovery, config.recovery_sizes)
    assert isinstance(config, RecoveryConfig)
    return Design(world.clips.spec, *sizes, None, {}, config.recovery, config.sizes)


def question_stages(config: QuestionConfig) -> list[Stage]:
    """The one stage of `avqa`, `rmm` or `avr`.

    Raises:
        InputError: data or questions missing, a run to start from that does not fit, sizes that can't be, or
            nothing that could train.
    """
    world = World.of(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        answerer = _build(config, world)
    objective: nn.Module
    weights = config.weights
    negatives = False
    if isinstance(config, AVQAConfig):
        objective = AnswerLoss(answerer, config.taken, weights, config.freeze, config.alternate_missing)
        negatives = config.absent is None and _needs_negatives(config)
    else:
        objective = OwnLosses(answerer, weights)
    train = world.items(config, world.train, negatives)
    if config.memorise:
        memorise(answerer, train)
    fill_bank(answerer, train)
    if isinstance(config, AVQAConfig):
        start_from_runs(answerer, config, _meta(world, answerer))
    if not any(p.requires_grad for p in objective.parameters()):
        remedy = "train a part, or choose a method that has something to train"
        raise InputError("nothing is left to train", field="freeze", remedy=remedy)
    return [
        Stage(
            config.recipe,  # type: ignore[attr-defined]
            objective,
            train,
            world.items(config, world.val) if world.val is not None else None,
            weights=answerer.state_dict,
            load=lambda state: _load(answerer, state),
            meta=_meta(world, answerer),
        )
    ]


def _needs_negatives(config: AVQAConfig) -> bool:
    """Whether a loss that counts takes frames of other clips, and these would look like the own ones."""
    network = NETWORKS[config.network]
    if getattr(RECOVERIES[config.recovery], "changes_complete", False):
        return False
    return network.takes_negatives and any(config.weights[name] > 0 for name in network.loss_names)


def _build(config: QuestionConfig, world: World) -> Answerer:
    try:
        return Answerer(design(config, world), scale_of(world.clips.info))
    except (ValueError, TypeError) as error:
        remedy = "change the sizes to what these features and networks allow"
        raise InputError(str(error), file=config.data, field="sizes", remedy=remedy) from None


def _meta(world: World, answerer: Answerer) -> dict:
    """What a checkpoint must say besides the weights: all that prediction needs."""
    made_by = world.clips.info.backbone
    return {
        "kind": KIND,
        "design": answerer.design.as_dict(),
        "vocabulary": world.vocabulary.model_dump(mode="json"),
        "words": world.words,
        "scale": {"audio": answerer.scale.audio, "visual": answerer.scale.visual},
        "extractor": made_by.fingerprint if made_by is not None else "",
        "trained": sum(p.numel() for p in answerer.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in answerer.parameters()),
        "lost_questions": [*world.train.lost, *(world.val.lost if world.val else ())],
    }


def _load(answerer: Answerer, state: Mapping[str, Tensor]) -> None:
    answerer.load_state_dict(state)


def question_fingerprints(config: QuestionConfig, dataset: str) -> tuple[str, str | None, tuple[str, ...]]:
    """What a run depends on: features with questions, weights to start from; and notes for the user.

    Raises:
        InputError: as `question_stages`, before anything is made.
    """
    world = World.of(config)
    _build(config, world)
    made_of = hashlib.sha256(f"{dataset} {file_sha256(config.questions)}".encode()).hexdigest()
    lost = [*world.train.lost, *(world.val.lost if world.val else ())]
    notes = (f"{len(lost)} questions can't be asked: their clips are not in {config.data}",) if lost else ()
    runs = start_runs(config) if isinstance(config, AVQAConfig) else []
    weights = [answerer_checkpoint(folder).weights for folder in runs]
    start = hashlib.sha256(" ".join(weights_fingerprint(w, {}) for w in weights).encode()).hexdigest()
    return made_of, start if runs else None, notes
