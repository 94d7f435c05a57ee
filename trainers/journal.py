"""metrics.jsonl: the metrics of a run on disk, one line per report. What MLflow shows is a copy of it.

Written by one process (rank 0), read by another (the driver) while it grows; needs neither MLflow nor Ray.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shards.atomic import write_text
from shards.errors import InputError

logger = logging.getLogger(__name__)
FILE = "metrics.jsonl"
SIZES_FILE = "sizes.json"  # parameters of a stage, trained and in all, known before its first epoch
_NAME = re.compile(r"[\w\-. /]+")  # what MLflow accepts as a metric's name


@dataclass(frozen=True)
class Line:
    """One report: ``time`` in milliseconds since 1970, so that a copied line is the same line again."""

    step: int
    time: int
    metrics: dict[str, float]


def append_metrics(folder: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Append one line to ``folder``/metrics.jsonl and hand it to the system at once.

    Raises:
        ValueError: a metric's name that MLflow would refuse.
        TypeError: a value that is no number.
    """
    for name in metrics:
        if not _NAME.fullmatch(name):
            raise ValueError(f"metric name {name!r}: only letters, digits and _ - . / and spaces are allowed")
    values = {name: _number(name, value) for name, value in metrics.items()}
    text = json.dumps({"step": int(step), "time": time.time_ns() // 1_000_000, "metrics": values}) + "\n"
    with (Path(folder) / FILE).open("ab+") as file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            text = "\n" + text  # a writer was killed within its last line: don't lose this one too
        file.write(text.encode())


def read_metrics(folder: Path) -> list[Line]:
    """All complete lines of ``folder``/metrics.jsonl; none if there is no file yet."""
    return Tail(Path(folder) / FILE).read()


def logs(folder: Path, stage: str) -> Path:
    """The folder of a stage's metrics.jsonl in the run at `folder`."""
    return folder / "logs" / stage


def training_cost(folder: Path, stages: Sequence[str]) -> dict[str, float]:
    """Mean seconds per epoch, seconds of all epochs and peak MiB over the stages of a run; wall clock, without
    validation.

    Raises:
        InputError: there are no logs.
    """
    lines = [line.metrics for stage in stages for line in read_metrics(logs(folder, stage))]
    if not lines:
        remedy = "give the folder that 'avmend train' made, logs and all"
        raise InputError("has no metrics of its training", file=folder / "logs", remedy=remedy)
    return {
        "epoch_seconds": sum(line["epoch_seconds"] for line in lines) / len(lines),
        "train_seconds": sum(line["epoch_seconds"] for line in lines),
        "peak_memory_mb": max(line["peak_memory_mb"] for line in lines),
    }


def record_parts(folder: Path, parts: Sequence[str], seconds: float) -> None:
    """Record what the parts of a run took that follow its stages, together."""
    for part in parts[:1]:
        logs(folder, part).mkdir(parents=True, exist_ok=True)
        append_metrics(logs(folder, part), 0, {"seconds": seconds})


def parts_seconds(folder: Path, parts: Sequence[str]) -> float:
    """What `record_parts` recorded last; NaN for a run of an earlier version, 0 where there are none."""
    if not parts:
        return 0.0
    lines = read_metrics(logs(folder, parts[0]))
    return lines[-1].metrics.get("seconds", math.nan) if lines else math.nan


def keep_until(folder: Path, step: int | None) -> None:
    """Prepare a resume after ``step`` (``None``: a fresh start): drop later lines, and a torn last one.

    The file is replaced by rename, so that a reader that follows it notices.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return
    kept = [line for line in read_metrics(folder) if step is not None and line.step <= step]
    write_text(path, "".join(json.dumps(vars(line)) + "\n" for line in kept))


@dataclass
class Tail:
    """Follows a growing metrics.jsonl: each :meth:`read` returns the complete lines that are new."""

    path: Path
    _offset: int = field(default=0, init=False)
    _inode: int = field(default=0, init=False)

    def read(self) -> list[Line]:
        """New complete lines, from the beginning again after the file was replaced; torn ones are skipped."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._offset, self._inode = 0, status.st_ino
            file.seek(self._offset)
            raw = file.read()
        complete = raw[: raw.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [line for text in complete.splitlines() if (line := self._parse(text))]

    def _parse(self, text: bytes) -> Line | None:
        try:
            return Line(**json.loads(text))
        except (ValueError, TypeError):
            logger.warning("%s: skipped, not a line of metrics: %r", self.path, text[:80])
            return None


def _number(name: str, value: object) -> float:
    if isinstance(value, str):
        raise TypeError(f"metric {name!r} is the text {value!r}; metrics are numbers")
    return float(value)  # type: ignore[arg-type]  # numpy and torch scalars too
