"""Where the runs come from: code, versions, commands, data, backbones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from shards.errors import InputError
from shards.schema import DatasetInfo
from shards.store import url_of
from trainers.identity import CODE, UNKNOWN
from trainers.tracking import COMMAND, VERSIONS, Recorded
from tuning.report.failures import quarantined
from tuning.report.parts import Block, Cell, Folded, Table, figure, text
from tuning.report.run_selection import Chosen
from tuning.report.timestamps import moment

SHORTENED = "Fingerprints are sha256; the first 12 digits of them."
LISTED = ("study", "sweep", "training", "evaluation")


def datasets(chosen: Chosen) -> list[Path]:
    """Folders of the media datasets that the runs name, whether they are still there or not."""
    named = [run.params["data"] for run in chosen.runs if run.params.get("data", "null") != "null"]
    return list(dict.fromkeys(media_folder(Path(name)) for name in named))


def media_folder(folder: Path) -> Path:
    """The media dataset that a folder of features lies in; the folder itself if it holds media."""
    return folder.parent.parent if folder.parent.name == "features" else folder


def provenance_blocks(chosen: Chosen) -> tuple[Block, ...]:
    """Tables of code, data and runs."""
    return (*_code(chosen), *_data(chosen), _every_run(chosen))


def _code(chosen: Chosen) -> Iterator[Block]:
    made = Counter((run.tags["commit"], run.tags.get(VERSIONS, "")) for run in chosen.runs if run.tags.get("commit"))
    if made:
        rows = tuple(
            (
                text(commit.partition("-dirty-")[0]),
                _dirty(commit),
                text(versions or "not noted"),
                figure(n, 0),
            )
            for (commit, versions), n in made.items()
        )
        yield Table(("git commit", "state", "versions", "runs"), rows, 3, "Code")


def _dirty(commit: str) -> Cell:
    _, marked, changes = commit.partition("-dirty-")
    if commit == UNKNOWN:
        return text("no git checkout")
    if commit.startswith(CODE):
        return text("no git checkout: the hash of its code")
    return text(f"with changes (hash {changes})" if marked else "clean")


def _data(chosen: Chosen) -> Iterator[Block]:
    """Every folder of data that a training run names, and whether it is still what the runs had."""
    had: dict[str, set[str]] = {}
    for run in chosen.of("training"):
        if "data" in run.params:
            had.setdefault(run.params["data"], set()).add(run.tags.get("dataset", ""))
    if had:
        rows = tuple(_dataset(Path(folder), prints - {""}) for folder, prints in had.items())
        head = ("dataset", "fingerprint", "now", "clips", "quarantined", "folder")
        yield Table(head, rows, len(head), "Data", SHORTENED)


def _dataset(folder: Path, had: set[str]) -> tuple[Cell, ...]:
    try:
        info = DatasetInfo.load(folder)
    except InputError:
        state, clips, left_out = "not here any more", "", ""
    else:
        state = "the same" if had <= {info.fingerprint()} else "changed since"
        clips = ", ".join(f"{name} {split.samples}" for name, split in info.splits.items())
        left_out = str(len(quarantined(media_folder(folder))))
    prints = ", ".join(sorted(fingerprint[:12] for fingerprint in had))
    return tuple(text(x) for x in (folder.name, prints, state, clips, left_out, url_of(folder) or folder))


def _every_run(chosen: Chosen) -> Block:
    listed = [run for run in chosen.runs if run.kind in LISTED]
    head = ("run", "kind", "status", "started", "minutes", "commit", "dataset", "backbone", "command")
    rows = tuple(_row(run) for run in listed)
    return Folded(f"every run ({len(rows)})", (Table(head, rows, len(head), note=SHORTENED),))


def _row(run: Recorded) -> tuple[Cell, ...]:
    minutes = (run.ended - run.started) / 60_000 if run.ended else None
    prints = (text(run.tags.get(name, "")[:12]) for name in ("dataset", "backbone"))
    return (
        text(run.name),
        text(run.kind),
        text(run.status),
        Cell(moment(run.started), run.started),
        figure(minutes, 1),
        text(run.tags.get("commit", "")),
        *prints,
        text(run.tags.get(COMMAND, "")),
    )
