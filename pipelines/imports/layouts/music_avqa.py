"""MUSIC-AVQA's features as AVST and Missing-AVQA read them (GeWu-Lab/MUSIC-AVQA): ``<folder>/<video_id>.npy``, float32,
a row a second. The published loaders take rows 0, 6, ..., 54 (`steps=10 steps_at=starts`) and standardise nothing
(`standardise=false`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipelines.imports.layout import Form, Found, Layout, Part
from pipelines.imports.npy_folders import find_clips
from pipelines.imports.settings import ImportConfig

AUDIO = 128  # VGGish after its last ReLU, no PCA
VISUAL: dict[str, tuple[Form, tuple[int, ...]]] = {
    "res18_14x14": ("maps", (512, 14, 14)),
    "res18": ("rows", (512,)),
    "r2plus1d": ("rows", (512,)),
}


class MusicAvqaLayout(ImportConfig):
    """Folders vggish and res18_14x14 (or res18, r2plus1d) of MUSIC-AVQA.

    Attributes:
        audio: folder of the sound's features.
        visual: folder of the picture's: ResNet-18's 14 x 14 maps, the same pooled, or R(2+1)D.
    """

    rows: int = Field(default=60, ge=1)
    audio: str = Field(default="vggish", min_length=1)
    visual: Literal["res18_14x14", "res18", "r2plus1d"] = "res18_14x14"


def find(config: MusicAvqaLayout, source: Path) -> Found:
    """The clips of both folders.

    Raises:
        InputError: one of them is not there.
    """
    form, shape = VISUAL[config.visual]
    members = {
        "audio": (Part(config.audio, "rows", (config.rows, AUDIO)),),
        "visual": (Part(config.visual, form, (config.rows, *shape)),),
    }
    entries, notes = find_clips(source, (config.audio, config.visual))
    return Found(members, False, entries, notes)


LAYOUT = Layout("MUSIC-AVQA: vggish and ResNet-18 (14x14 or pooled), 60 rows", MusicAvqaLayout, find)
