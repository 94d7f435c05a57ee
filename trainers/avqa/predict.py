"""FinishedRun question-answering runs as predictors: from the run's folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from models.avqa.answerer import Answerer, Design
from models.avqa.batch import NO_ANSWER, AVQABatch
from models.avqa.recovery.avr import AVR
from models.avqa.scale import Scale
from models.batch import take_away
from models.conditions import observed_condition
from models.settings import MODALITIES, Modality
from shards.errors import InputError
from shards.questions import Vocabulary
from shards.reader import Sample
from trainers.avqa.clips import Clips
from trainers.avqa.config import AVQAConfig
from trainers.avqa.warm_start import answerer_checkpoint
from trainers.recipe import ClipAnswer, FinishedRun

ANY_EXTRACTOR = ""  # of a published network that was imported without features


@dataclass(frozen=True)
class QuestionPredictor:
    """A run ready to answer.

    Attributes:
        run: where it comes from.
        config: its config.
        answerer: recovery method and network, in evaluation mode.
        vocabulary: its words and answers.
        words: length of a question.
        extractor: fingerprint of the encoders that made its features; "" where none were named.
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

    @property
    def answers(self) -> tuple[str, ...]:
        """Those of the train questions, in the order of the logits."""
        return self.vocabulary.answers

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Without the one that a specialist never looks at."""
        return tuple(m for m in MODALITIES if m != self.config.absent)

    @property
    def spec(self) -> None:
        """None: it takes features."""
        return None

    @torch.inference_mode()
    def ask(self, samples: Sequence[Sample], questions: Sequence[str] = ()) -> list[ClipAnswer]:
        """Answer a question about each clip as feature shards hold it; see `trainers.recipe.LoadedRun`."""
        batch = self._batch_of(samples, questions).to(next(self.answerer.parameters()).device)
        logits = self(batch).cpu()
        seen = [observed_condition(row) for row in self.seen(batch.present).tolist()]
        rows = zip(logits, questions, seen, strict=True)
        return [ClipAnswer({"": row}, notes=self._notes(text), observed=observed) for row, text, observed in rows]

    def _notes(self, question: str) -> tuple[str, ...]:
        """What of a question the run does not read."""
        words, unknown = self.vocabulary.split(question), self.vocabulary.unknown(question, self.words)
        notes = [f"unknown words: {', '.join(unknown)}"] if unknown else []
        if len(words) > self.words and self.vocabulary.rule != "clip":
            notes.append(f"only the first {self.words} of {len(words)} words are read")
        return tuple(notes)

    def _batch_of(self, samples: Sequence[Sample], questions: Sequence[str]) -> AVQABatch:
        spec = self.answerer.design.spec
        blank = {"audio": (spec.steps, spec.audio), "visual": (spec.steps, spec.rows, spec.visual)}
        features = {m: torch.full((len(samples), *blank[m]), float("nan"), dtype=torch.float16) for m in MODALITIES}
        for i, sample in enumerate(samples):
            for modality, array in sample.arrays.items():
                taken = self.config.choice.of(len(array))
                features[modality][i] = torch.from_numpy(array if taken is None else array[taken])  # type: ignore[index]
        present = torch.tensor([[getattr(sample.meta, m).present for m in MODALITIES] for sample in samples])
        words = torch.tensor([self.vocabulary.encode(text, self.words) for text in questions])
        unknown = torch.full((len(samples),), NO_ANSWER)
        return AVQABatch(**features, present=present, label=unknown, index=torch.arange(len(samples)), question=words)

    def __call__(self, batch: AVQABatch) -> Tensor:
        """Logits [B, A]; a specialist does not look at the modality that it was trained without.

        Raises:
            ValueError: a sample has nothing to look at.
        """
        if self.config.absent is not None:
            batch = take_away(batch, self.config.absent)
        return self.answerer(batch)[0].float()

    def seen(self, present: Tensor) -> Tensor:
        """Of what is there, bool [B, 2], what it looks at."""
        return present & torch.tensor([m != self.config.absent for m in MODALITIES], device=present.device)

    @property
    def diffusion(self) -> AVR | None:
        """The diffusion model of its recovery method, if it has one."""
        return next((part for part in self.answerer.recovery.modules() if isinstance(part, AVR)), None)

    def sees(self, missing: Modality | None) -> bool:
        """Whether it is to be judged with `missing` taken away: a specialist knows only its own case."""
        return self.config.absent is None or self.config.absent == missing

    def clips(self, folder: Path, resident: bool | None = None) -> Clips:
        """The clips of a dataset, the time steps taken as this run takes them.

        Raises:
            InputError: no sequence features there, or of other encoders or sizes.
        """
        clips = Clips(folder, resident, self.config.choice)
        self.check(clips)
        return clips

    def check(self, clips: Clips) -> None:
        """Refuse features that this run can't be asked about.

        Raises:
            InputError: they are of other encoders or sizes.
        """
        made_by = clips.info.backbone
        same = made_by is not None and self.extractor in (made_by.fingerprint, ANY_EXTRACTOR)
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
