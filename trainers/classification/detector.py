"""Fitting the quality detector on the training split's cached features."""

from __future__ import annotations

from pathlib import Path

import torch

from models.detector import QualityDetector, token_statistics
from models.settings import MODALITIES, Modality
from shards.checkpoint import checkpoint_in, load_checkpoint, save_checkpoint
from shards.positions import hashed
from shards.reader import Sample
from trainers.data import Split, shuffled_subset

SAMPLES = 600  # of the training split, a seeded choice: enough, and bounded for any corpus
MANY = 40  # with fewer samples there is no quarter to spare for the threshold


def fit_detector(features: Split, seed: int, proportion: float = 1.0) -> tuple[QualityDetector, dict[str, float]]:
    """A detector for the depth at which `features` (training split) were taken.

    A quarter of the samples is kept from the fit, to set its threshold on.

    Args:
        proportion: share of the samples that is trained on, see `trainers.data.subset`; no others are read.

    Returns:
        the detector, and per modality its class-balanced accuracy on what it was fitted to.
    """
    chosen = shuffled_subset(hashed(features.keys), seed, proportion, "detector")[:SAMPLES]
    held_out = set(chosen[: max(1, len(chosen) // 4)].tolist()) if len(chosen) >= MANY else set()
    rows: dict[Modality, list[torch.Tensor]] = {m: [] for m in MODALITIES}
    clean: dict[Modality, list[torch.Tensor]] = {m: [] for m in MODALITIES}
    read = {i: _statistics(sample) for i, sample in features.each(chosen.tolist())}
    for i in chosen.tolist():
        for modality, statistics in read[i].items():
            if i in held_out:
                clean[modality].append(statistics[:1])
            else:
                rows[modality].append(statistics)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = QualityDetector(next(s[0] for s in rows.values() if s).shape[1] // 3)
    fitted: dict[str, float] = {}
    for modality in (m for m in MODALITIES if rows[m]):
        ruined = torch.cat([torch.arange(len(r)) > 0 for r in rows[modality]])
        fitted[modality] = detector.fit(modality, torch.cat(rows[modality]), ruined)
        if clean[modality]:
            detector.calibrate(modality, torch.cat(clean[modality]))
    return detector, fitted


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
