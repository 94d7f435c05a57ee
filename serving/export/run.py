"""A finished run on its way out: its weights, config and logs, the run it stands on, and how its clips were made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipelines.preprocessing import recorded_extraction
from serving.export.figures import evaluations
from serving.export.folder import Export, exporting, finish, megabytes
from serving.export.model_card import model_card
from serving.features import feature_maker, imported_layout
from shards.checkpoint import has_checkpoint, load_checkpoint
from shards.errors import InputError
from shards.keys import safe_name
from shards.schema import DATASET_FILE, DatasetInfo
from shards.shared import SharedRecord
from shards.store import Place, absolute, at_hand, place, size_of
from trainers.identity import is_paths
from trainers.job import read_record
from trainers.recipe import FinishedRun
from trainers.runs import CONFIG_FILE, is_run, read_run

KEPT = (".json", ".jsonl", ".safetensors")
LEFT_OUT = ("last", "ray", "data")  # state to resume from, which is pickled; what an import left
MIRROR = ("mlflow.json", "summary.json")  # of a store, which may be anywhere


@dataclass(frozen=True)
class RunOptions:
    """What `avmend export RUN` may be told.

    Attributes:
        license: of the weights, as a card names it; None: not known.
        results: folders of evaluations; None: those beside the run.
        data: folder of the run's shards (of a question-answering run: its features), if that was moved.
        backbone: the `finetune` or `dense` run behind the features of a question-answering run; None: looked for beside
            it.
        with_backbone: put the run that it stands on into the export, too.
    """

    license: str | None = None
    results: tuple[Place, ...] | None = None
    data: Path | None = None
    backbone: Path | None = None
    with_backbone: bool = True


def export_run(folder: Place, out: Place, options: RunOptions | None = None) -> tuple[SharedRecord, list[str]]:
    """Write ``out``: the run (and the one that it stands on) below ``runs``, a model card, the record of all files.

    Returns:
        the record, and lines about what is in it.

    Raises:
        InputError: no run, one that is not finished or damaged, whose data or backbone are not here; an ``out``
            that holds something.
    """
    options = options or RunOptions()
    run = _finished(folder)
    if options.data is not None:
        run = replace(run, config=run.config.model_copy(update={"data": absolute(options.data)}))
    below = stands_on(run, options.backbone)
    taken = [run, *([below] if below is not None and options.with_backbone else [])]
    private = [one.folder.absolute().parent for one in taken]
    with exporting(out, private) as export:
        for one in taken:
            _write_run(export, one, [name_of(other) for other in taken], first=one is run)
        found = evaluations(run, options.results)
        export.write("README.md", model_card(run, below, taken, found, options.license, export))
        record = finish(
            export,
            kind="run",
            name=name_of(run),
            license=options.license,
            folders=tuple(_place(one) for one in taken),
            fingerprint=read_record(run.folder)["identity"],
        )
    return record, [f"{_place(one)}: {megabytes(export.size(_place(one) + '/'))}" for one in taken]


def name_of(run: FinishedRun) -> str:
    """The name of a run's folder."""
    return run.folder.absolute().name


def _place(run: FinishedRun) -> str:
    return f"runs/{name_of(run)}"


def _finished(folder: Place) -> FinishedRun:
    """A run whose checkpoints are all there and whole."""
    run = read_run(folder)
    if safe_name(name_of(run)) != name_of(run):
        raise InputError("has a name that not every system takes", file=folder, remedy="rename the run's folder")
    if "identity" not in read_record(run.folder):
        raise InputError("has no identity: an early version trained it", file=folder, remedy="train it again")
    for name in run.recipe.checkpoints(run.config):
        if not has_checkpoint(run.folder / name):
            message, remedy = f"is not finished: '{name}' is not there", "train it to its end: the same command goes on"
            raise InputError(message, file=folder, field="RUN", remedy=remedy)
        load_checkpoint(run.folder / name)
    return run


def stands_on(run: FinishedRun, backbone: Path | None = None) -> FinishedRun | None:
    """The run without which another can't be asked: a frozen backbone, or what makes its features; None: there is
    none, or it is public weights.

    Raises:
        InputError: it is not here, not finished, or another one than it was.
    """
    task = run.recipe.task
    if run.recipe.on_features:
        found = backbone or run.locate(run.config.backbone)  # type: ignore[attr-defined]
    elif task.features is not None and run.recipe.load is not None:
        features, media = task.features(run), task.media(run)
        if not extraction_needs_run(features):
            return None
        loaded = run.recipe.load(run, torch.device("cpu"))
        maker = feature_maker(run, features, media, loaded.extractor, torch.device("cpu"), backbone)
        assert maker.backbone is not None
        found = maker.backbone
    else:
        return None
    below = _finished(found if is_run(found) else found.parent)  # of a checkpoint, its run
    if run.recipe.on_features and run.recipe.load is not None:  # refuses another backbone than it was
        run.recipe.load(_standing_on(run, found), torch.device("cpu"))
    return below


def _standing_on(run: FinishedRun, backbone: Path) -> FinishedRun:
    return replace(run, config=run.config.model_copy(update={"backbone": absolute(backbone)}))


def extraction_needs_run(features: Path) -> bool:
    """Whether a `finetune` or `dense` run made a folder's features, not public weights or whoever published them."""
    return (
        imported_layout(features) is None and recorded_extraction(DatasetInfo.load(features), features).needs_backbone
    )


def _write_run(export: Export, run: FinishedRun, taken: list[str], first: bool) -> None:
    for path in sorted(run.folder.rglob("*")):
        inner = path.relative_to(run.folder)
        if path.is_file() and path.suffix in KEPT and inner.as_posix() != CONFIG_FILE and not _left_out(inner):
            export.copy(path, f"{_place(run)}/{inner.as_posix()}")
    for name, source in dict(_datasets(run)).items():
        if first or size_of(place(source)) is not None:  # who stands below another is asked by itself more rarely
            export.copy(_there(source), f"{_place(run)}/{name}")
    record = read_record(run.folder)
    record["config"] |= dict(_portable_paths(run, taken))
    export.write(f"{_place(run)}/{CONFIG_FILE}", json.dumps(record, indent=1) + "\n")


def _left_out(inner: Path) -> bool:
    return inner.parts[0] in LEFT_OUT or inner.name in MIRROR or any(part.startswith(".") for part in inner.parts)


def _there(source: Path) -> Path:
    try:
        file = at_hand(place(source))
    except FileNotFoundError:
        file = source
    if not file.is_file():
        remedy = "give --data, the folder of the run's shards: its dataset.json says how clips are decoded"
        raise InputError("is not there", file=source, field="data", remedy=remedy)
    return file


def _datasets(run: FinishedRun) -> Iterator[tuple[str, Path]]:
    """Where the dataset.json of a run's data, and of the media behind features, go in its folder, and are."""
    task = run.recipe.task
    features = None if task.features is None else task.features(run)
    if features is not None and imported_layout(features) is not None:  # there are no media
        yield f"{_data_place(features)}/{DATASET_FILE}", features / DATASET_FILE
        return
    media = task.media(run)
    yield f"{_data_place(media)}/{DATASET_FILE}", media / DATASET_FILE
    if features is not None:
        yield f"{_data_place(media)}/features/{safe_name(features.name)}/{DATASET_FILE}", features / DATASET_FILE


def _data_place(folder: Path) -> str:
    return f"data/{safe_name(folder.absolute().name)}"


def _portable_paths(run: FinishedRun, taken: list[str]) -> Iterator[tuple[str, Any]]:
    """The paths of a run's config as they are in an export: from the run's folder on, and only by the last name.

    Args:
        taken: names of the runs that the export holds, the one that the other stands on last.
    """
    *_, (data, _) = _datasets(run)
    for field, value in run.config:
        if field == "data":
            yield field, data.removesuffix(f"/{DATASET_FILE}")
        elif field == "backbone" and isinstance(value, Path) and taken[1:]:
            yield field, f"../{taken[1]}"
        elif isinstance(value, Path):
            yield field, _portable(value)
        elif is_paths(value):
            yield field, [_portable(path) for path in value]


def _portable(path: Path) -> str:
    return f"../{safe_name(path.name)}"
