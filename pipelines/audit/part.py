"""The work of one task: measure and sketch a part's clips into one file. No Ray here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models.fbank import MEL_BINS
from pipelines.audit import sketch
from pipelines.audit.clip import AuditClip, Measures, measure
from pipelines.audit.settings import AuditConfig
from pipelines.audit.sources import Part
from pipelines.thumbnails import jpeg
from shards.atomic import replacing
from shards.schema import Frozen

THUMB = 96  # pixels a side, of each of three frames
FOLDER = "parts"


class ClipRecord(Frozen):
    """What is told of one clip in its part's file: who it is, what was measured, what failed."""

    id: str
    split: str
    labels: tuple[str, ...]
    group: str | None
    audio: str
    visual: str
    failure: str | None
    measures: Measures


@dataclass
class PartArrays:
    """Arrays of a part's clips on their way to its file; what a clip has not is empty or 0.

    Attributes:
        digests: uint64 [clips, 3]: of the log-mel, of the frames, of the source's bytes; 0: none.
        sound_hashes: uint64 [clips, 5].
        picture_hashes: uint64 [clips, 6].
        steps: log-mel frames per step of the sound's sketch, [clips].
    """

    digests: list[tuple[int, int, int]] = field(default_factory=list)
    sound_hashes: list[np.ndarray] = field(default_factory=list)
    picture_hashes: list[np.ndarray] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    sounds: list[np.ndarray] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    thumbs: list[bytes] = field(default_factory=list)

    def add(self, clip: AuditClip) -> None:
        """Sketch one clip."""
        source = int(clip.meta.source_sha256[:16] or "0", 16)
        sound = picture = 0
        heard = np.zeros((0, MEL_BINS), np.uint8)
        seen = np.zeros((sketch.STILLS, sketch.SIDE, sketch.SIDE, 3), np.uint8)
        self.sound_hashes.append(np.zeros(len(sketch.TIME_WINDOWS), np.uint64))
        self.picture_hashes.append(np.zeros(2 * len(sketch.CROP_WINDOWS), np.uint64))
        self.thumbs.append(b"")
        if clip.fbank is not None:
            sound, heard = sketch.digest(clip.fbank), sketch.sound_sketch(clip.fbank)
            self.sound_hashes[-1] = sketch.sound_hashes(heard)
        if clip.frames is not None:
            picture, seen = sketch.digest(clip.frames), sketch.picture_sketch(clip.frames)
            self.picture_hashes[-1] = sketch.picture_hashes(seen)
            self.thumbs[-1] = _strip(clip.frames)
        self.digests.append((sound, picture, source))
        self.steps.append(sketch.sound_step(len(clip.fbank)) if clip.fbank is not None else 0)
        self.sounds.append(heard)
        self.pictures.append(seen)

    def tensors(self, lines: list[str]) -> dict[str, np.ndarray]:
        """As they are in the file, where what varies in length lies end to end."""
        records = [line.encode() for line in lines]
        return {
            "digests": np.array(self.digests, np.uint64).reshape(-1, 3),
            "sound_hashes": np.stack(self.sound_hashes),
            "picture_hashes": np.stack(self.picture_hashes),
            "steps": np.array(self.steps, np.int64),
            "sounds": np.concatenate(self.sounds),
            "sound_ends": np.cumsum([len(sound) for sound in self.sounds]),
            "pictures": np.stack(self.pictures),
            "thumbs": _bytes(self.thumbs),
            "thumb_ends": np.cumsum([len(thumb) for thumb in self.thumbs]),
            "records": _bytes(records),
            "record_ends": np.cumsum([len(record) for record in records]),
        }


def audit_part(part: Part, config: AuditConfig, out: Path) -> int:
    """Measure a part into ``out/parts/NAME.safetensors``; clips measured (0: it was there).

    Raises:
        OSError: it can't be written, or the machine can't decode. A bad clip raises nothing: it is recorded.
    """
    path = part_path(part, out)
    if is_done(part, out):
        return 0
    arrays, lines = PartArrays(), []
    for clip, failure in part.read(config):
        arrays.add(clip)
        lines.append(_record(clip, failure).model_dump_json())
    with replacing(path) as temporary:
        save_file(arrays.tensors(lines), temporary, metadata={"digest": part.digest})
    return len(lines)


def part_path(part: Part, out: Path) -> Path:
    """Where a part's file is."""
    return out / FOLDER / f"{part.name}.safetensors"


def is_done(part: Part, out: Path) -> bool:
    """Whether its file is there and of these clips."""
    try:
        with safe_open(part_path(part, out), framework="numpy") as file:
            return (file.metadata() or {}).get("digest") == part.digest
    except (OSError, SafetensorError):
        return False


class PartFile:
    """A part's file, open: whole columns, and single clips' sketches, without the rest."""

    def __init__(self, path: Path):
        self._file = safe_open(path, framework="numpy").__enter__()
        self._ends: dict[str, np.ndarray] = {}

    def column(self, name: str) -> np.ndarray:
        """One of the arrays, whole."""
        return self._file.get_tensor(name)

    def records(self) -> Iterator[ClipRecord]:
        """What is told of each clip."""
        text, begin = self.column("records").tobytes(), 0
        for end in self.column("record_ends"):
            yield ClipRecord.model_validate_json(text[begin:end])
            begin = int(end)

    def record(self, i: int) -> ClipRecord:
        """What is told of clip ``i``."""
        return ClipRecord.model_validate_json(self._piece("records", "record_ends", i).tobytes())

    def sound(self, i: int) -> np.ndarray:
        """Sketch of clip ``i``'s sound, uint8 [T, 128]; T = 0: it has none."""
        return self._piece("sounds", "sound_ends", i)

    def picture(self, i: int) -> np.ndarray:
        """Sketch of clip ``i``'s picture, uint8 [K, 32, 32, 3]."""
        return self._file.get_slice("pictures")[i : i + 1][0]

    def thumb(self, i: int) -> bytes:
        """A JPEG of three frames side by side; empty: it has no picture."""
        return self._piece("thumbs", "thumb_ends", i).tobytes()

    def _piece(self, name: str, ends: str, i: int) -> np.ndarray:
        if ends not in self._ends:
            self._ends[ends] = self.column(ends)
        begin = int(self._ends[ends][i - 1]) if i else 0
        end = int(self._ends[ends][i])
        sliced = self._file.get_slice(name)
        return sliced[begin:end] if end > begin else np.zeros((0, *sliced.get_shape()[1:]), np.uint8)


def _record(clip: AuditClip, failure: str | None) -> ClipRecord:
    meta = clip.meta
    return ClipRecord(
        id=meta.id,
        split=meta.split,
        labels=meta.labels,
        group=meta.group,
        audio="present" if meta.audio.present else str(meta.audio.cause),
        visual="present" if meta.visual.present else str(meta.visual.cause),
        failure=failure,
        measures=measure(clip),
    )


def _strip(frames: np.ndarray) -> bytes:
    places = sorted({(2 * k + 1) * len(frames) // 6 for k in range(3)})
    stills = np.concatenate([frames[i] for i in places], axis=1)
    return jpeg(stills, THUMB * len(places))


def _bytes(parts: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(parts), np.uint8)


def sha(text: str) -> int:
    """64 bits of a text's hash, to choose examples at random but always the same."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
