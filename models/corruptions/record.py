"""What a corruption is: a function of a picture, one of a waveform, and the user's files that they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


class Corrupting(Protocol):
    """A function of one picture, uint8 [S, S, 3], or of one waveform at 16 kHz, float32 [samples] within -1..1, of a
    severity from 1 to 5 and of a random generator, from which alone it draws. Shape and type stay.

    Where the record names an overlay or a recording, that comes as the fourth argument: RGBA, uint8 [H, W, 4], or
    float32 [samples] at 16 kHz.
    """

    def __call__(self, x: np.ndarray, severity: int, rng: np.random.Generator, *file: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        kind: its name, as tables have it.
        protocol: whose it is: the table that it belongs to.
        about: what it does to sound and picture.
        picture, sound: what it does to each; None: nothing.
        overlay: whose files the picture needs: a folder of that name in `overlays`, or files whose names begin so.
        recording: whose files the sound needs, the same in `recordings`.
        jpeg: quality at which its pictures are stored afterwards, as the protocol does; None: as they are.
    """

    kind: str
    protocol: str
    about: str
    picture: Corrupting | None = None
    sound: Corrupting | None = None
    overlay: str = ""
    recording: str = ""
    jpeg: int | None = None
