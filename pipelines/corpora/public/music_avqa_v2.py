"""MUSIC-AVQA v2.0 (WACV 2024): the balanced and the biased set, and how much of their test is v1's train.

The files' test questions keep the question_id of the v1 question that they come from, but only some of those are of
v1's test: a model trained on v1 has been trained on the rest.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from pipelines.corpora.corpus import StartProgress, Summary
from pipelines.corpora.public.music_avqa import FAKE, MusicAvqaConfig, write_entries
from pipelines.corpora.public.music_avqa import FILES as V1_FILES
from pipelines.corpora.public.music_avqa_entries import Entries, read_entries
from pipelines.corpora.public.question_files import entries, find_files
from shards.errors import InputError

SPLITS = ("train", "val", "test")
NEW, ELSEWHERE = "new", "in no file here"


class MusicAvqaV2Config(MusicAvqaConfig):
    """Questions about musical performances, with balanced answers: MUSIC-AVQA v2.0."""

    subset: Literal["balance", "bias"] = "balance"
    """Which set of the folder: train_balance.json and test_balance.json, or those of the biased one."""
    v1: Path | None = None
    """Folder of MUSIC-AVQA's own avqa-<split>.json; given, the test questions that are in them are counted."""
    exclude_leaked: bool = False
    """Leave out test questions that are v1's but not of its test: a model trained on v1 has seen them."""

    @pydantic.model_validator(mode="after")
    def _knows_v1(self) -> MusicAvqaV2Config:
        if self.exclude_leaked and self.v1 is None:
            raise ValueError("exclude_leaked needs v1=FOLDER, the folder of MUSIC-AVQA's avqa-test.json")
        return self


def build(config: MusicAvqaV2Config, out: str | Path, progress: StartProgress) -> Summary:
    """As of `music_avqa`; ``corpus.json`` says how many test questions are in which of v1's splits.

    Raises:
        InputError: a file is not of this form; v1's test file is needed and not there.
    """
    files = config.find({split: (f"{split}_{config.subset}.json",) for split in SPLITS})
    found = read_entries(files)
    facts: dict[str, Any] = {"subset": config.subset}
    if config.v1 is not None:
        facts["test_questions_in_v1"], facts["left_out_as_leaked"] = _compare(config, config.v1, found)
    return write_entries(out, "music_avqa_v2", config, files, found, facts)


def origins(found: Entries, v1: Mapping[str, set[str]]) -> dict[str, str]:
    """Test question -> the split of v1 that has it, `NEW` without a number, `ELSEWHERE` if none of ``v1`` has.

    Args:
        found: v2.0's questions.
        v1: split -> numbers of its questions.
    """
    return {
        question.id: NEW
        if question.id in found.unnumbered
        else next((split for split, ids in v1.items() if question.id in ids), ELSEWHERE)
        for question in found.questions
        if question.split == "test"
    }


def _compare(config: MusicAvqaV2Config, folder: Path, found: Entries) -> tuple[dict[str, int], int]:
    """Counts by origin, and how many questions were left out of ``found``."""
    v1, whole = _v1_ids(folder)
    if config.exclude_leaked and "test" not in whole:
        remedy = "give the folder that holds avqa-test.json"
        raise InputError("v1's test questions are not here", file=folder, field="v1", remedy=remedy)
    of = origins(found, v1)
    counts = collections.Counter(of.values())
    absent = [split for split in SPLITS if split not in whole]
    found.notes.append(
        f"{len(of)} test questions: {counts['test']} of v1's test, "
        f"{counts['train'] + counts['val']} of its train and val, {counts[ELSEWHERE]} of v1 but in no file here"
        f"{' (not whole here: ' + ', '.join(absent) + ')' if absent else ''}, {counts[NEW]} new"
    )
    if not config.exclude_leaked:
        return dict(sorted(counts.items())), 0
    leaks = {"train", "val", *([ELSEWHERE] if absent else [])}
    leaked = {question for question, origin in of.items() if origin in leaks}
    found.questions = [question for question in found.questions if question.id not in leaked]
    found.notes.append(f"left out: {len(leaked)} that v1 does not ask in its test")
    return dict(sorted(counts.items())), len(leaked)


def _v1_ids(folder: Path) -> tuple[dict[str, set[str]], set[str]]:
    """Split -> numbers of v1's questions, for the splits whose files are there; and the splits that are there whole."""
    ids: dict[str, set[str]] = {}
    whole = set()
    for split, path in find_files(folder, V1_FILES):
        numbers = {str(entry["question_id"]) for _, _, entry in entries(path) if entry.get("question_id") is not None}
        ids.setdefault(split, set()).update(numbers)
        if path.name != FAKE:
            whole.add(split)
    return ids, whole
