"""Loading for question answering: our loader against whole float32 files, as AVST's loader reads them.

    python -m benchmarks.avqa_loading

Per question the released loader reads its video's file of 60 x 512 x 14 x 14 float32 and takes every sixth
second, then for each of the ten steps the whole file of another video for one negative frame. Ours are the
batches that `avmend train avqa` gets: the shards hold the ten seconds in float16, a negative frame is one row
of another clip, and the model standardises in float32 on its device; "and standardised" counts that too, on
this processor. "resident" keeps the features in memory, as training does with up to a GB of them.

All is measured with the files in the page cache, and again with none of them there when a question's reading
begins (then a batch is one question). MUSIC-AVQA has 9,288 videos: 224 GB of the released files, which fit no
usual memory, against 19 GB of our shards, which may; so the last column takes our rate over theirs from the
disk.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import report
from benchmarks.corpus import sample_meta
from benchmarks.report import Spread, positive
from models.avqa.scale import Standardise
from pipelines.running_stats import add, channel_moments, statistics
from shards.questions import Question, Vocabulary
from shards.schema import BackboneInfo, DatasetInfo, Normalisation, SplitInfo
from shards.sequence import SEQUENCE, SequenceSpec
from shards.writer import Record, write_shard
from trainers.avqa.clips import Clips, scale_of
from trainers.avqa.items import QuestionItems, longest
from trainers.sampler_state import Position, epoch_batches

SECONDS, STRIDE, SIDE, DIM, AUDIO = 60, 6, 14, 512, 128  # of a video; every sixth second is used
STEPS = SECONDS // STRIDE
OURS, STANDARDISED = "ours, float16 batches", "ours, and standardised"
RESIDENT, RELEASED = "ours, resident", "whole float32 files"
MEMORY, DISK = "page cache", "disk"
PATIENCE = 100  # times that a file is asked to leave the page cache
Item = tuple[Tensor, Tensor, Tensor]  # audio [T, 128], visual and negative [T, ...]


@dataclass(frozen=True)
class Way:
    """One way to load.

    Attributes:
        epoch: begins to make all batches of a size.
        questions: that an epoch has.
        bytes: read for one question.
        close: lets go of the files.
    """

    epoch: Callable[[int], Iterator[Any]]
    questions: int
    bytes: int
    close: Callable[[], None] = lambda: None


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.avqa_loading", description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=positive, default=24, help="videos of 24 MB each (default 24)")
    parser.add_argument("--questions", type=positive, default=96, help="that ours loads a round")
    parser.add_argument("--released-questions", type=positive, default=4, help="that the other loads a round")
    parser.add_argument("--batch-size", type=positive, default=4, help="default 4, the paper's")
    parser.add_argument("--repeats", type=positive, default=3, help="measured repetitions (default 3)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--folder", type=Path, help="where the temporary files go (default: the system's)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    if args.clips < 2:
        parser.error("--clips: negative frames need 2 videos")
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write JSON, markdown and figure."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    found = report.machine("cpu")
    folder = Path(tempfile.mkdtemp(prefix="avqa-loading-", dir=args.folder))
    try:
        rows = measure(args, folder)
    finally:
        shutil.rmtree(folder)
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "folder")}
    record = {"machine": found, "settings": settings, "rows": rows}
    text = _text(args, rows)
    report.save(args.out, "avqa-loading", "Loading for question answering", text, record, lambda f: _draw(f, rows))
    return 0


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A row per way and place of the files: questions per second, bytes per question, and ratios."""
    write(folder, args.clips)
    ways = loaders(folder, args.questions, args.released_questions)
    cached = {name: _warm(way, args.batch_size) for name, way in ways.items()}
    read = {name: _cold(ways[name], folder) for name in (OURS, RELEASED)}
    taken = {MEMORY: report.alternate(cached, args.repeats), DISK: report.alternate(read, args.repeats)}
    return [
        {
            "files": place,
            "way": name,
            "rate": Spread.of(rate),
            "bytes": ways[name].bytes,
            "over_released": report.ratios(rate, rates[RELEASED]),
            "over_released_from_disk": report.ratios(rate, taken[DISK][RELEASED]),
        }
        for place, rates in taken.items()
        for name, rate in rates.items()
    ]


def write(folder: Path, clips: int) -> None:
    """`folder`/files: a float32 .npy per video and modality; `folder`/shards: every sixth second, float16."""
    (folder / "files").mkdir()
    moments: dict[str, list] = {"audio": [], "visual": []}

    def records() -> Iterator[Record]:
        for i in range(clips):
            rng, key = np.random.default_rng(i), f"clip{i:06d}"
            audio = rng.standard_normal((SECONDS, AUDIO), np.float32)
            visual = np.maximum(rng.standard_normal((SECONDS, DIM, SIDE, SIDE), np.float32), 0)
            np.save(folder / "files" / f"{key}-audio.npy", audio)
            np.save(folder / "files" / f"{key}-visual.npy", visual)
            places = visual[::STRIDE].reshape(STEPS, DIM, SIDE * SIDE).transpose(0, 2, 1)
            members = {"audio": audio[::STRIDE].astype(np.float16), "visual": places.astype(np.float16)}
            for name, x in members.items():
                moments[name].append(channel_moments(x))
            arrays = {f"{m}.npy": x for m, x in members.items()}
            yield key, {"json": sample_meta(key, i, float(SECONDS)), **arrays}

    shard = write_shard(folder / "shards" / "train-000000.tar", records(), root=folder / "shards")
    spec = SequenceSpec(audio=AUDIO, visual=DIM, steps=STEPS, places=SIDE * SIDE)
    split = SplitInfo(samples=clips, present={"audio": clips, "visual": clips}, shards=(shard,))
    DatasetInfo(
        kind="features",
        preprocessing={"features": SEQUENCE, "spec": spec.model_dump()},
        labels=(),
        splits={"train": split},
        normalisation=Normalisation(**{m: statistics(add(parts)) for m, parts in moments.items()}),
        backbone=BackboneInfo(id="random", fingerprint="random", depth=None, variants=("clean",)),
    ).save(folder / "shards")


def loaders(folder: Path, questions: int, released: int) -> Mapping[str, Way]:
    """All ways over what `write` left in `folder`; ours load `questions` an epoch, the other `released`."""
    size = 2 * (STEPS * AUDIO + 2 * STEPS * SIDE * SIDE * DIM)
    items = asked(Clips(folder / "shards", resident=False), questions)
    kept = asked(Clips(folder / "shards", resident=True), questions)
    standardise = Standardise(scale_of(items.clips.info))
    whole = Released(folder / "files", released)
    return {
        OURS: Way(lambda batch_size: _epoch(items, batch_size), questions, size, items.clips.close),
        STANDARDISED: Way(lambda n: (standardise(batch) for batch in _epoch(items, n)), questions, size),
        RESIDENT: Way(lambda batch_size: _epoch(kept, batch_size), questions, 0),
        RELEASED: Way(lambda batch_size: iter(DataLoader(whole, batch_size)), released, whole.bytes),
    }


def asked(clips: Clips, questions: int) -> QuestionItems:
    """As many questions about the clips in turn, with negative frames, as AVST trains on."""
    ids = list(clips.number)
    some = [
        Question(
            id=str(i),
            clip=ids[i % len(ids)],
            question="How many instruments are sounding in the video?",
            answer="two",
            type="Audio-Visual Counting",
            split="train",
        )
        for i in range(questions)
    ]
    return QuestionItems(clips, some, Vocabulary.of(some), longest(some), negatives=True)


def _epoch(items: QuestionItems, batch_size: int) -> Iterator[Any]:
    """The batches of an epoch of training, in its order."""
    return (batch for batch, _ in epoch_batches(items, Position(), seed=0, batch_size=batch_size))


class Released(Dataset):
    """What the released `AVQA_dataset` does per question, read by read; `bytes` are read for one."""

    bytes = 4 * (SECONDS * AUDIO + (1 + STEPS) * SECONDS * DIM * SIDE * SIDE)

    def __init__(self, folder: Path, questions: int):
        self.folder, self.questions = folder, questions
        self.names = sorted(path.stem.removesuffix("-audio") for path in folder.glob("*-audio.npy"))
        self.random = random.Random(0)

    def __len__(self) -> int:
        return self.questions

    def __getitem__(self, i: int) -> Item:
        own = i % len(self.names)
        audio = np.load(self.folder / f"{self.names[own]}-audio.npy")[::STRIDE]
        visual = np.load(self.folder / f"{self.names[own]}-visual.npy")[::STRIDE]
        negative = torch.empty(0)
        for _ in range(len(visual)):
            while (frame := self.random.randrange(SECONDS * len(self.names))) // SECONDS == own:
                pass
            other = torch.from_numpy(np.load(self.folder / f"{self.names[frame // SECONDS]}-visual.npy"))
            negative = torch.cat([negative, other[frame % SECONDS].unsqueeze(0)])
        return torch.from_numpy(audio), torch.from_numpy(visual), negative


def _warm(way: Way, batch_size: int) -> Callable[[], float]:
    """Questions per second of making all batches in this process; one is held while the next is made, as in
    training."""

    def run() -> float:
        start = time.perf_counter()
        for batch in way.epoch(batch_size):  # noqa: B007
            pass
        return way.questions / (time.perf_counter() - start)

    return run


def _cold(way: Way, folder: Path) -> Callable[[], float]:
    """The same for questions one by one, with no file of `folder` in the page cache when one begins (having
    them out is not counted)."""

    def run() -> float:
        way.close()
        batches, taken = way.epoch(1), 0.0
        for _ in range(way.questions):
            drop(folder)
            start = time.perf_counter()
            next(batches)
            taken += time.perf_counter() - start
            way.close()
        return way.questions / taken

    return run


def drop(folder: Path) -> None:
    """Have the files out of the page cache.

    Raises:
        RuntimeError: they stay there.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not any(_dropped(path) for _ in range(PATIENCE)):
            raise RuntimeError(f"{path} stays in the page cache: choose a --folder on a disk")


def _dropped(path: Path) -> bool:
    """Whether the file is out of the page cache when the system has been told to; what is still being read
    ahead is not at once."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if not _cached(path):
        return True
    time.sleep(0.02)
    return False


def _cached(path: Path) -> bool:
    """Whether any page of a file is in the page cache: mincore(2), which reads nothing."""
    data = np.memmap(path, np.uint8, "r")
    pages = np.empty(-(-len(data) // mmap.PAGESIZE), np.uint8)
    address, vector = (ctypes.c_void_p(x.ctypes.data) for x in (data, pages))
    if ctypes.CDLL(None, use_errno=True).mincore(address, ctypes.c_size_t(len(data)), vector):
        raise OSError(ctypes.get_errno(), "mincore", str(path))
    return bool((pages & 1).any())


def _text(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    cells = [
        [
            row["files"],
            row["way"],
            row["rate"].text(),
            f"{row['bytes'] / 1e6:.1f}",
            row["over_released"].text(),
            row["over_released_from_disk"].text(),
        ]
        for row in rows
    ]
    columns = [
        "files in",
        "way",
        "questions/s",
        "MB per question",
        "over released",
        "over released from disk",
    ]
    return (
        f"{args.clips} videos, batch {args.batch_size} (from the disk 1), one process, {args.repeats} "
        "repetitions in turn, median (least-greatest).\n\n" + report.table(columns, cells)
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.subplots()
    names = [f"{row['way']}\n{row['files']}" for row in rows]
    axes.barh(names, [row["rate"].median for row in rows])
    axes.set(xlabel="questions per second", xscale="log")
    axes.invert_yaxis()


if __name__ == "__main__":
    raise SystemExit(main())
