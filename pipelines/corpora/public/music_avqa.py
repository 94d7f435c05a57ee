"""MUSIC-AVQA's questions: the original files, the updated ones, and v2.0's.

A file is a list of ``{video_id, question_id, type: '["Audio", "Counting"]', question_content with
<Object>, <LR>, <FL>, ..., templ_values: '["flute", "left"]', question_deleted, anser}``. Its values fill
the placeholders in turn. v2.0's added entries have no question_id, may hold templ_values as a list, and where
``unmatch_audio`` names another video, the sound is that one's: the clip is called ``<video>+<other>``, to be
made as ``<video>+<other>.mp4``. ``avqa-train_fake.json`` holds the train questions about synthetic videos
alone (ids sa..., va..., vv...); it asks 56 questions twice, with different answers, and both stay.

Two splits: the files' own, in which thousands of videos are in several splits (2,296 of the 6,399 test videos
are in val), and one without common videos: all questions about a video, its flipped or numbered versions and
the synthetic videos of its number go together, near 70 / 10 / 20 %, drawn from the seed.
"""

from __future__ import annotations

import ast
import collections
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic

from pipelines.corpora.corpus import StartProgress, Summary
from pipelines.corpora.public.question_files import (
    OFFICIAL,
    QuestionFilesConfig,
    entries,
    question_of,
    text_of,
    write_corpus,
)
from shards.errors import InputError
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
TYPES = {
    "Audio": ("Counting", "Comparative"),
    "Visual": ("Counting", "Location"),
    "Audio-Visual": ("Existential", "Location", "Counting", "Comparative", "Temporal"),
}
INSTRUMENTS = (
    *("accordion", "acoustic_guitar", "bagpipe", "banjo", "bassoon", "cello", "clarinet", "congas", "drum"),
    *("electric_bass", "erhu", "flute", "guzheng", "piano", "pipa", "saxophone", "suona", "trumpet", "tuba"),
    *("ukulele", "violin", "xylophone"),
)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLACES = ("left", "middle", "right", "indoor", "outdoor")
ANSWERS = frozenset({*INSTRUMENTS, *NUMBERS, *PLACES, "more than ten", "yes", "no", "simultaneously"})  # all 42
_PLACEHOLDER = re.compile("<[A-Za-z]+>")
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
    questions: list[Question] = []
    sources: dict[str, tuple[str, str]] = {}  # clip -> the videos of its picture and sound
    deleted = 0
    for split, path in files:
        for where, number, entry in entries(path):
            if entry.get("question_deleted"):
                deleted += 1
                continue
            clip, pair = _clip(where, entry)
            sources[clip] = pair
            questions.append(_question(where, entry, clip, split, f"{Path(path).stem}-{number}"))
    questions = _unique(questions)
    synthetic = {path.name for split, path in files if split == "train"} == {FAKE}
    facts = {
        "synthetic_train_only": synthetic,
        "files": [f"{split}: {path.name}" for split, path in files],
        "deleted": deleted,
        "contradictory": _contradictory(questions),
        "videos_in_several_splits": _shared(questions),
        "seed": config.seed,
    }
    sets = {OFFICIAL: questions, "disjoint": disjoint(questions, sources, config.seed)}
    folder = config.videos and config.videos.resolve()
    rows = {clip: {"path": str(folder / f"{clip}.mp4")} for clip in sources} if folder else None
    summary = write_corpus(out, "music_avqa", sets, rows, facts)
    if not synthetic:
        return summary
    note = "the only train file here is that of synthetic videos: no train questions about real ones"
    return replace(summary, lines=(summary.lines[0], note, *summary.lines[1:]))


def fill(template: str, values: Sequence[str]) -> str:
    """The template with each placeholder replaced by its value, in turn.

    Raises:
        ValueError: there are more or fewer values than placeholders.
    """
    wanted = len(_PLACEHOLDER.findall(template))
    if wanted != len(values):
        raise ValueError(f"{len(values)} values for {wanted} placeholders")
    left = iter(values)
    return _PLACEHOLDER.sub(lambda _: next(left), template).strip()


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


def _question(where: str, entry: Mapping[str, Any], clip: str, split: str, spare_id: str) -> Question:
    modality, kind = _list(where, entry, "type", 2)
    answer = text_of(where, entry, "anser")
    if kind not in TYPES.get(modality, ()):
        raise InputError(f"'{modality} {kind}' is no type", file=where, field="type", remedy=f"one of {TYPES}")
    if answer not in ANSWERS:
        raise InputError(f"'{answer}' is not among the 42", file=where, field="anser", remedy="correct or delete it")
    try:
        text = fill(text_of(where, entry, "question_content"), _list(where, entry, "templ_values"))
    except ValueError as error:
        raise InputError(str(error), file=where, field="templ_values", remedy="one per <...>") from None
    has_id = entry.get("question_id") is not None
    return question_of(
        where,
        id=text_of(where, entry, "question_id") if has_id else spare_id,
        clip=clip,
        question=text,
        answer=answer,
        type=f"{modality} {kind}",
        split=split,
    )


def _list(where: str, entry: Mapping[str, Any], field: str, length: int | None = None) -> list[str]:
    """A list of strings, or a string that holds one."""
    value = entry.get(field)
    if isinstance(value, str):
        value = _parsed(value)
    fine = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if not fine or (length is not None and len(value or ()) != length):
        remedy = """the form is '["Audio", "Counting"]'"""
        raise InputError("no list of strings", file=where, field=field, remedy=remedy)
    return list(value or ())


@functools.lru_cache(maxsize=4096)  # a few hundred lists, again and again
def _parsed(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _clip(where: str, entry: Mapping[str, Any]) -> tuple[str, tuple[str, str]]:
    """The clip's id, and the videos that its picture and its sound are from."""
    video = text_of(where, entry, "video_id")
    if entry.get("unmatch_audio") is None:
        return video, (video, video)
    other = text_of(where, entry, "unmatch_audio")
    return f"{video}+{other}", (video, other)


def _unique(questions: Sequence[Question]) -> list[Question]:
    """Ids that are there again get a number, in the files' order."""
    counts: collections.Counter[str] = collections.Counter()
    kept = []
    for question in questions:
        counts[question.id] += 1
        again = counts[question.id]
        kept.append(question if again == 1 else question.model_copy(update={"id": f"{question.id}-{again}"}))
    return kept


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
