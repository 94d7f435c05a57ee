"""Recordings and overlays that corruptions need: the user's files, in name order, read once per process."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from models.corruptions.record import Corruption
from models.fbank import SAMPLE_RATE
from shards.errors import InputError, nearest

SOUNDS, PICTURES = (".wav",), (".png", ".jpg", ".jpeg")
SOURCE = "its authors' files are in the folder corruptions/ of sarthaxxxxx/AVROBUSTBENCH on GitHub"


@dataclass(frozen=True)
class CorruptionFiles:
    """Two folders of the user's. Of a kind are the files in folders whose names begin with it (``rain/a.wav``,
    ``crowd_image/b.png``) and the files whose names do (``rain_1.wav``, ``frost2.png``).

    Attributes:
        recordings: sounds, .wav of any rate and channels.
        overlays: pictures, .png or .jpg.
    """

    recordings: Path | None = None
    overlays: Path | None = None

    def recording(self, name: str, rng: np.random.Generator) -> np.ndarray:
        """One of a kind, float32 [samples] within -1..1 at 16 kHz, the mean of its channels.

        Raises:
            InputError: there is none, or it is no sound.
        """
        return read_recording(_drawn(self.files("recordings", name), rng))

    def overlay(self, name: str, rng: np.random.Generator) -> np.ndarray:
        """One of a kind, RGBA, uint8 [H, W, 4].

        Raises:
            InputError: there is none, or it is no picture.
        """
        return read_overlay(_drawn(self.files("overlays", name), rng))

    def files(self, field: str, name: str) -> list[Path]:
        """All of a kind, in name order.

        Raises:
            InputError: no folder is given, or it has none.
        """
        folder: Path | None = getattr(self, field)
        endings = SOUNDS if field == "recordings" else PICTURES
        wanted = f"{name}/*{endings[0]} or {name}*{endings[0]}"
        if folder is None:
            raise InputError(
                f"'{name}' needs files", field=field, remedy=f"give {field}=DIR that has {wanted}; {SOURCE}"
            )
        found = _listed(folder, name, endings)
        if not found:
            near = nearest(name, [p.name for p in folder.iterdir()] if folder.is_dir() else [])
            message = f"has no {wanted}"
            raise InputError(message, file=folder, field=field, remedy=f"{near}put some there; {SOURCE}")
        return found

    def fingerprint(self, corruptions: Iterable[Corruption]) -> str:
        """Sha256 of names and contents of all files that these corruptions draw from; empty where they need none.

        Raises:
            InputError: files of one of them are not there, or can't be read.
        """
        wanted = {(f, n) for c in corruptions for f, n in (("recordings", c.recording), ("overlays", c.overlay)) if n}
        total = hashlib.sha256()
        for field, name in sorted(wanted):
            for path in self.files(field, name):
                (read_recording if field == "recordings" else read_overlay)(path)
                total.update(f"{field}/{name}/{path.name}\0".encode() + path.read_bytes())
        return total.hexdigest() if wanted else ""


def _drawn(files: list[Path], rng: np.random.Generator) -> Path:
    return files[int(rng.integers(len(files)))]


@lru_cache(maxsize=64)
def _listed(folder: Path, name: str, endings: tuple[str, ...]) -> list[Path]:
    found = [*folder.glob(f"{name}*"), *folder.glob(f"{name}*/*")]
    return sorted(path for path in found if path.suffix.lower() in endings and path.is_file())


@lru_cache(maxsize=128)
def read_recording(path: Path) -> np.ndarray:
    """A .wav file as float32 [samples] within -1..1 at 16 kHz, the mean of its channels; for reading only.

    Raises:
        InputError: it is no such file, or silent.
    """
    import torch
    from scipy.io import wavfile
    from torchaudio.functional import resample

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # titles and the like in the file
            rate, values = wavfile.read(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"not readable as sound: {error}", file=path, remedy="give .wav files of PCM or float"
        ) from None
    sound = _full_scale(values).reshape(len(values), -1).mean(axis=1)
    if not sound.any():
        raise InputError("is silent", file=path, remedy="take it out of the folder, or give one with sound")
    sound = resample(torch.from_numpy(sound), rate, SAMPLE_RATE).numpy()
    sound.setflags(write=False)
    return sound


def _full_scale(values: np.ndarray) -> np.ndarray:
    """Samples of any format as float32 within -1..1."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)


@lru_cache(maxsize=32)
def read_overlay(path: Path) -> np.ndarray:
    """A picture as RGBA, uint8 [H, W, 4]; for reading only.

    Raises:
        InputError: it is no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            values = np.array(image.convert("RGBA"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"not readable as a picture: {error}", file=path, remedy="give .png or .jpg files") from None
    values.setflags(write=False)
    return values
