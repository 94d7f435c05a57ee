"""Which clips have the same sound, picture or file: candidates by hash, decided by correlation, joined to groups."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.audit.candidates import close_pairs, equal_pairs
from pipelines.audit.part import ClipRecord, PartFile
from pipelines.audit.settings import AuditConfig
from pipelines.audit.similarity import coarser, picture_similarity, same_extent, sound_similarity

OPEN_PARTS = 64  # files that one process has open
EXACT = 1.0
NEVER = -1.0


class Match(NamedTuple):
    """How alike two clips are, by position: 1 is exact, 0 is no duplicate, else the correlation that decided.

    ``source``: both are of the same file.
    """

    a: int
    b: int
    audio: float
    visual: float
    source: bool


MATCH = np.dtype([("a", "i8"), ("b", "i8"), ("audio", "f8"), ("visual", "f8"), ("source", "?")])  # 33 bytes a pair


def match_array(found: Iterable[Match]) -> np.ndarray:
    """Matches as an array of `MATCH`."""
    return np.array(list(found), MATCH)


@dataclass
class Columns:
    """What finding duplicates needs to know of every clip, mapped from disk.

    Attributes:
        digests: uint64 [clips, 3]: sound, picture, file; 0: none.
        sound_hashes, picture_hashes: uint64 [clips, windows].
        steps: int64 [clips], log-mel frames per step of the sound's sketch.
        comparable: bool [clips, 2]: the sound, the picture holds enough to be another's duplicate.
        splits: int32 [clips], numbers of names.
        groups: int64 [clips], hashes of names; 0: none.
        begins: int64 [parts + 1], position of each part's first clip.
    """

    digests: np.ndarray
    sound_hashes: np.ndarray
    picture_hashes: np.ndarray
    steps: np.ndarray
    comparable: np.ndarray
    splits: np.ndarray
    groups: np.ndarray
    begins: np.ndarray


class ClipFiles:
    """What the parts' files hold of a clip, by its position; a few files are open at a time."""

    def __init__(self, paths: Sequence[Path], begins: np.ndarray):
        self.paths, self.begins = paths, begins
        self._open: OrderedDict[int, PartFile] = OrderedDict()

    def file_of(self, clip: int) -> tuple[PartFile, int]:
        """The clip's part, and its position there."""
        part = int(np.searchsorted(self.begins, clip, side="right")) - 1
        if part not in self._open:
            if len(self._open) >= OPEN_PARTS:
                self._open.popitem(last=False)
            self._open[part] = PartFile(self.paths[part])
        self._open.move_to_end(part)
        return self._open[part], clip - int(self.begins[part])

    def record(self, clip: int) -> ClipRecord:
        """What is told of it."""
        file, i = self.file_of(clip)
        return file.record(i)

    def sound(self, clip: int) -> np.ndarray:
        """Sketch of its sound, uint8 [T, 128]."""
        file, i = self.file_of(clip)
        return file.sound(i)

    def picture(self, clip: int) -> np.ndarray:
        """Sketch of its picture, uint8 [K, S, S, 3]."""
        file, i = self.file_of(clip)
        return file.picture(i)

    def thumb(self, clip: int) -> bytes:
        """A JPEG of three frames side by side; empty: it has no picture."""
        file, i = self.file_of(clip)
        return file.thumb(i)


def candidate_pairs(columns: Columns, config: AuditConfig) -> np.ndarray:
    """int32 [pairs, 2], ascending: clips that may be duplicates."""
    search = {name: getattr(config, name) for name in ("tables", "neighbours", "distance", "seed")}
    hashes = (columns.sound_hashes, columns.picture_hashes)
    parts = []
    for stream, values in enumerate(hashes):
        usable = np.asarray(columns.comparable[:, stream])
        parts.append(close_pairs(values, usable, **search, nearest=config.candidates)[:2])
        parts.append(equal_pairs(columns.digests[:, stream], usable)[:2])
    parts.append(equal_pairs(columns.digests[:, 2], np.asarray(columns.digests[:, 2]) != 0)[:2])
    count = len(columns.digests)
    keys = np.unique(np.concatenate([a.astype(np.int64) * count + b for a, b in parts]))
    pairs = np.empty((len(keys), 2), np.int32)
    np.floor_divide(keys, max(count, 1), out=pairs[:, 0], casting="unsafe")
    np.remainder(keys, max(count, 1), out=pairs[:, 1], casting="unsafe")
    return pairs


def match_pairs(pairs: np.ndarray, columns: Columns, paths: Sequence[Path], config: AuditConfig) -> np.ndarray:
    """Those of the pairs [pairs, 2] that are duplicates, or of the same file: an array of `MATCH`."""
    files = ClipFiles(paths, columns.begins)
    found = (match(int(a), int(b), columns, files, config) for a, b in pairs)
    return match_array(one for one in found if one.audio or one.visual or one.source)


def match(a: int, b: int, columns: Columns, files: ClipFiles, config: AuditConfig) -> Match:
    """Compare two clips."""
    heard, seen = (bool(columns.comparable[a, s] and columns.comparable[b, s]) for s in (0, 1))
    equal = columns.digests[a] == columns.digests[b]
    audio = visual = crop = NEVER
    if heard:
        audio = EXACT if equal[0] else _sound(a, b, columns.steps, files)
    if seen and equal[1]:
        visual = EXACT
    elif seen:
        one, two = files.picture(a), files.picture(b)
        visual = same_extent(one, two)
        if visual < config.near_visual:
            crop = picture_similarity(one, two)
    source = bool(equal[2] and columns.digests[a, 2])
    return Match(a, b, *decide(audio, visual, crop, config), source)


def _sound(a: int, b: int, steps: np.ndarray, files: ClipFiles) -> float:
    """Correlation of their sketches, made of equal steps."""
    step = max(int(steps[a]), int(steps[b]))
    return sound_similarity(*(coarser(files.sound(clip), step // int(steps[clip])) for clip in (a, b)))


def decide(audio: float, visual: float, crop: float, config: AuditConfig) -> tuple[float, float]:
    """From correlations to what counts, 0 for what does not: of the sound, and of the picture.

    Both together need less than either alone; and one that is beyond doubt supports the other, for which still
    less is enough then.
    """
    both = audio >= config.both_audio and max(visual, crop) >= config.both_visual
    same_sound = both or audio >= config.near_audio
    same_picture = both or visual >= config.near_visual or crop >= config.near_crop
    same_sound, same_picture = (
        same_sound or (visual >= config.near_visual and audio >= config.supported_audio),
        same_picture or (same_sound and max(visual, crop) >= config.supported_visual),
    )
    return (audio if same_sound else 0.0), (max(visual, crop) if same_picture else 0.0)
