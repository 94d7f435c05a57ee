"""FinishedRun question-answering runs as predictors: from the run's folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from models.avqa.answerer import Answerer, Design
from models.avqa.batch import AVQABatch
from models.avqa.recovery.avr import AVR
from models.avqa.scale import Scale
from models.batch import take_away
from models.settings import Modality
from shards.errors import InputError
from shards.questions import Vocabulary
from trainers.avqa.clips import Clips
from trainers.avqa.config import AVQAConfig
from trainers.avqa.warm_start import answerer_checkpoint
from trainers.recipe import FinishedRun


@dataclass(frozen=True)
class QuestionPredictor:
    """A run ready to answer.

    Attributes:
        run: where it comes from.
        config: its config.
        answerer: recovery method and network, in evaluation mode.
        vocabulary: its words and answers.
        words: length of a question.
        extractor: fingerprint of the encoders that made them.
        trained, parameters: how many it trained, and has.
    """

    run: FinishedRun
    config: AVQAConfig
    answerer: Answerer
    vocabulary: Vocabulary
    words: int
    extractor: str
    trained: int
    parameters: int

    def __call__(self, batch: AVQABatch) -> Tensor:
        """Logits [B, A]; a specialist does not look at the modality that it was trained without.

        Raises:
            ValueError: a sample has nothing to look at.
        """
        if self.config.absent is not None:
            batch = take_away(batch, self.config.absent)
        return self.answerer(batch)[0].float()

    @property
    def diffusion(self) -> AVR | None:
        """The diffusion model of its recovery method, if it has one."""
        return next((part for part in self.answerer.recovery.modules() if isinstance(part, AVR)), None)

    def sees(self, missing: Modality | None) -> bool:
        """Whether it is to be judged with `missing` taken away: a specialist knows only its own case."""
        return self.config.absent is None or self.config.absent == missing

    def check(self, clips: Clips) -> None:
        """Refuse features that this run can't be asked about.

        Raises:
            InputError: they are of other encoders or sizes.
        """
        made_by = clips.info.backbone
        same = made_by is not None and made_by.fingerprint == self.extractor
        if not same or clips.spec != self.answerer.design.spec:
            remedy = "evaluate it on features of the extractor that it was trained on"
            message = f"made by another extractor than those of {self.run.folder.name}"
            raise InputError(message, file=clips.folder, field="data", remedy=remedy)


def load_answerer(run: FinishedRun, device: torch.device) -> QuestionPredictor:
    """Load a finished run of `avqa`.

    Raises:
        InputError: its checkpoint is missing or damaged, or does not fit this version.
    """
    checkpoint = answerer_checkpoint(run.folder)
    meta = checkpoint.meta
    try:
        scale = Scale(**{m: (tuple(mean), tuple(std)) for m, (mean, std) in meta["scale"].items()})
        answerer = Answerer(Design.from_dict(meta["design"]), scale)
        answerer.load_state_dict(checkpoint.weights)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise InputError(f"can't be used: {error}", file=run.folder, remedy="train it again") from None
    return QuestionPredictor(
        run,
        cast(AVQAConfig, run.config),
        answerer.to(device).eval(),
        Vocabulary.model_validate(meta["vocabulary"]),
        meta["words"],
        meta["extractor"],
        meta["trained"],
        meta["parameters"],
    )
