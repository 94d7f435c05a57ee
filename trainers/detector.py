"""Fitting the quality detector on the training split's cached features."""

from __future__ import annotations

from pathlib import Path

import torch

from models.cavmae import MODALITIES
from models.detector import QualityDetector, token_statistics
from models.noise import generator
from shards.checkpoint import checkpoint_in, load_checkpoint, save_checkpoint
from shards.reader import ShardDataset

SAMPLES = 600  # of the training split, a seeded choice: enough, and bounded for any corpus


def fit_detector(features: ShardDataset, seed: int) -> tuple[QualityDetector, dict[str, float]]:
    """A detector for the depth at which `features` (training split) were taken.

    Returns:
        the detector, and per modality its class-balanced accuracy on what it was fitted to.
    """
    chosen = generator("detector", seed).permutation(len(features))[:SAMPLES]
    rows: dict[str, list[torch.Tensor]] = {m: [] for m in MODALITIES}
    ruined: dict[str, list[torch.Tensor]] = {m: [] for m in MODALITIES}
    width = 0
    for i in chosen:
        for modality, array in features[int(i)].arrays.items():
            tokens = torch.from_numpy(array)  # [V, N, D], row 0 clean
            rows[modality].append(token_statistics(tokens))
            ruined[modality].append(torch.arange(len(tokens)) > 0)
            width = tokens.shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = QualityDetector(width)
    fitted: dict[str, float] = {
        m: detector.fit(m, torch.cat(rows[m]), torch.cat(ruined[m])) for m in MODALITIES if rows[m]
    }
    return detector, fitted


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
