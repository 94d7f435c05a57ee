"""A few clips that the page offers: a folder of the user's, or scenes that are drawn here and now."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from serving.sources import PICTURES, SOUNDS, VIDEOS
from shards.errors import InputError

MOST = 12
DRAWN = (0, 5, 9)  # numbers of scenes, of three classes
SECONDS, SIDE = 2.0, 160


@dataclass(frozen=True)
class Example:
    """A clip by its file's name."""

    name: str
    data: bytes = field(repr=False)


def examples_of(folder: Path | None, max_bytes: int) -> tuple[Example, ...]:
    """The first clips of a folder by name; without one, three drawn scenes.

    Raises:
        InputError: the folder has no clips, or one is too large to be sent back.
    """
    if folder is None:
        return drawn()
    if not folder.is_dir():
        raise InputError("no such folder", file=folder, field="examples", remedy="give a folder of clips")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES | SOUNDS | VIDEOS and p.is_file())
    if not paths:
        raise InputError("no clips here", file=folder, field="examples", remedy="give a folder of a few clips")
    for path in paths[:MOST]:
        if path.stat().st_size > max_bytes // 2:
            raise InputError(
                "is too large for an example", file=path, field="examples", remedy="cut it, or raise max_mb"
            )
    return tuple(Example(path.name, path.read_bytes()) for path in paths[:MOST])


def drawn() -> tuple[Example, ...]:
    """Three scenes of the embedded corpus ``scenes``, as mp4."""
    from pipelines.corpora.synthetic.scenes import ScenesConfig, describe, encode_scene

    config, found = ScenesConfig(clips=max(DRAWN) + 1, seconds=SECONDS, size=SIDE), []
    with tempfile.TemporaryDirectory() as folder:
        for number in DRAWN:
            scene = describe(config, number)
            path = Path(folder) / f"{number}.mp4"
            encode_scene(scene, path)
            found.append(Example(f"drawn {scene['labels'][0]}.mp4", path.read_bytes()))
    return tuple(found)
