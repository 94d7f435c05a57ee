"""One step of `benchmarks.scale` in a process of its own; prints a JSON line when it begins, and one when it ended."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.errors import InputError


def manifest_rows(folder: Path, rows: int) -> None:
    """A manifest of so many clips."""
    from benchmarks.scale_corpus import write_manifest

    write_manifest(folder, rows)


def add_row(folder: Path, rows: int) -> None:
    """One more row at the manifest's end."""
    with (folder / "manifest.csv").open("a") as file:
        file.write(f"more-{time.time_ns()},clips/more.mp4,label00,train\n")


def draw(folder: Path, rows: int) -> None:
    """Finished shards of a plan."""
    from benchmarks.scale_corpus import draw_shards

    draw_shards(folder, rows)


def plan(folder: Path, rows: int) -> None:
    """Read the manifest and plan its shards."""
    from benchmarks.scale_corpus import CONFIG
    from pipelines.ingest import _keep_plan

    (folder / "out").mkdir()
    _keep_plan(folder / "manifest.csv", CONFIG, folder / "out", False)


def ingest(folder: Path, rows: int) -> None:
    """Ingest what is left to do, or find that there is nothing."""
    from benchmarks.scale_corpus import CONFIG
    from pipelines.ingest import ingest

    with contextlib.suppress(InputError):  # of a corpus of which every clip fails
        ingest(folder / "manifest.csv", folder / "out", CONFIG)


def open_split(folder: Path, rows: int) -> None:
    """Open the train split, and know the labels and which sample has what."""
    from shards.reader import ShardDataset

    data = ShardDataset(folder / "out", "train")
    assert len(data.column("labels")) == len(data)
    assert data.present.all()
    KEPT.append(data)


def train(folder: Path, rows: int) -> None:
    """What a training process knows of all samples: the above, targets, hashed ids, the order of an epoch."""
    from shards.reader import ShardDataset
    from trainers.classification.items import LabelledItems
    from trainers.data import epoch_order

    data = ShardDataset(folder / "out", "train")
    items = LabelledItems(data, data.info.labels, seed=0)
    assert data.present.all()
    KEPT.extend([items, epoch_order(items.ids, 0, 1)])


def loader(folder: Path, rows: int) -> None:
    """A loader process of that one: it looks at every sample's key, place and target, in the epoch's order."""
    train(folder, rows)
    items: Any = KEPT[-2]
    order: Any = KEPT[-1]
    if child := os.fork():
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    begin()  # what is shared with the parent is no longer private
    for part in (order[at : at + 4096].tolist() for at in range(0, len(order), 4096)):
        for i in part:
            items.keys[i], items.data.table.begin[i], items.data.table.size[i], items.targets.of(i)
            items.data._codes[i] = 1  # what reading it writes
    end()
    os._exit(0)


def epoch(folder: Path, rows: int) -> None:
    """The order of one epoch, from the samples' hashed ids."""
    from trainers.data import epoch_order

    KEPT.append(epoch_order(KEPT[0], 0, 1))  # type: ignore[arg-type]


def verify(folder: Path, rows: int) -> None:
    """Read every byte and compare it with dataset.json."""
    from shards.verify import verify

    assert verify(folder / "out") == []


KEPT: list[object] = []  # what stays in memory until it is measured
STEPS: dict[str, Callable[[Path, int], None]] = {
    step.__name__: step
    for step in (manifest_rows, add_row, draw, plan, ingest, open_split, train, loader, epoch, verify)
}


def private() -> float:
    """MB that this process wrote to and shares with none."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return int(fields["Private_Dirty"].split()[0]) / 1024


def peak() -> float:
    """MB that this process had at most, mapped files among them."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def held() -> float:
    """MB of this process's own, without mapped files; parts that a forked process shares with its parent count."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


START = {"seconds": 0.0, "processor": 0.0, "peak_mb": 0.0, "private_mb": 0.0, "held_mb": 0.0}


def now() -> dict[str, float]:
    """Clocks and memory."""
    figures = (time.perf_counter(), time.process_time(), peak(), private(), held())
    return dict(zip(START, figures, strict=True))


def begin() -> None:
    """From here on is measured."""
    START.update(now())
    print(json.dumps({"process": os.getpid()}), flush=True)


def end() -> None:
    """Print what it took."""
    print(json.dumps({name: value - START[name] for name, value in now().items()}), flush=True)


def main() -> None:
    step, folder, rows = STEPS[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3])
    import pipelines.ingest  # noqa: F401
    import shards.verify  # noqa: F401
    import trainers.classification.items  # noqa: F401

    if step is epoch:
        import numpy

        KEPT.append(numpy.random.default_rng(0).integers(2**64, size=rows, dtype=numpy.uint64))
    if step is loader:  # which begins in a process of its own
        step(folder, rows)
    begin()
    step(folder, rows)
    end()


if __name__ == "__main__":
    main()
