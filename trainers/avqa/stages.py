"""The question-answering recipes: from config and data to the stage that trains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from models.avqa.answerer import Answerer, Design
from models.avqa.batch import FeatureSpec
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES
from models.avqa.scale import Scale
from models.backbone import weights_fingerprint
from models.settings import Modality
from shards.errors import InputError
from shards.hashes import file_sha256
from shards.questions import Vocabulary, load_questions
from trainers.avqa.clips import Clips, scale_of, scale_of_left
from trainers.avqa.config import AVQAConfig, QuestionConfig, RecoveryConfig
from trainers.avqa.items import AnswerableQuestions, QuestionItems, longest, present_in
from trainers.avqa.missing import NO_TABLE, TABLE_FILE, TrainTable
from trainers.avqa.objective import AnswerLoss, OwnLosses
from trainers.avqa.warm_start import (
    KIND,
    answerer_checkpoint,
    check_reading,
    fill_bank,
    memorise,
    no_complete_clip,
    published_start,
    start_from_runs,
    start_runs,
)
from trainers.loop import Stage
from trainers.recipe import Fingerprints


@dataclass(frozen=True)
class World:
    """What a question-answering run trains on.

    Attributes:
        clips: features.
        train, val: questions; val is None where there are none.
        vocabulary: of all train questions, those that can't be asked with them; of a published network that the run
            starts from, its own.
        words: length of a question.
        absent: a modality that is taken away from every clip.
        table: what is taken away from each training clip.
    """

    clips: Clips
    train: AnswerableQuestions
    val: AnswerableQuestions | None
    vocabulary: Vocabulary
    words: int
    absent: Modality | None = None
    table: TrainTable = NO_TABLE

    @classmethod
    def of(cls, config: QuestionConfig, absent: Modality | None = None) -> World:
        """Read features and questions; `absent` is taken away from every clip.

        Raises:
            InputError: either is missing, or they do not belong together.
        """
        clips = Clips(config.data, config.resident, config.choice)
        questions = load_questions(config.questions)
        train = AnswerableQuestions.of(questions, "train", clips, absent)
        table = TrainTable.of(config.train_missing, [q.clip for q in train.questions], clips)
        if table:
            train = train.about(table.left(clips, absent))
        validates = any(q.split == "val" for q in questions)
        val = AnswerableQuestions.of(questions, "val", clips, absent) if validates else None
        if (published := published_start(config)) is not None:
            check_reading(config, published, clips.stored.steps)  # type: ignore[arg-type]
            vocabulary, words = Vocabulary.model_validate(published["vocabulary"]), published["words"]
        else:
            vocabulary, words = Vocabulary.of(questions), longest([q for q in questions if q.split == "train"])
        return cls(clips, train, val, vocabulary, config.words or words, absent, table)

    def whole(self) -> World:
        """The questions about clips that have both modalities; without validation where it has none of them.

        Raises:
            InputError: no training clip has both.
        """

        def about_complete(asked: AnswerableQuestions, lacks: Mapping[str, Sequence[Modality]]) -> AnswerableQuestions:
            present = present_in(self.clips, self.absent, lacks)
            return asked.about({q.clip for q in asked.questions if present[self.clips.number[q.clip]].all()})

        train = about_complete(self.train, self.table.lacks)
        if not train.questions:
            raise no_complete_clip(self.clips, "train the method together with a network")
        val = about_complete(self.val, {}) if self.val is not None else None
        return replace(self, train=train, val=val if val is not None and val.questions else None)

    def train_items(self, config: QuestionConfig, negatives: bool = False) -> QuestionItems:
        """The train questions as items of this run."""
        asked, less = self.train.questions, (self.absent, negatives, self.table.lacks, config.proportion)
        return QuestionItems(self.clips, asked, self.vocabulary, self.words, config.seed, *less)

    def val_items(self, seed: int) -> QuestionItems | None:
        """The validation questions, from whose clips the table takes nothing."""
        if self.val is None:
            return None
        return QuestionItems(self.clips, self.val.questions, self.vocabulary, self.words, seed, self.absent)

    def scale(self, config: QuestionConfig) -> Scale:
        """Of the training clips, measured anew where some of it counts as missing."""
        if not self.table or not config.standardise:
            return scale_of(self.clips.info, config.standardise)
        items = self.train_items(config)
        return scale_of_left(self.clips, np.unique(items.numbers).tolist(), items.present)

    @property
    def sizes(self) -> tuple[FeatureSpec, int, int]:
        """Of the features and of both vocabularies."""
        return self.clips.spec, self.vocabulary.size, len(self.vocabulary.answers)


def answer_stages(config: AVQAConfig) -> list[Stage]:
    """The one stage of `avqa`: a network with its recovery method.

    Raises:
        InputError: data or questions missing, a run to start from that does not fit, sizes that can't be, or
            nothing that could train.
    """
    world = World.of(config, config.absent)
    answerer = _build(config, world, _answer_design(config, world), world.scale(config))
    objective = AnswerLoss(
        answerer, config.taken, config.weights, config.freeze, config.alternate_missing, config.distillation
    )
    train = world.train_items(config, config.absent is None and _needs_negatives(config))
    if config.memorise:
        memorise(answerer, train)
    fill_bank(answerer, train)
    start_from_runs(answerer, config, _meta(world, answerer))
    return [_stage(config, world, answerer, objective, train)]


def recovery_stages(config: RecoveryConfig) -> list[Stage]:
    """The one stage of a recovery method alone, by its own losses, on questions about complete clips.

    Features are standardised by all training clips, as those of a network that is to start from the run.

    Raises:
        InputError: data or questions missing, sizes that can't be, or nothing that could train.
    """
    all_clips = World.of(config)
    world = all_clips.whole()
    answerer = _build(config, world, _recovery_design(config, world), all_clips.scale(config))
    train = world.train_items(config)
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
        world.val_items(config.seed),
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


def _build(config: QuestionConfig, world: World, design: Design, scale: Scale | None = None) -> Answerer:
    """A fresh module, its weights drawn from the config's seed."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return Answerer(design, scale or scale_of(world.clips.info, config.standardise))
    except (ValueError, TypeError) as error:
        remedy = "change the sizes to what these features and networks allow"
        raise InputError(str(error), file=config.data, field="sizes", remedy=remedy) from None


def _meta(world: World, answerer: Answerer) -> dict:
    """What a checkpoint must say besides the weights: all that prediction needs."""
    made_by = world.clips.info.backbone
    return {
        "kind": KIND,
        "design": answerer.design.as_dict(),
        "vocabulary": world.vocabulary.record(),
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
    content = [weights_fingerprint(w, {}) for w in weights]
    if published_start(config) is not None:
        content.append(json.dumps(world.vocabulary.record()))
    start = hashlib.sha256(" ".join(content).encode()).hexdigest()
    return Fingerprints(_content(config, world), start if weights else None, _notes(config, world), _files(world))


def recovery_fingerprints(config: RecoveryConfig) -> Fingerprints:
    """What a run of a recovery method alone depends on.

    Raises:
        InputError: as `recovery_stages`, before anything is made.
    """
    world = World.of(config)
    whole = world.whole()
    _build(config, whole, _recovery_design(config, whole))
    notes = [*_notes(config, world), *_left_out(world, whole)]
    return Fingerprints(_content(config, world), None, tuple(notes), _files(world))


def _content(config: QuestionConfig, world: World) -> str:
    dataset = world.clips.info.fingerprint()
    return hashlib.sha256(f"{dataset} {file_sha256(config.questions)}".encode()).hexdigest()


def _notes(config: QuestionConfig, world: World) -> tuple[str, ...]:
    lost = [*world.train.lost, *(world.val.lost if world.val else ())]
    notes = (
        [f"{len(lost)} questions can't be asked: their clips are not in {config.data}, or nothing is left of them"]
        if lost
        else []
    )
    if strange := sum(not world.vocabulary.knows(q.answer) for q in world.train.questions):
        notes.append(f"{strange} train questions have answers that the network to start from does not know: left out")
    if world.table:
        notes.append(world.table.said)
    return tuple(notes)


def _left_out(world: World, whole: World) -> Iterator[str]:
    """What a method alone leaves out of a world's questions."""
    asked = {"train": (world.train, whole.train), "validation": (world.val, whole.val)}
    for name, (before, after) in asked.items():
        if few := len(before.questions if before else ()) - len(after.questions if after else ()):
            yield f"{few} {name} questions are about clips without sound or picture: a method alone leaves them out"


def _files(world: World) -> Mapping[str, str]:
    return {TABLE_FILE: world.table.text()} if world.table else {}
