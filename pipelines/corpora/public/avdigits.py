"""AV-Digits: spoken digits (Free Spoken Digit Dataset) with handwritten ones (MNIST), as mp4 clips.

Each recording is paired with a handwritten image of the same digit; no image is used twice, so none can be
in two splits. The pairing is synthetic (drawn from the seed), both signals are real. A clip lasts as long as
its recording; nothing is padded. Two manifests over the same clips:

- ``official.csv``: of each speaker and digit, recordings 0-4 are test (the data set's own split), 5-9 val.
- ``speakers.csv``: theo and lucas are test. Validation is recordings 0-4 of the other four speakers: a fifth
  speaker less to train on would cost a quarter of the training data. ``group`` is the speaker in test, and
  the speaker's block of recordings elsewhere, so what must not be divided is not.
"""

from __future__ import annotations

import collections
import functools
import json
import re
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from pipelines.corpora.build import build_clips
from pipelines.corpora.corpus import EncodedConfig, StartProgress, Summary
from pipelines.corpora.encode import encode_clip
from pipelines.manifest import write_manifest
from shards.atomic import write_text
from shards.errors import InputError

IMAGES = "mnist_10k.npz"
RECORDINGS = "recordings"
TEST_SPEAKERS = ("theo", "lucas")
SIZE = 96  # pixels, from 28
FPS = 8  # about: a whole number of frames lasts exactly as long as the recording


@dataclass(frozen=True, order=True)
class Recording:
    """One spoken digit, ``{digit}_{speaker}_{index}.wav``."""

    digit: int
    speaker: str
    index: int

    @property
    def id(self) -> str:
        """The file's name without its ending."""
        return f"{self.digit}_{self.speaker}_{self.index}"


class AvdigitsConfig(EncodedConfig):
    """Spoken and handwritten digits, paired."""

    source: Path
    """Folder of recordings/ and mnist_10k.npz."""
    limit: int | None = pydantic.Field(default=None, ge=1, validation_alias=pydantic.AliasChoices("limit", "clips"))
    """Make only so many clips, spread over speakers and digits: the same clips as in the full corpus."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Of the pairing and of what the limit chooses."""


def build(config: AvdigitsConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Make ``clips/``, ``corpus.json``, ``official.csv`` and ``speakers.csv`` in ``out``.

    Raises:
        InputError: the source lacks a part, or has fewer images of a digit than recordings.
    """
    source, out, seed = config.source.resolve(), Path(out), config.seed
    recordings = find_recordings(source)
    images = pair(recordings, _arrays(source / IMAGES)["labels"], seed, source / IMAGES)
    chosen = choose(recordings, config.limit, seed)
    clips = [_describe(source, recording, images[recording]) for recording in chosen]
    with progress(len(clips)) as line:
        encode = functools.partial(encode_digit, source)
        build_clips(out / "clips", clips, encode, jobs=config.jobs, advance=line.advance)
    splits = {"official": [_official(r) for r in chosen], "speakers": [_speakers(r) for r in chosen]}
    facts = {
        "name": "avdigits",
        "seed": seed,
        "clips": len(chosen),
        "pairing": "synthetic: the digit's recordings and images, each image used once",
        "splits": {
            name: dict(sorted(collections.Counter(row["split"] for row in rows).items()))
            for name, rows in splits.items()
        },
    }
    write_text(out / "corpus.json", json.dumps(facts, indent=1) + "\n")
    manifests = {name: out / f"{name}.csv" for name in splits}
    for name, path in manifests.items():
        write_manifest(path, splits[name])
    where = " and ".join(map(str, manifests.values()))
    return Summary(len(chosen), manifests, lines=(f"{len(chosen)} clips: {where}",))


def find_recordings(source: Path) -> list[Recording]:
    """All recordings of ``source``, sorted by digit, speaker and index.

    Raises:
        InputError: there are none, or a wav file is named otherwise.
    """
    folder = source / RECORDINGS
    found = []
    for path in sorted(folder.glob("*.wav")):
        match = re.fullmatch(r"(\d)_([a-z]+)_(\d+)", path.stem)
        if not match:
            raise InputError(
                "not named like a recording",
                file=path,
                remedy="name it {digit}_{speaker}_{index}.wav, or remove it",
            )
        found.append(Recording(int(match[1]), match[2], int(match[3])))
    if not found:
        raise InputError(
            "no recordings (*.wav)",
            file=folder,
            field="source",
            remedy=f"give the folder that holds {RECORDINGS}/",
        )
    return sorted(found)


def pair(
    recordings: Sequence[Recording], labels: np.ndarray, seed: int, file: str | Path | None = None
) -> dict[Recording, int]:
    """A handwritten image of its digit for each recording, none twice: recording -> number of the image.

    Args:
        recordings: the spoken digits.
        labels: the digit of each image, integers [images].
        seed: of the pairing.
        file: where the labels are from, for the message of the error.

    Raises:
        InputError: a digit has fewer images than recordings.
    """
    pairs: dict[Recording, int] = {}
    for digit in range(10):
        spoken = sorted(r for r in recordings if r.digit == digit)
        written = np.random.default_rng([seed, digit]).permutation(np.flatnonzero(labels == digit))
        if len(written) < len(spoken):
            raise InputError(
                f"{len(written)} images of the digit {digit} for {len(spoken)} recordings",
                file=file,
                field="labels",
                remedy="give more images, each is used once",
            )
        pairs.update(zip(spoken, written.tolist(), strict=False))
    return pairs


def choose(recordings: Sequence[Recording], limit: int | None, seed: int) -> list[Recording]:
    """``limit`` of the recordings, as evenly as can be over digits and speakers, sorted; all if ``None``.

    Raises:
        InputError: the limit is below 1.
    """
    if limit is None:
        return sorted(recordings)
    if limit < 1:
        raise InputError(f"{limit} is no number of clips", field="limit", remedy="give 1 or more")
    order = np.random.default_rng([seed, 10]).permutation(len(recordings))
    turns: collections.Counter[tuple[int, str]] = collections.Counter()
    ranked: list[tuple[int, int, Recording]] = []
    for recording in (recordings[i] for i in order):
        cell = (recording.digit, recording.speaker)
        ranked.append((turns[cell], len(ranked), recording))
        turns[cell] += 1
    return sorted(recording for _, _, recording in sorted(ranked)[:limit])


def encode_digit(source: Path, clip: Mapping[str, Any], path: Path) -> None:
    """Encode one pair: the image, still and scaled up, for exactly as long as the recording."""
    image = _arrays(source / IMAGES)["images"][clip["image"]]
    frames = np.repeat(image[None], clip["frames"], axis=0)
    encode_clip(path, frames, Fraction(clip["fps"]), source / RECORDINGS / f"{clip['id']}.wav", SIZE)


def _describe(source: Path, recording: Recording, image: int) -> dict[str, Any]:
    path = source / RECORDINGS / f"{recording.id}.wav"
    try:
        with wave.open(str(path)) as file:
            seconds = Fraction(file.getnframes(), file.getframerate())
    except (wave.Error, EOFError) as error:
        raise InputError(f"no wav file ({error})", file=path, remedy="restore the recording") from None
    if not seconds:
        raise InputError("the recording is empty", file=path, remedy="restore the recording")
    frames = max(2, round(seconds * FPS))
    return {
        "id": recording.id,
        "labels": [str(recording.digit)],
        "speaker": recording.speaker,
        "recording": recording.index,
        "image": image,
        "seconds": float(seconds),
        "frames": frames,
        "fps": str(Fraction(frames) / seconds),
        "size": SIZE,
    }


def _row(recording: Recording, split: str) -> dict[str, str]:
    clip_id = recording.id
    return {"id": clip_id, "path": f"clips/{clip_id}.mp4", "label": str(recording.digit), "split": split}


def _official(recording: Recording) -> dict[str, str]:
    return _row(recording, "test" if recording.index < 5 else "val" if recording.index < 10 else "train")


def _speakers(recording: Recording) -> dict[str, str]:
    if recording.speaker in TEST_SPEAKERS:
        return _row(recording, "test") | {"group": recording.speaker}
    held_out = recording.index < 5
    block = "recordings 0-4" if held_out else "recordings 5 and up"
    return _row(recording, "val" if held_out else "train") | {"group": f"{recording.speaker}, {block}"}


@functools.lru_cache(maxsize=1)
def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    """``images`` uint8 [n, 28, 28] and ``labels`` [n], read once per process."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in ("images", "labels")}
    except FileNotFoundError:
        raise InputError("no such file", file=path, field="source", remedy="give the folder that holds it") from None
    except (KeyError, ValueError) as error:
        raise InputError(
            f"not the images ({error})", file=path, remedy="it needs arrays 'images' and 'labels'"
        ) from None
