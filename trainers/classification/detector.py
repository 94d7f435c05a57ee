"""Fitting the quality detector on the training split's cached features."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from models.detector import QualityDetector, token_statistics
from models.settings import MODALITIES, Modality
from shards.checkpoint import checkpoint_in, load_checkpoint, save_checkpoint
from shards.positions import hashed
from shards.reader import Sample
from trainers.data import Split, shuffled_subset

SAMPLES = 600  # of the training split, a seeded choice: enough, and bounded for any corpus
MANY = 40  # with fewer samples of a modality there is no quarter to spare for the threshold
FEWEST = 2  # a spread needs two


def fit_detector(features: Split, seed: int, proportion: float = 1.0) -> tuple[QualityDetector, dict[str, float]]:
    """A detector for the depth at which `features` (training split) were taken.

    A quarter of the samples is kept from the fit, to set its threshold on; not of a modality that few have. One that
    fewer than two have is never called ruined, which is said on stderr.

    Args:
        proportion: share of the samples that is trained on, see `trainers.data.subset`; no others are read.

    Returns:
        the detector, and per modality that was fitted its class-balanced accuracy on what it was fitted to.
    """
    chosen = shuffled_subset(hashed(features.keys), seed, proportion, "detector")[:SAMPLES].tolist()
    read = {i: _statistics(sample) for i, sample in features.each(chosen)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = QualityDetector(next(s for i in chosen for s in read[i].values()).shape[1] // 3)
    fitted: dict[str, float] = {}
    for modality in MODALITIES:
        rows, clean = _kept_and_held_out([read[i].get(modality) for i in chosen])
        if len(rows) < FEWEST:
            detector.never_ruined(modality)
            continue
        ruined = torch.cat([torch.arange(len(r)) > 0 for r in rows])
        fitted[modality] = detector.fit(modality, torch.cat(rows), ruined)
        if clean:
            detector.calibrate(modality, torch.cat(clean))
    if lacking := [m for m in MODALITIES if m not in fitted]:
        print(f"note: {_unfitted_text(lacking)}", file=sys.stderr)
    return detector, fitted


def _kept_and_held_out(samples: Sequence[torch.Tensor | None]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Statistics to fit to, and the clean rows of those that are held out: samples of the first quarter, if the
    modality is in enough of all.

    Args:
        samples: statistics of one modality, None for those without it.
    """
    there = [s for s in samples if s is not None]
    if len(there) < MANY:
        return there, []
    quarter = max(1, len(samples) // 4)
    held_out = [s[:1] for s in samples[:quarter] if s is not None]
    return there[len(held_out) :], held_out


def _unfitted_text(lacking: Sequence[Modality]) -> str:
    what = " or ".join({"audio": "sound", "visual": "a picture"}[m] for m in lacking)
    return f"fewer than {FEWEST} train clips with {what} to fit the detector to: it never calls that ruined"


def _statistics(sample: Sample) -> dict[Modality, torch.Tensor]:
    """Of each modality that a sample has, float32 [V, 3 D], row 0 clean."""
    return {m: token_statistics(torch.from_numpy(sample.arrays[m])) for m in MODALITIES if m in sample.arrays}


def save_detector(folder: Path, detector: QualityDetector, depth: int, fitted: dict[str, float]) -> None:
    """Write it as the run's checkpoint "detector"."""
    meta = {"kind": "detector", "depth": depth, "dim": detector.dim, "fitted": fitted}
    save_checkpoint(folder / "detector", detector.state_dict(), meta)


def load_detector(folder: Path) -> QualityDetector:
    """The detector of a case-wise run.

    Raises:
        InputError: the run has none.
    """
    checkpoint = load_checkpoint(checkpoint_in(folder, "detector"), kind="detector")
    detector = QualityDetector(checkpoint.meta["dim"])
    detector.load_state_dict(checkpoint.weights)
    return detector.eval()
