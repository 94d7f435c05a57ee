"""Any two folders of ``<clip id>.npy``, rows first. Sizes are those of the first file that can be read."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from pipelines.imports.layout import AXES, Entry, Form, Found, Layout, Part
from pipelines.imports.npy_folders import find_clips
from pipelines.imports.reading import npy_shape
from pipelines.imports.settings import ImportConfig
from shards.errors import InputError


class PlainLayout(ImportConfig):
    """Two folders of .npy files: sound [T, D]; picture [T, D], [T, P, D] or [T, D, H, W].

    Attributes:
        audio, visual: folders, relative to the source.
        audio_shape, visual_shape: of one file, T first; None: as the first file in the order of names that can be read.
        frame_token: the first place of a row is the whole frame's (CLIP's class token).
    """

    audio: str = Field(default="audio", min_length=1)
    visual: str = Field(default="visual", min_length=1)
    audio_shape: tuple[int, ...] | None = None
    visual_shape: tuple[int, ...] | None = None
    frame_token: bool = False


def find(config: PlainLayout, source: Path) -> Found:
    """The clips of both folders.

    Raises:
        InputError: a folder is not there, or shapes that are none of those above.
    """
    entries, notes = find_clips(source, (config.audio, config.visual))
    audio = _part(source, config.audio, "audio", config.audio_shape, entries, config.rows)
    visual = _part(source, config.visual, "visual", config.visual_shape, entries, config.rows)
    if audio.shape[0] != visual.shape[0]:
        message = f"sound has {audio.shape[0]} rows, pictures have {visual.shape[0]}"
        raise InputError(message, file=source, field="rows", remedy="give rows=N with length=fit")
    if config.frame_token and visual.places < 2:
        message = "a frame token without places beside it"
        raise InputError(message, file=source, field="frame_token", remedy="leave it out")
    return Found({"audio": (audio,), "visual": (visual,)}, config.frame_token, entries, notes)


def _part(
    source: Path,
    folder: str,
    member: str,
    given: tuple[int, ...] | None,
    entries: dict[str, dict[str, Entry]],
    rows: int | None,
) -> Part:
    shape = given or _first_shape(source, folder, entries)
    forms: tuple[Form, ...] = ("rows",) if member == "audio" else ("rows", "places", "maps")
    form = next((form for form in forms if AXES[form] == len(shape)), None)
    if form is None or min(shape) < 1:
        wanted = "[T, D]" if member == "audio" else "[T, D], [T, P, D] or [T, D, H, W]"
        message = f"arrays of shape {list(shape)}, not {wanted}"
        raise InputError(message, file=source / folder, field=f"{member}_shape", remedy="reshape the files")
    return Part(folder, form, (rows or shape[0], *shape[1:]))


def _first_shape(source: Path, folder: str, entries: dict[str, dict[str, Entry]]) -> tuple[int, ...]:
    for _, of in sorted(entries.items()):
        if (entry := of.get(folder)) is not None and (shape := npy_shape(source / entry.file)) is not None:
            return shape
    raise InputError("no file here can be read", file=source / folder, remedy="give a folder of .npy arrays")


LAYOUT = Layout(
    "two folders of <clip id>.npy: sound [T, D], picture [T, D], [T, P, D] or [T, D, H, W]", PlainLayout, find
)
