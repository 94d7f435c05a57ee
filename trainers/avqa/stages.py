"""The question-answering recipes: from config and data to the stage that trains."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.avqa.answerer import Answerer, Design
from models.avqa.batch import FeatureSpec
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES
from models.backbone import weights_fingerprint
from models.settings import Modality
from shards.checkpoint import file_sha256
from shards.errors import InputError
from shards.questions import Vocabulary, load_questions
from trainers.avqa.clips import Clips, scale_of
from trainers.avqa.config import AVQAConfig, QuestionConfig, RecoveryConfig
from trainers.avqa.items import AnswerableQuestions, QuestionItems, longest
from trainers.avqa.objective import AnswerLoss, OwnLosses
from trainers.avqa.warm_start import KIND, answerer_checkpoint, fill_bank, memorise, start_from_runs, start_runs
from trainers.loop import Stage
from trainers.recipe import Fingerprints


@dataclass(frozen=True)
class World:
    """What a question-answering run trains on.

    Attributes:
        clips: features.
        train, val: questions; val is None where there are none.
        vocabulary: of all train questions, those that can't be asked with them.
        words: length of a question.
        absent: a modality that is taken away from every clip.
    """

    clips: Clips
    train: AnswerableQuestions
    val: AnswerableQuestions | None
    vocabulary: Vocabulary
    words: int
    absent: Modality | None = None

    @classmethod
    def of(cls, config: QuestionConfig, absent: Modality | None = None) -> World:
        """Read features and questions; `absent` is taken away from every clip.

        Raises:
            InputError: either is missing, or they do not belong together.
        """
        clips = Clips(config.data, config.resident, config.choice)
        questions = load_questions(config.questions)
        train = AnswerableQuestions.of(questions, "train", clips, absent)
        validates = any(q.split == "val" for q in questions)
        val = AnswerableQuestions.of(questions, "val", clips, absent) if validates else None
        words = config.words or longest([q for q in questions if q.split == "train"])
        return cls(clips, train, val, Vocabulary.of(questions), words, absent)

    def items(self, seed: int, asked: AnswerableQuestions, negatives: bool = False) -> QuestionItems:
        """Questions as items of this run."""
        return QuestionItems(self.clips, asked.questions, self.vocabulary, self.words, seed, self.absent, negatives)

    @property
    def sizes(self) -> tuple[FeatureSpec, int, int]:
        """Of the features and of both vocabularies."""
        return self.clips.spec, len(self.vocabulary.words), len(self.vocabulary.answers)


def answer_stages(config: AVQAConfig) -> list[Stage]:
    """The one stage of `avqa`: a network with its recovery method.

    Raises:
        InputError: data or questions missing, a run to start from that does not fit, sizes that can't be, or
            nothing that could train.
    """
    world = World.of(config, config.absent)
    answerer = _build(config, world, _answer_design(config, world))
    objective = AnswerLoss(answerer, config.taken, config.weights, config.freeze, config.alternate_missing)
    train = world.items(config.seed, world.train, config.absent is None and _needs_negatives(config))
    if config.memorise:
        memorise(answerer, train)
    fill_bank(answerer, train)
    start_from_runs(answerer, config, _meta(world, answerer))
    return [_stage(config, world, answerer, objective, train)]


def recovery_stages(config: RecoveryConfig) -> list[Stage]:
    """The one stage of a recovery method alone, by its own losses.

    Raises:
        InputError: data or questions missing, sizes that can't be, or nothing that could train.
    """
    world = World.of(config)
    answerer = _build(config, world, _recovery_design(config, world))
    train = world.items(config.seed, world.train)
    if config.memorise:
        memorise(answerer, train)
    fill_bank(answerer, train)
    return [_stage(config, world, answerer, OwnLosses(answerer, config.weights), train)]


def _answer_design(config: AVQAConfig, world: World) -> Design:
    return Design(*world.sizes, config.network, config.sizes, config.recovery, config.recovery_sizes)


def _recovery_design(config: RecoveryConfig, world: World) -> Design:
    return Design(*world.sizes, None, {}, config.recovery, config.sizes)


def _stage(
    config: QuestionConfig, world: World, answerer: Answerer, objective: nn.Module, train: QuestionItems
) -> Stage:
    if not any(p.requires_grad for p in objective.parameters()):
        remedy = "train a part, or choose a method that has something to train"
        raise InputError("nothing is left to train", field="freeze", remedy=remedy)
    return Stage(
        config.recipe,
        objective,
        train,
        world.items(config.seed, world.val) if world.val is not None else None,
        weights=answerer.state_dict,
        load=lambda state: _load(answerer, state),
        meta=_meta(world, answerer),
        unused_parameters=True,
    )


def _needs_negatives(config: AVQAConfig) -> bool:
    """Whether a loss that counts takes frames of other clips, and these would look like the own ones."""
    network = NETWORKS[config.network]
    if getattr(RECOVERIES[config.recovery], "changes_complete", False):
        return False
    return network.takes_negatives and any(config.weights[name] > 0 for name in network.loss_names)


def _build(config: QuestionConfig, world: World, design: Design) -> Answerer:
    """A fresh module, its weights drawn from the config's seed."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return Answerer(design, scale_of(world.clips.info, config.standardise))
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


def answer_fingerprints(config: AVQAConfig) -> Fingerprints:
    """What a run of `avqa` depends on: features with questions, weights to start from; and notes for the user.

    Raises:
        InputError: as `answer_stages`, before anything is made.
    """
    world = World.of(config, config.absent)
    _build(config, world, _answer_design(config, world))
    weights = [answerer_checkpoint(folder).weights for folder in start_runs(config)]
    start = hashlib.sha256(" ".join(weights_fingerprint(w, {}) for w in weights).encode()).hexdigest()
    return Fingerprints(_content(config, world), start if weights else None, _notes(config, world))


def recovery_fingerprints(config: RecoveryConfig) -> Fingerprints:
    """What a run of a recovery method alone depends on.

    Raises:
        InputError: as `recovery_stages`, before anything is made.
    """
    world = World.of(config)
    _build(config, world, _recovery_design(config, world))
    return Fingerprints(_content(config, world), None, _notes(config, world))


def _content(config: QuestionConfig, world: World) -> str:
    dataset = world.clips.info.fingerprint()
    return hashlib.sha256(f"{dataset} {file_sha256(config.questions)}".encode()).hexdigest()


def _notes(config: QuestionConfig, world: World) -> tuple[str, ...]:
    lost = [*world.train.lost, *(world.val.lost if world.val else ())]
    return (f"{len(lost)} questions can't be asked: their clips are not in {config.data}",) if lost else ()
