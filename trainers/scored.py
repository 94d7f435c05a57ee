"""Right and wrong of every run, sample by sample: what intervals and differences are computed from, and its file.

Shapes: Q samples (clips, or questions about them), C clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.atomic import replacing

ANSWERS_FILE = "answers.parquet"
ALL = "all"  # kinds of question together


@dataclass(frozen=True)
class Scored:
    """A run's answers under a condition.

    Attributes:
        line: of the table, "avst rmm" or "prompt, detected".
        seed: None: a rule, which no seed changes.
        right: bool [Q].
        counted: of which samples something is left, bool [Q]; the same for all runs.
        network: within which methods are compared; "" where there is one.
        method: without the network; the line's name by default.
        run: its folder's name.
        kept: written to the file; not if it follows from others and from who lacks what.
        train_missing: what training clips lacked, in words; methods are compared within it, too.
    """

    line: str
    seed: int | None
    condition: str
    right: np.ndarray
    counted: np.ndarray
    network: str = ""
    method: str = ""
    run: str = ""
    kept: bool = True
    train_missing: str = ""


@dataclass(frozen=True)
class Samples:
    """What all runs were asked.

    Attributes:
        clips: id of each sample's clip, [Q].
        clusters: what is drawn as one: the clip, or the group that must not be split between splits, [Q].
        kinds: members by kind of question, its averages and `ALL`, bool [Q].
        questions: id of each question; empty where clips themselves are classified.
        types: kind of each question, [Q]; empty likewise.
    """

    clips: Sequence[str]
    clusters: Sequence[str]
    kinds: Mapping[str, np.ndarray]
    questions: Sequence[str] = ()
    types: Sequence[str] = ()

    @classmethod
    def of_clips(cls, clips: Sequence[str], groups: Sequence[str | None]) -> Samples:
        """Clips that are classified, by the groups that some of them have."""
        clusters = [f"group {group}" if group else f"clip {clip}" for clip, group in zip(clips, groups, strict=True)]
        return cls(clips, clusters, {ALL: np.ones(len(clips), dtype=bool)})


def write_scored(path: Path, scored: Sequence[Scored], samples: Samples) -> None:
    """answers.parquet: a row per run, condition and sample that counts; names are dictionaries, so a row takes bits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    per_sample = {"clip": samples.clips, "question": samples.questions, "kind": samples.types}
    parts: dict[str, list[np.ndarray]] = {}
    kept = [one for one in scored if one.kept]
    facts = ("network", "method", "train_missing", "seed", "condition", "run")
    names = {fact: list(dict.fromkeys(_fact(one, fact) for one in kept)) for fact in facts}
    for one in kept:
        at = np.flatnonzero(one.counted).astype(np.int32)
        for fact in facts:
            place = names[fact].index(_fact(one, fact))
            parts.setdefault(fact, []).append(np.full(len(at), place, np.int32))
        parts.setdefault("sample", []).append(at)
        parts.setdefault("right", []).append(one.right[at])
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    columns = {fact: _named(joined[fact], names[fact]) for fact in facts}
    columns |= {name: _named(joined["sample"], values) for name, values in per_sample.items() if len(values)}
    with replacing(path) as temporary:
        pq.write_table(pa.table({**columns, "right": joined["right"]}), temporary, compression="zstd")


def _fact(one: Scored, name: str) -> str | int | None:
    return (one.method or one.line) if name == "method" else getattr(one, name)


def _named(places: np.ndarray, values: Sequence[object]) -> object:
    """A column of the value at each place; of numbers plain, of texts a dictionary with each once."""
    import pyarrow as pa

    if any(isinstance(value, int) for value in values):
        return pa.array([values[i] for i in places.tolist()], pa.int64())
    once = {value: i for i, value in enumerate(dict.fromkeys(values))}
    coded = np.array([once[value] for value in values], np.int32)[places]
    return pa.DictionaryArray.from_arrays(pa.array(coded), pa.array(list(once), pa.string()))
