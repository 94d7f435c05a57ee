"""VGGSounder (ICCV 2025): VGGSound's test clips with all their classes, each heard, seen, or both.

A file is a CSV with a row per label: ``video_id,label,modality,background_music,static_image,voice_over``. Published
scores leave out clips with background music.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator
from pathlib import Path

import pydantic

from pipelines.corpora.corpus import CorpusConfig, StartProgress, Summary
from pipelines.corpora.public.cavmae_json import write_rows
from pipelines.corpora.public.vggsound_csv import check_label
from shards.atomic import write_text
from shards.class_order import read_class_order
from shards.csv_rows import csv_rows
from shards.errors import InputError
from shards.modality_labels import MODALITY_LABELS_FILE, ModalityLabels, save_modality_labels

COLUMNS = ["video_id", "label", "modality", "background_music", "static_image", "voice_over"]
META = COLUMNS[3:]


class VggsounderConfig(CorpusConfig):
    """VGGSound's test clips with labels per modality: VGGSounder."""

    csv: Path
    """File of a row per label, vggsounder.csv or vggsounder+background-music.csv."""
    classes: Path
    """File of the 309 classes in the order of published heads, classes.csv."""
    videos: Path
    """Folder of the 10 s clips, <video_id>.mp4."""
    background_music: bool = False
    """Keep clips with background music, which published scores leave out."""


def build(config: VggsounderConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Write ``manifest.csv`` (all labels of a clip), ``modality_labels.jsonl``, ``classes.json``, ``corpus.json``.

    Raises:
        InputError: a row of another form, an unknown class or modality, a label twice, clips that all have
            background music.
    """
    order = read_class_order(config.classes)
    clips = read_vggsounder(config.csv, order)
    chosen = [clip for clip in clips if config.background_music or not clip.background_music]
    if not chosen:
        remedy = "give background_music=true to keep them"
        raise InputError("every clip has background music", file=config.csv, field="background_music", remedy=remedy)
    folder = config.videos.resolve()
    rows = [{"id": c.id, "path": str(folder / f"{c.id}.mp4"), "label": [*c.labels], "split": "test"} for c in chosen]
    summary = write_rows(out, rows, order)
    save_modality_labels(Path(out) / MODALITY_LABELS_FILE, chosen)
    counts = collections.Counter(modality for clip in chosen for modality in clip.labels.values())
    facts = {
        "name": "vggsounder",
        "clips": len(chosen),
        "left_out_for_background_music": len(clips) - len(chosen),
        "labels": counts.total(),
        "modalities": dict(sorted(counts.items())),
        **{name: sum(getattr(clip, name) for clip in chosen) for name in META},
    }
    write_text(Path(out) / "corpus.json", json.dumps(facts, indent=1) + "\n")
    by_modality = ", ".join(f"{count} {modality}" for modality, count in sorted(counts.items()))
    lines = (*summary.lines, f"{counts.total()} labels ({by_modality}): {Path(out) / MODALITY_LABELS_FILE}")
    return Summary(len(chosen), summary.manifests, lines=lines)


def read_vggsounder(path: str | Path, classes: tuple[str, ...]) -> list[ModalityLabels]:
    """The clips of a file, in its order.

    Raises:
        InputError: as `build`.
    """
    clips: dict[str, dict[str, str]] = {}
    meta: dict[str, dict[str, bool]] = {}
    for where, row in _rows(path):
        video, label, modality = row["video_id"], row["label"], row["modality"]
        check_label(label, classes, where)
        labels = clips.setdefault(video, {})
        if label in labels:
            raise InputError(f"'{label}' is there twice for {video}", file=where, field="label", remedy="keep one")
        labels[label] = modality
        found = {name: _flag(where, name, row[name]) for name in META}
        if meta.setdefault(video, found) != found:
            raise InputError(f"the rows of {video} differ", file=where, field=META[0], remedy="say the same in each")
    return [_clip(path, video, labels, meta[video]) for video, labels in clips.items()]


def _rows(path: str | Path) -> Iterator[tuple[str, dict[str, str]]]:
    header: list[str] | None = None
    for line, row in csv_rows(path):
        where = f"{path}:{line}"
        if header is None:
            header = [name.strip() for name in row]
            if missing := [name for name in COLUMNS if name not in header]:
                raise InputError("no such column", file=where, field=missing[0], remedy=f"the columns: {COLUMNS}")
        elif len(row) != len(header):
            raise InputError(f"{len(row)} columns", file=where, remedy=f"the columns are {', '.join(header)}")
        else:
            yield where, {name: value.strip() for name, value in zip(header, row, strict=True)}


def _flag(where: str, name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise InputError(f"'{text}' is neither", file=where, field=name, remedy="give True or False")
    return text.lower() == "true"


def _clip(path: str | Path, video: str, labels: dict[str, str], meta: dict[str, bool]) -> ModalityLabels:
    try:
        return ModalityLabels.model_validate({"id": video, "labels": labels, **meta})
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        label = str(problem["loc"][-1])
        message = f"'{labels.get(label, label)}' is no modality of '{label}' in {video}"
        raise InputError(message, file=path, field="modality", remedy="give A, V or AV") from None
