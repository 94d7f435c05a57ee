"""Accuracy with and without what `avmend audit` flagged: by_audit.csv, and a part of results.md."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.audit_file import AUDIT_FILE, FLAGS, read_flags
from shards.errors import InputError
from shards.hashes import file_sha256
from trainers.bootstrap import wilson
from trainers.judged import Judged
from trainers.tables import markdown_table, write_rows

BY_AUDIT_FILE = "by_audit.csv"
ANY = "any flag"


@dataclass(frozen=True)
class AuditRow:
    """A method's accuracy on the samples with a flag, and on those without it, by seed and condition.

    Attributes:
        flag: its name, or "any flag".
        flagged, others: how many samples (questions) have it, and have not.
        accuracy_flagged, accuracy_others: 0..1; NaN of none.
        low_flagged, high_flagged, low_others, high_others: Wilson's interval of 95 %.
    """

    method: str
    selection: str
    seed: int
    condition: str
    flag: str
    flagged: int
    accuracy_flagged: float
    low_flagged: float
    high_flagged: float
    others: int
    accuracy_others: float
    low_others: float
    high_others: float
    run: str

    @property
    def name(self) -> str:
        """Method and selection, as tables and reports name them."""
        return f"{self.method}, {self.selection}" if self.selection else self.method


def audit_fingerprint(audit: Path | None) -> dict[str, str]:
    """What an evaluation with this audit depends on; nothing without one.

    Raises:
        InputError: there is no audit.csv.
    """
    if audit is None:
        return {}
    file = audit / AUDIT_FILE if audit.is_dir() else audit
    if not file.is_file():
        remedy = "make the audit first (avmend audit), or name its folder with --audit"
        raise InputError("no audit.csv here", file=file, field="audit", remedy=remedy)
    return {"audit": file_sha256(file)}


def write_by_audit(out: Path, answers: Sequence[Judged], ids: Sequence[str], audit: Path | None) -> list[str]:
    """Write by_audit.csv into `out` and return its part of results.md; without an audit neither.

    Args:
        ids: of the clip of every sample, in the order of `Judged.index`.

    Raises:
        InputError: a wrong audit.csv, or one of other clips.
    """
    (out / BY_AUDIT_FILE).unlink(missing_ok=True)
    if audit is None:
        return []
    flags = flags_of(audit, ids)
    rows = list(audit_rows(answers, flags))
    write_rows(out / BY_AUDIT_FILE, rows)
    return [markdown(rows, flags, ids)]


def flags_of(audit: Path, ids: Sequence[str]) -> list[frozenset[str]]:
    """The flags of every sample's clip.

    Raises:
        InputError: a clip that the audit does not know.
    """
    known = read_flags(audit)
    if lost := [name for name in dict.fromkeys(ids) if name not in known]:
        message = f"does not know {len(lost)} of the clips, such as '{lost[0]}'"
        remedy = "make the audit of the manifest or shards that are evaluated"
        raise InputError(message, file=audit, field="audit", remedy=remedy)
    return [known[name] for name in ids]


def audit_rows(answers: Sequence[Judged], flags: Sequence[frozenset[str]]) -> Iterator[AuditRow]:
    """For the flags that any sample has, and for any flag; answers as the run gives them."""
    masks = flag_masks(flags)
    for one in (one for one in answers if not one.calibrated):
        for flag, mask in masks.items():
            mine = mask[one.index]
            yield AuditRow(
                one.method,
                one.selection,
                one.seed,
                one.condition,
                flag,
                *share(one.right[mine]),
                *share(one.right[~mine]),
                one.run,
            )


def flag_masks(flags: Sequence[frozenset[str]]) -> Mapping[str, np.ndarray]:
    """Which samples have a flag, bool [N], by flag."""
    found = {name: np.array([name in own for own in flags]) for name in FLAGS}
    return {ANY: np.array([bool(own) for own in flags]), **{k: v for k, v in found.items() if v.any()}}


def share(right: np.ndarray) -> tuple[int, float, float, float]:
    """Count, share, and Wilson's interval of 95 %; NaN of nothing."""
    count = len(right)
    mean = int(right.sum()) / count if count else math.nan
    return count, mean, *wilson(mean, count)


def markdown(rows: Sequence[AuditRow], flags: Sequence[frozenset[str]], ids: Sequence[str]) -> str:
    """Accuracy of every method with and without what has any flag, under the first condition, and how many clips
    have which flag."""
    condition = rows[0].condition
    head = ["method", "seed", "flagged", "accuracy", "95 %", "others", "accuracy", "95 %"]
    body = [
        [
            *(r.name, str(r.seed)),
            *(str(r.flagged), *_cells(r.accuracy_flagged, r.low_flagged, r.high_flagged)),
            *(str(r.others), *_cells(r.accuracy_others, r.low_others, r.high_others)),
        ]
        for r in rows
        if (r.condition, r.flag) == (condition, ANY)
    ]
    clips = dict(zip(ids, flags, strict=True))
    counts = {name: sum(name in own for own in clips.values()) for name in FLAGS}
    said = ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"
    text = (
        f"Accuracy in percent, {condition.replace('_', ' ')}, on what `avmend audit` flagged and on the others; "
        f"Wilson's interval. Flags among {len(clips)} clips: {said}. Each flag and condition: {BY_AUDIT_FILE}."
    )
    if len(clips) < len(ids):
        text += " Several questions are about one clip: the intervals take them for independent, and are too narrow."
    return "\n\n".join(["### With and without what the audit flagged", markdown_table(head, body), text])


def _cells(accuracy: float, low: float, high: float) -> list[str]:
    if math.isnan(accuracy):
        return ["", ""]
    return [f"{100 * accuracy:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"]
