"""Calibration of a finished run: temperatures by what can be observed, in calibration.json of the run's folder.

It is no part of the run's identity: it changes no answer, and is bound to the run's weights by their sha256.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pydantic

from configs import digest
from models.conditions import coarser_observation
from shards.atomic import write_errors, write_text
from shards.checkpoint import weights_sha256
from shards.errors import InputError
from shards.store import Place, StorePath
from shards.working_copy import amend
from trainers.confidence import least_count
from trainers.recipe import FinishedRun
from trainers.stored_run import TRAINING

CALIBRATION_FILE = "calibration.json"
REMEDY = "calibrate it again: avmend calibrate RUN; or remove the file"


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Temperature(_Record):
    """One group's, with what it did to the samples that it was fitted to.

    Attributes:
        temperature: what logits are divided by.
        samples: how many it was fitted to.
        ece_before, ece_after: expected calibration error of these, 0..1.
    """

    temperature: float = pydantic.Field(gt=0)
    samples: int
    ece_before: float
    ece_after: float


class Calibration(_Record):
    """Temperatures of a run.

    Attributes:
        weights: digest of the run's weights.
        inputs: what they were fitted on: settings, fingerprint of the data.
        groups: by selection ("" where there is none to choose) and observation.
        abstaining: by selection, for each probability of 0, 0.01, ..., 1, the share of the samples that is answered
            where lower ones abstain, and the wrong answers among these; of scaled logits, all conditions together.
    """

    version: Literal[1] = 1
    weights: str
    inputs: dict[str, Any]
    groups: dict[str, dict[str, Temperature]]
    abstaining: dict[str, tuple[tuple[float, float], ...]] = {}

    def group(self, selection: str, observed: str) -> tuple[str, float] | None:
        """The group that serves a sample, and its temperature: its own observation's, or, where too few samples had
        that, the one of all with the same modalities; None: there was none of either."""
        found = self.groups.get(selection, {})
        for name in (observed, coarser_observation(observed)):
            if name in found:
                return name, found[name].temperature
        return None

    def temperatures(self, selection: str, observed: Sequence[str]) -> np.ndarray:
        """Of each sample, float64 [N]; 1 where there is none."""
        known = {name: self.group(selection, name) for name in set(observed)}
        return np.array([1.0 if (pair := known[name]) is None else pair[1] for name in observed])

    def bought(self, selection: str, abstain_below: float) -> tuple[float, float] | None:
        """Coverage and error at a probability (rounded up to a percent), of the samples that it was fitted to."""
        steps = self.abstaining.get(selection, ())
        return steps[min(least_count(abstain_below, 100), 100)] if steps else None

    @property
    def fingerprint(self) -> str:
        """12 hex digits of the temperatures."""
        return digest(self.model_dump(mode="json"))

    def save(self, run: Place) -> None:
        """Write calibration.json into a run's folder, or to its address."""
        text = json.dumps(self.model_dump(mode="json"), indent=1) + "\n"
        if isinstance(run, StorePath):
            amend(run, CALIBRATION_FILE, text.encode(), TRAINING)
            return
        with write_errors(run / CALIBRATION_FILE):
            write_text(run / CALIBRATION_FILE, text)


def weights_of(run: FinishedRun) -> str:
    """Digest of all checkpoints of a finished run.

    Raises:
        InputError: one is missing or damaged.
    """
    return digest([weights_sha256(run.folder / name) for name in run.recipe.checkpoints(run.config)])


def read_calibration(run: FinishedRun) -> Calibration | None:
    """The calibration of a run; None: it has none.

    Raises:
        InputError: it is damaged, or of other weights.
    """
    path = run.folder / CALIBRATION_FILE
    try:
        found = Calibration.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"is no calibration: {said}", file=path, remedy=REMEDY) from None
    if found.weights != weights_of(run):
        raise InputError("is the calibration of other weights", file=path, field="weights", remedy=REMEDY)
    return found


def fingerprints(calibrations: Mapping[str, Calibration | None]) -> dict[str, str]:
    """Of those that there are, by run."""
    return {name: found.fingerprint for name, found in calibrations.items() if found is not None}
