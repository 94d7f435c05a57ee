"""What a layout of published features is: where each clip's arrays lie, and how they are arranged.

Shapes: T rows (time steps), P places of a row, D width, H x W a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.imports.notes import Note
from pipelines.imports.settings import ImportConfig
from shards.errors import InputError

Form = Literal["rows", "places", "maps", "clip"]  # [T, D], [T, P, D], [T, D, H, W], [D] of the whole clip
AXES: dict[Form, int] = {"rows": 2, "places": 3, "maps": 4, "clip": 1}


@dataclass(frozen=True)
class Entry:
    """Where one array lies.

    Attributes:
        file: relative to the source's folder.
        size: of the file in bytes.
        row: in the file's dataset; None: the file is a ``.npy``.
    """

    file: str
    size: int
    row: int | None = None


@dataclass(frozen=True)
class Part:
    """One kind of array that clips have.

    Attributes:
        name: as the source calls it: a folder (``res18_14x14``), or an HDF5 file's dataset.
        form: how its axes are arranged.
        shape: of one clip's array, T first.
    """

    name: str
    form: Form
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """D."""
        return self.shape[1] if self.form == "maps" else self.shape[-1]

    @property
    def places(self) -> int:
        """P: 1 of what has none."""
        if self.form == "maps":
            return self.shape[2] * self.shape[3]
        return self.shape[1] if self.form == "places" else 1


Members = Mapping[str, tuple[Part, ...]]  # member of a sample -> its parts, side by side as places


@dataclass(frozen=True)
class Found:
    """What a source holds.

    Attributes:
        members: ``audio`` and ``visual`` by what they are made of.
        frame_token: the first place of a visual row is the whole frame's.
        entries: clip -> part -> where it lies.
        notes: what is there besides.
        question_members, question_entries: the same by question, of what is extracted from questions; may be empty.
    """

    members: Members
    frame_token: bool
    entries: Mapping[str, Mapping[str, Entry]]
    notes: tuple[Note, ...] = ()
    question_members: Members = field(default_factory=dict)
    question_entries: Mapping[str, Mapping[str, Entry]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """One published arrangement of features.

    Attributes:
        about: one line of help.
        config: the class of its settings.
        find: ``find(config, source)`` lists what the folder holds, without reading it. Raises InputError where it is no
            such folder.
    """

    about: str
    config: type[ImportConfig]
    find: Callable[[Any, Path], Found]


def places_of(parts: tuple[Part, ...]) -> int:
    """Places of all parts, side by side.

    Raises:
        InputError: they are of different widths.
    """
    if len({part.width for part in parts}) > 1:
        said = ", ".join(f"{part.name} is {part.width} wide" for part in parts)
        raise InputError(f"parts of one modality have one width; {said}", field="visual", remedy="choose one of them")
    return sum(part.places for part in parts)
