"""What a run answered about one clip, and why a clip could not be answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.settings import MODALITIES, Modality
from shards.causes import Cause
from shards.errors import InputError
from shards.schema import StreamInfo
from trainers.confidence import probabilities


@dataclass(frozen=True)
class Failure:
    """Why a clip was not answered; ``error`` is a stable code (`shards.causes.Cause`)."""

    error: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.error}: {self.message}"


NOTHING_LEFT = "nothing to look at"


@dataclass(frozen=True)
class Prediction:
    """One run's answer about one clip; A answers.

    Attributes:
        clip: its path or id; "" of arrays.
        run: name of the run's folder.
        answers: all there are, [A].
        logits: float32 [A], of the selection that answered; empty where the clip failed.
        streams: what was there of sound and picture, and why not, by modality; empty where nothing was decoded.
        question: what was asked, of a question-answering run.
        selection: how the module was chosen: "detected", or "" where there is one for all.
        case: of the module that answered, such as "noisy_audio"; "" where there is one for all.
        ruined: what was there and the detector took for ruined; None: the run has no detector.
        others: logits [A] by the other selections.
        notes: what the user should know, such as words of the question that the run has never met.
        calibrated: by which of the run's temperatures the probabilities were scaled, such as "audio_missing" or
            "complete: visual ruined"; None: the run has no calibration, and they are the softmax of the logits.
        temperature: what the logits were divided by; 1 without a calibration.
        abstain_below: probability below which the answer is not to be relied on; None: there is no such limit.
        failure: why there is no answer; None where there is one.
        several: the clip may have several of the answers; each one's probability is its own.
    """

    clip: str
    run: str
    answers: tuple[str, ...]
    logits: np.ndarray
    streams: Mapping[Modality, StreamInfo] = field(default_factory=dict)
    question: str | None = None
    selection: str = ""
    case: str = ""
    ruined: tuple[Modality, ...] | None = None
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failure: Failure | None = None
    several: bool = False
    calibrated: str | None = None
    temperature: float = 1.0
    abstain_below: float | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """Float32 [A], softmax of the logits over the temperature; where there may be several answers
        the sigmoid of each.

        Raises:
            InputError: the clip failed.
        """
        return sigmoid(self._answered()) if self.several else softmax(self._answered(), self.temperature)

    @property
    def labels(self) -> tuple[str, ...]:
        """The answers that are more probable than not, the most probable first; of one answer a clip, that one.

        Raises:
            InputError: the clip failed.
        """
        return tuple(name for name, share in self.ranked() if share >= 0.5) if self.several else (self.answer,)

    @property
    def answer(self) -> str:
        """The most probable answer.

        Raises:
            InputError: the clip failed.
        """
        return self.answers[int(self._answered().argmax())]

    @property
    def probability(self) -> float:
        """Of the most probable answer, 0 to 1.

        Raises:
            InputError: the clip failed.
        """
        return float(self.probabilities.max())

    @property
    def abstains(self) -> bool:
        """Whether the probability is below `abstain_below`.

        Raises:
            InputError: the clip failed.
        """
        return self.abstain_below is not None and self.probability < self.abstain_below

    @property
    def present(self) -> dict[Modality, bool]:
        """Whether sound and picture were there."""
        return {m: m in self.streams and self.streams[m].present for m in MODALITIES}

    def ranked(self, count: int | None = None) -> list[tuple[str, float]]:
        """The most probable answers with their probabilities, falling; equal ones in the order of the answers.

        Raises:
            InputError: the clip failed.
        """
        found = self.probabilities
        order = np.argsort(-found, kind="stable")[:count]
        return [(self.answers[i], float(found[i])) for i in order]

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints of it."""
        if self.failure is not None:
            return {"run": self.run, "failure": vars(self.failure)}
        return {
            "run": self.run,
            "answer": self.answer,
            **({"labels": list(self.labels)} if self.several else {}),
            "probabilities": dict(self.ranked()),
            "selection": self.selection,
            "calibrated": self.calibrated,
            "temperature": self.temperature,
            "abstains": self.abstains,
            "case": self.case,
            "ruined": None if self.ruined is None else list(self.ruined),
            "logits": dict(zip(self.answers, map(float, self.logits), strict=True)),
            "others": {name: self.answers[int(logits.argmax())] for name, logits in self.others.items()},
            "notes": list(self.notes),
        }

    def _answered(self) -> np.ndarray:
        if self.failure is not None:
            raise InputError(str(self.failure), file=self.clip or None, remedy=self.failure.remedy)
        return self.logits


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities [A] of logits [A] over a temperature, float32; -inf is 0."""
    return probabilities(logits, temperature).astype(np.float32)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities [A] of independent logits [A], float32."""
    return (0.5 * (1 + np.tanh(logits.astype(np.float64) / 2))).astype(np.float32)


def nothing_left(modalities: tuple[Modality, ...]) -> Failure:
    """The failure of a clip that has nothing of what a run looks at."""
    names = " or ".join("sound" if m == "audio" else "picture" for m in modalities)
    return Failure(NOTHING_LEFT, f"this run looks at {names} alone", "ask a run that looks at what the clip has")


def from_error(error: str, message: str, remedy: str | None) -> Failure:
    """The failure of a clip that can't be decoded."""
    return Failure(Cause(error).value, message, remedy or "")
