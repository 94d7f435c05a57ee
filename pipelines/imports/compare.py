"""How our own features of the same clips differ from imported ones: per channel, over the clips that both have.

Steps are matched by their time: of the longer sequence those at the other's middles. Where the grids of places differ,
both are averaged over their places; a frame token that only one has is left out. Shapes: T steps, P places, D width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards.atomic import write_text
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import MODALITIES, DatasetInfo
from shards.sequence import SequenceSpec, chosen_steps, sequence_spec

COMPARE_FILE = "compare.json"
QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "greatest": 1.0}
MEASURES = {
    "mean, theirs": "mean_theirs",
    "mean, ours": "mean_ours",
    "std, theirs": "std_theirs",
    "std, ours": "std_ours",
    "cosine": "cosine",
}


@dataclass
class Sums:
    """Running sums per channel over pairs of values x (theirs), y (ours), float64 [D]."""

    width: int
    count: int = 0
    clips: int = 0
    sums: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, theirs: np.ndarray, ours: np.ndarray) -> None:
        """The values of one clip, [..., D] each."""
        x, y = (values.reshape(-1, self.width).astype(np.float64) for values in (theirs, ours))
        for name, values in {"x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y}.items():
            self.sums[name] = self.sums.get(name, np.zeros(self.width)) + values.sum(axis=0)
        self.count, self.clips = self.count + len(x), self.clips + 1

    def channels(self) -> dict[str, np.ndarray]:
        """Mean and standard deviation of both, and the cosine of a channel's values in one to those in the other
        (NaN of a channel that is zero in either), [D] each."""
        of = {name: total / self.count for name, total in self.sums.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = of["xy"] / np.sqrt(of["xx"] * of["yy"])
        return {
            "mean_theirs": of["x"],
            "mean_ours": of["y"],
            "std_theirs": np.sqrt(np.maximum(of["xx"] - of["x"] ** 2, 0)),
            "std_ours": np.sqrt(np.maximum(of["yy"] - of["y"] ** 2, 0)),
            "cosine": cosine,
        }


def compare(imported: Path, own: Path, out: Path | None = None) -> dict[str, Any]:
    """Compare two datasets of sequence features.

    Args:
        imported: theirs.
        own: as `avmend features` made them, or any other sequence features.
        out: folder for ``compare.json``.

    Returns:
        by modality: clips, values per channel, a summary over channels of each of `MEASURES`, and the channels
        themselves; or why it can't be compared.

    Raises:
        InputError: no sequence features, or no clip in common.
    """
    infos = DatasetInfo.load(imported), DatasetInfo.load(own)
    specs = sequence_spec(infos[0]), sequence_spec(infos[1])
    sums = {m: Sums(getattr(specs[0], m)) for m in MODALITIES}
    different = {m: _widths(m, specs) for m in MODALITIES}
    pairs = 0
    for theirs, ours in _pairs(imported, own, infos):
        pairs += 1
        for modality in MODALITIES:
            if modality in theirs and modality in ours and different[modality] is None:
                sums[modality].add(*_matched(modality, theirs[modality], ours[modality], specs))
    if not pairs:
        remedy = "extract the features of clips that have the same ids"
        raise InputError("has no clip in common with the import", file=own, field="--compare", remedy=remedy)
    found: dict[str, Any] = {"theirs": infos[0].fingerprint(), "ours": infos[1].fingerprint(), "clips": pairs}
    found |= {m: different[m] or _summary(sums[m]) for m in MODALITIES}
    if out is not None:
        write_text(Path(out) / COMPARE_FILE, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def table(found: dict[str, Any]) -> str:
    """The comparison as lines of text: a line per measure, over channels."""
    lines = [f"{found['clips']} clips in common; over channels:"]
    for modality in MODALITIES:
        of = found[modality]
        if "reason" in of:
            lines.append(f"{modality}: {of['reason']}")
            continue
        lines.append(f"{modality}: {of['clips']} clips, {of['values']} values a channel, {of['width']} channels")
        for name, measure in MEASURES.items():
            said = ", ".join(f"{quantile} {value:.4g}" for quantile, value in of["summary"][measure].items())
            lines.append(f"  {name}: {said}")
        if of["dead"]:
            lines.append(f"  {of['dead']} channels are zero in one of them and have no cosine")
    return "\n".join(lines)


def _widths(modality: str, specs: tuple[SequenceSpec, SequenceSpec]) -> dict[str, str] | None:
    theirs, ours = (getattr(spec, modality) for spec in specs)
    if theirs == ours:
        return None
    return {"reason": f"theirs are {theirs} wide, ours {ours}: features of different networks"}


def _pairs(
    imported: Path, own: Path, infos: tuple[DatasetInfo, DatasetInfo]
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """The arrays of every clip that both have, by modality."""
    place: dict[str, tuple[ShardDataset, int]] = {}
    for split in infos[1].splits:
        ours = ShardDataset(own, split, info=infos[1])
        place |= {clip: (ours, i) for i, clip in enumerate(ours.ids)}
    for split in infos[0].splits:
        theirs = ShardDataset(imported, split, info=infos[0])
        for i, clip in enumerate(theirs.ids):
            if clip in place:
                data, j = place[clip]
                yield theirs[i].arrays, data[j].arrays


def _matched(
    modality: str, theirs: np.ndarray, ours: np.ndarray, specs: tuple[SequenceSpec, SequenceSpec]
) -> tuple[np.ndarray, np.ndarray]:
    """Both at the same steps and places."""
    steps = min(len(theirs), len(ours))
    theirs, ours = (x if len(x) == steps else x[chosen_steps(len(x), steps, "middles")] for x in (theirs, ours))
    if modality == "audio" or (specs[0].places, specs[0].frame_token) == (specs[1].places, specs[1].frame_token):
        return theirs, ours
    theirs, ours = (x[:, int(spec.frame_token) :] for x, spec in zip((theirs, ours), specs, strict=True))
    if theirs.shape == ours.shape:
        return theirs, ours
    return theirs.mean(axis=1, dtype=np.float64), ours.mean(axis=1, dtype=np.float64)


def _summary(sums: Sums) -> dict[str, Any]:
    if not sums.count:
        return {"reason": "no clip has it in both"}
    channels = sums.channels()
    alive = np.isfinite(channels["cosine"])
    return {
        "clips": sums.clips,
        "values": sums.count,
        "width": sums.width,
        "dead": int((~alive).sum()),
        "summary": {name: _quantiles(values[np.isfinite(values)]) for name, values in channels.items()},
        "channels": {name: [float(v) if np.isfinite(v) else None for v in x] for name, x in channels.items()},
    }


def _quantiles(values: np.ndarray) -> dict[str, float]:
    """Over channels; the mean, too. Empty of none."""
    if not len(values):
        return {}
    return {
        "average": float(values.mean()),
        **{name: float(np.quantile(values, share)) for name, share in QUANTILES.items()},
    }
