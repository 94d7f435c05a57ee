"""What went wrong: runs that did not finish, and clips that were not ingested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pydantic

from pipelines.shard_job import QUARANTINE_FILE, Quarantined
from shards.errors import InputError
from shards.store import place
from trainers.tracking import ERROR, NOTE, Recorded
from tuning.report.parts import Block, Cell, Folded, Table, figure, folded_rows, plural, short, text
from tuning.report.run_selection import Chosen
from tuning.report.timestamps import moment

SHOWN = 20


def failure_blocks(chosen: Chosen, datasets: Sequence[Path]) -> tuple[Block, ...]:
    """Tables of what did not finish and what was quarantined; nothing if all went well."""
    return (*_runs(chosen), *(block for folder in datasets for block in _quarantine(folder)))


def _runs(chosen: Chosen) -> tuple[Block, ...]:
    ended = {run.run_id: run.status for run in chosen.runs}
    wrong = [
        run
        for run in chosen.runs
        if run.status != "FINISHED" and not (run.kind in ("case", "method") and ended.get(run.parent) == run.status)
    ]
    if not wrong:
        return ()
    rows = tuple(
        (
            text(short(run.name, 60)),
            text(_kind(run)),
            text(run.status),
            Cell(moment(run.started), run.started),
            text(cause(run)),
        )
        for run in wrong
    )
    note = "RUNNING: at work when the report was made, or its process was killed and no one has opened the "
    note += "store since."
    if all(run.status != "RUNNING" for run in wrong):
        note = ""
    head = ("run", "kind", "status", "started", "cause")
    table = Table(head, rows, len(head), "Runs that did not finish", note)
    return folded_rows(table, SHOWN, f"all {plural(len(rows), 'run')}")


def _kind(run: Recorded) -> str:
    return "trial" if "folder" in run.tags else run.kind


def cause(run: Recorded) -> str:
    """What the run says of its failure, in one line; empty if nothing."""
    said = run.tags.get(ERROR) or run.tags.get(NOTE, "").strip("`\n ")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return short(" ".join(lines), 300)


def quarantined(folder: Path) -> list[Quarantined]:
    """The clips that the ingestion of a dataset left out; none where that is not known."""
    try:
        lines = (place(folder) / QUARANTINE_FILE).read_text(encoding="utf-8").splitlines()
        return [Quarantined.model_validate_json(line) for line in lines if line.strip()]
    except (OSError, InputError, pydantic.ValidationError):
        return []


def _quarantine(folder: Path) -> Iterator[Block]:
    clips = quarantined(folder)
    if not clips:
        return
    counts = Counter((clip.error.value, clip.stage, clip.remedy) for clip in clips)
    rows = tuple(
        (text(error), figure(count, 0), text(stage), text(remedy))
        for (error, stage, remedy), count in counts.most_common()
    )
    head = ("cause", "clips", "stage", "what to do")
    yield Table(head, rows, 1, f"Clips of {folder.name} that were not ingested")
    each = tuple((text(c.id), text(c.error.value), text(short(c.message, 200)), text(c.path)) for c in clips)
    every = Table(("clip", "cause", "message", "path"), each, 4)
    yield Folded(f"all {plural(len(clips), 'clip')} in quarantine", (every,))
