"""Labels per modality: which classes of a clip are heard, seen, or both; ``modality_labels.jsonl``, one clip a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pydantic

from shards.atomic import write_text
from shards.errors import InputError
from shards.schema import Frozen

MODALITY_LABELS_FILE = "modality_labels.jsonl"
Modality = Literal["A", "V", "AV"]


class ModalityLabels(Frozen):
    """What is heard and seen in one clip.

    Attributes:
        id: the manifest's.
        labels: class -> A (heard only), V (seen only) or AV.
        background_music, static_image, voice_over: what else is known of the clip.
    """

    id: str = pydantic.Field(min_length=1)
    labels: dict[str, Modality] = pydantic.Field(min_length=1)
    background_music: bool = False
    static_image: bool = False
    voice_over: bool = False


def save_modality_labels(path: str | Path, clips: Iterable[ModalityLabels]) -> Path:
    """Write the file, whole or not at all; the same clips give the same bytes."""
    write_text(path, "".join(json.dumps(clip.model_dump(mode="json"), ensure_ascii=False) + "\n" for clip in clips))
    return Path(path)


def load_modality_labels(path: str | Path) -> tuple[ModalityLabels, ...]:
    """The clips of a file, in its order.

    Raises:
        InputError: with ``file:line``: unreadable, empty, a line that is none, an id that is there twice.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", file=path, remedy="check the path") from None
    clips: dict[str, ModalityLabels] = {}
    for number, line in enumerate(lines, start=1):
        try:
            clip = ModalityLabels.model_validate_json(line)
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"]) or None
            remedy = "make the corpus again"
            raise InputError(problem["msg"], file=f"{path}:{number}", field=field, remedy=remedy) from None
        if clip.id in clips:
            raise InputError(f"'{clip.id}' is there twice", file=f"{path}:{number}", field="id", remedy="keep one")
        clips[clip.id] = clip
    if not clips:
        raise InputError("no clips", file=path, remedy="make the corpus again")
    return tuple(clips.values())
