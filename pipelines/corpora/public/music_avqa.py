"""MUSIC-AVQA's questions: the original files, and the updated ones (or v2.0's, see `music_avqa_v2`).

``avqa-train_fake.json`` holds the train questions about synthetic videos
alone (ids sa..., va..., vv...); it asks 56 questions twice, with different answers, and both stay.

Two splits: the files' own, in which thousands of videos are in several splits (2,296 of the 6,399 test videos
are in val), and one without common videos: all questions about a video, its flipped or numbered versions and
the synthetic videos of its number go together, near 70 / 10 / 20 %, drawn from the seed.
"""

from __future__ import annotations

import collections
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic

from pipelines.corpora.corpus import StartProgress, Summary
from pipelines.corpora.public.music_avqa_entries import Entries, read_entries
from pipelines.corpora.public.question_files import (
    OFFICIAL,
    QuestionFilesConfig,
    write_corpus,
)
from shards.questions import Question

FILES = {
    split: (
        f"avqa-{split}.json",
        f"avqa-{split}_*.json",
        f"{split}_balance.json",
        f"{split}_bias.json",
    )
    for split in ("train", "val", "test")
}
FAKE = "avqa-train_fake.json"
_SHARES = (("train", 0.7), ("val", 0.8), ("test", 1.0))  # up to which share of the groups


class MusicAvqaConfig(QuestionFilesConfig):
    """Questions about musical performances: MUSIC-AVQA, as first published, as updated, and v2.0."""

    seed: int = pydantic.Field(default=0, ge=0)
    """Of the split without common videos."""


def build(config: MusicAvqaConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Write ``questions.jsonl`` (the files' splits), ``questions-disjoint.jsonl`` and ``corpus.json``.

    Given the folder of the videos, ``manifest.csv`` and ``manifest-disjoint.csv`` name ``<video_id>.mp4`` in it.

    Raises:
        InputError: a file is not of this form, naming the entry and the field.
    """
    files = config.find(FILES)
    found = read_entries(files)
    synthetic = {path.name for split, path in files if split == "train"} == {FAKE}
    if synthetic:
        found.notes.insert(
            0, "the only train file here is that of synthetic videos: no train questions about real ones"
        )
    return write_entries(out, "music_avqa", config, files, found, {"synthetic_train_only": synthetic})


def write_entries(
    out: str | Path,
    name: str,
    config: MusicAvqaConfig,
    files: Sequence[tuple[str, Path]],
    found: Entries,
    facts: Mapping[str, Any],
) -> Summary:
    """Write the corpus ``name`` of the questions that were found, with both splits; ``facts``: more for corpus.json."""
    questions, sources = found.questions, found.sources
    facts = {
        **facts,
        "files": [f"{split}: {path.name}" for split, path in files],
        "deleted": found.deleted,
        "contradictory": _contradictory(questions),
        "videos_in_several_splits": _shared(questions),
        "seed": config.seed,
    }
    sets = {OFFICIAL: questions, "disjoint": disjoint(questions, sources, config.seed)}
    summary = write_corpus(out, name, sets, video_rows(config, sources), facts)
    return replace(summary, lines=(summary.lines[0], *found.notes, *summary.lines[1:]))


def video_rows(config: MusicAvqaConfig, clips: Iterable[str]) -> dict[str, dict[str, str]] | None:
    """Clip -> the manifest's columns that name its video; None where there is no folder of them."""
    if config.videos is None:
        return None
    folder = config.videos.resolve()
    return {clip: {"path": str(folder / f"{clip}.mp4")} for clip in clips}


def disjoint(questions: Iterable[Question], sources: Mapping[str, tuple[str, str]], seed: int) -> list[Question]:
    """The same questions, split so that no video (nor a version of it) is in two splits.

    Args:
        questions: of any splits.
        sources: clip -> the videos that its picture and its sound are from.
        seed: decides, with the group's name, where a group of videos goes.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name] = parent[parent[name]]
        return name

    for pair in sources.values():
        one, other = sorted(root(_family(video)) for video in pair)
        parent[other] = one
    splits = {clip: _drawn(seed, root(_family(pair[0]))) for clip, pair in sources.items()}
    return [question.model_copy(update={"split": splits[question.clip]}) for question in questions]


def _contradictory(questions: Iterable[Question]) -> int:
    """How many different questions about a clip have several answers."""
    answers = collections.defaultdict(set)
    for question in questions:
        answers[question.clip, question.question].add(question.answer)
    return sum(len(those) > 1 for those in answers.values())


def _shared(questions: Iterable[Question]) -> int:
    splits = collections.defaultdict(set)
    for question in questions:
        splits[question.clip].add(question.split)
    return sum(len(those) > 1 for those in splits.values())


def _family(video: str) -> str:
    """What a video's versions share: "sa00007783" and "00007783"; "abc", "abc_flip" and "abc_#02"."""
    synthetic = re.fullmatch(r"[a-z]*(\d{8})", video)
    return synthetic[1] if synthetic else re.sub(r"(_#\d+)?(_flip)?$", "", video)


def _drawn(seed: int, name: str) -> str:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return next(split for split, upper in _SHARES if share < upper or upper == 1)
