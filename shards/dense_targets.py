"""Dense targets of clips, ``targets.jsonl``: who sounds in which second and how loud, and who is seen where.

A corpus that draws its clips writes them; a line may as well come from a sound event or object annotation::

    {"clip": "ensemble-000003", "seconds": [{"cat": -28.1}, {}, {"cat": -28.1, "flute": -34.6}],
     "places": [{"class": "cat", "x": 0.5, "y": 0.22}]}

Shapes: T steps, P places of a square grid (row by row), C classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pydantic

from shards.atomic import write_text
from shards.errors import InputError
from shards.json_lines import numbered_lines, parse_line
from shards.schema import Frozen

TARGETS_FILE = "targets.jsonl"
LINE = 'a line is {"clip": ..., "seconds": [{CLASS: DB}, ...], "places": [{"class": ..., "x": ..., "y": ...}]}'
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Level = Annotated[float, pydantic.Field(ge=-120, le=0)]


class Place(Frozen):
    """Somebody in the picture.

    Attributes:
        name: who it is; "class" in files.
        x, y: of the middle, in widths and heights of the frame as it was ingested, from its top left corner.
    """

    name: str = pydantic.Field(min_length=1, alias="class")
    x: Share
    y: Share


class DenseTarget(Frozen):
    """What is known of one clip.

    Attributes:
        clip: the manifest's id of it.
        seconds: of each second from the clip's begin on, who sounds, and how loud: dB re full scale of its sound
            alone. None: nobody has listened.
        places: who is seen where, all through the clip. None: nobody has looked.
    """

    clip: str = pydantic.Field(min_length=1)
    seconds: tuple[dict[str, Level], ...] | None = None
    places: tuple[Place, ...] | None = None

    def classes(self) -> set[str]:
        """All that it names."""
        heard = {name for second in self.seconds or () for name in second}
        return heard | {place.name for place in self.places or ()}

    def levels(self, classes: Sequence[str], times: np.ndarray) -> np.ndarray:
        """Levels in dB, float32 [T, C], NaN where a class is silent: those of the seconds that hold `times`.

        Args:
            times: seconds from the clip's begin, float [T].

        Raises:
            InputError: the target ends before.
        """
        assert self.seconds is not None
        numbers = np.floor(times).astype(int)
        if numbers.max() >= len(self.seconds):
            message = f"the clip '{self.clip}' ends after {len(self.seconds)} seconds here, and is longer"
            raise InputError(message, field="seconds", remedy="give one entry per second of the clip")
        rows = [[self.seconds[n].get(name, np.nan) for name in classes] for n in numbers.tolist()]
        return np.array(rows, np.float32).reshape(len(times), len(classes))

    def cells(self, classes: Sequence[str], side: int) -> np.ndarray:
        """Which cells of a grid hold the middle of somebody of a class, bool [P, C]."""
        assert self.places is not None
        found = np.zeros((side * side, len(classes)), bool)
        for place in self.places:
            row, column = (min(int(at * side), side - 1) for at in (place.y, place.x))
            if place.name in classes:
                found[row * side + column, list(classes).index(place.name)] = True
        return found


def classes_of(targets: Iterable[DenseTarget]) -> tuple[str, ...]:
    """All classes that targets name, sorted."""
    return tuple(sorted({name for target in targets for name in target.classes()}))


def load_targets(path: str | Path) -> dict[str, DenseTarget]:
    """The targets of a file by the clips' ids, in its order.

    Raises:
        InputError: with ``file:line`` and the field: unreadable, empty, a line that is no target, a clip that is
            there twice.
    """
    path, found = Path(path), dict[str, DenseTarget]()
    for line, content in numbered_lines(path, "check the path of the targets", "targets"):
        target = parse_line(DenseTarget, f"{path}:{line}", content, LINE)
        if target.clip in found:
            message = f"the clip '{target.clip}' is there twice"
            raise InputError(message, file=f"{path}:{line}", field="clip", remedy="give one line per clip")
        found[target.clip] = target
    if not found:
        raise InputError("the file has no targets", file=path, remedy="add at least one line")
    return found


def save_targets(path: str | Path, targets: Iterable[DenseTarget]) -> Path:
    """Write a file, whole or not at all; the same targets give the same bytes."""
    rows = (target.model_dump(mode="json", by_alias=True, exclude_none=True) for target in targets)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return Path(path)
