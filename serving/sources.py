"""What a user names as clips: files, folders, manifests, a sound with a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.manifest import JSON_LINES, TABLES, Clip, read_manifest
from shards.errors import InputError
from shards.keys import safe_key

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".jp2", ".avif"}
SOUNDS = {".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aiff", ".aif", ".au", ".caf"}
VIDEOS = {
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".wmv",
    ".flv",
    ".3gp",
    ".gif",
}
MANIFESTS = (*TABLES, *JSON_LINES)


def is_picture(name: str) -> bool:
    """Whether a file is a still picture, by its name."""
    return Path(name).suffix.lower() in PICTURES


def clip_of(path: str | Path) -> Clip:
    """One file as a clip; a picture's has no sound."""
    name = os.fspath(path)
    image = is_picture(name)
    return unlabelled(name, path=None if image else name, image=name if image else None)


def pair_of(audio: str | Path | None, image: str | Path | None) -> Clip:
    """A sound and a picture file as a clip; one of them may be None."""
    sound, picture = (None if path is None else os.fspath(path) for path in (audio, image))
    return unlabelled(" + ".join(filter(None, (sound, picture))), audio=sound, image=picture)


def named_clips(words: Sequence[str | Path], split: str | None = None) -> tuple[list[Clip], list[str]]:
    """The clips that files, folders and manifests name, in order, and what was left out of the folders.

    Args:
        split: of the manifests' rows, those that are taken; None: all.

    Raises:
        InputError: a wrong manifest, one without such a split, or a folder without clips.
    """
    clips: list[Clip] = []
    notes: list[str] = []
    for word in map(Path, words):
        if word.is_dir():
            found, others = _in_folder(word)
            clips += found
            notes += [f"{word}: {len(others)} files are no clips by their names: {_some(others)}"] if others else []
        elif word.suffix.lower() in MANIFESTS:
            clips += _of_split(word, split)
        else:
            clips.append(clip_of(word))
    return clips, notes


def _of_split(manifest: Path, split: str | None) -> list[Clip]:
    rows = read_manifest(manifest)
    found = [clip for clip in rows if split in (None, clip.split)]
    if not found:
        remedy = f"choose one of: {', '.join(sorted({clip.split for clip in rows}))}"
        raise InputError(f"the manifest has no split '{split}'", file=manifest, field="--split", remedy=remedy)
    return found


def _in_folder(folder: Path) -> tuple[list[Clip], list[Path]]:
    """Clips of a folder and those below it, by name, and its other files; hidden ones do not count."""
    clips, others = [], []
    for path in _files(folder):
        if path.suffix.lower() in PICTURES | SOUNDS | VIDEOS:
            clips.append(clip_of(path))
        else:
            others.append(path)
    if not clips:
        remedy = "give a folder of clips, files, or a manifest (.csv, .jsonl); or is it a run that is not finished?"
        raise InputError("no clips here", file=folder, remedy=remedy)
    return clips, others


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")


def unlabelled(name: str, path: str | None = None, audio: str | None = None, image: str | None = None) -> Clip:
    """A clip of which nothing is known but where it is; what of its name can't be printed is escaped."""
    name = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return Clip(
        id=name,
        key=safe_key(name),
        path=path,
        audio_path=audio,
        image_path=image,
        labels=(),
        split="test",
        group=None,
        start=None,
        duration=None,
    )
