"""Loading for question answering: our shards against whole float32 files, as AVST's loader reads them.

    python -m benchmarks.avqa_loading

Per question the released loader reads its video's file of 60 x 512 x 14 x 14 float32 and takes every sixth
second, then for each of the ten steps the whole file of another video for one negative frame. Our shards hold
the ten seconds in float16, and a negative frame is one row of another clip. Same values either way; ours also
come standardised, in float32, or as stored for the device to convert.

All is measured twice: with the files in the page cache, and with none of them there when a question's reading
begins. MUSIC-AVQA has 9,288 videos: 224 GB of the released files, which fit no usual memory, against 19 GB of
our shards, which may; so the last column takes our rate over theirs from the disk.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from benchmarks import report
from benchmarks.corpus import sample_meta
from benchmarks.report import Spread, positive
from models.noise import generator
from pipelines.moments import add, channel_moments, statistics
from shards.reader import ShardDataset
from shards.schema import BackboneInfo, DatasetInfo, Normalisation, SplitInfo
from shards.sequence import SEQUENCE, SequenceSpec
from shards.writer import Record, write_shard

SECONDS, STRIDE, SIDE, DIM, AUDIO = 60, 6, 14, 512, 128  # of a video; every sixth second is used
STEPS = SECONDS // STRIDE
OURS, HALF, RELEASED = "ours, standardised float32", "ours, float16 as stored", "whole float32 files"
MEMORY, DISK = "page cache", "disk"
Item = tuple[Tensor, Tensor, Tensor]  # audio [T, 128], visual and negative [T, ...]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.avqa_loading", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--clips", type=positive, default=24, help="videos of 24 MB each (default 24)")
    parser.add_argument("--questions", type=positive, default=32, help="that ours loads a round")
    parser.add_argument("--released-questions", type=positive, default=4, help="that the other loads a round")
    parser.add_argument("--batch-size", type=positive, default=4)
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
    report.save(
        args.out, "avqa-loading", "Loading for question answering", text, record, lambda f: _draw(f, rows)
    )
    return 0


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A row per way and place of the files: questions per second, bytes per question, and ratios."""
    write(folder, args.clips)
    ways: dict[str, Ours | Released] = {
        OURS: Ours(folder / "shards", args.questions),
        HALF: Ours(folder / "shards", args.questions, half=True),
        RELEASED: Released(folder, args.released_questions),
    }
    taken = {}
    for place, drop in ((MEMORY, None), (DISK, folder)):
        runs = {name: _way(items, args.batch_size, drop) for name, items in ways.items()}
        taken[place] = report.alternate(runs, args.repeats)
    return [
        {
            "files": place,
            "way": name,
            "rate": Spread.of(rates[name]),
            "bytes": items.bytes,
            "over_released": report.ratios(rates[name], rates[RELEASED]),
            "over_released_from_disk": report.ratios(rates[name], taken[DISK][RELEASED]),
        }
        for place, rates in taken.items()
        for name, items in ways.items()
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


class Ours(Dataset):
    """Steps and negatives from the shards, standardised unless `half`; `bytes` are read for one question."""

    def __init__(self, folder: Path, questions: int, half: bool = False):
        self.data, self.questions, self.half = ShardDataset(folder, "train"), questions, half
        self.clips = len(self.data.metas)  # reads them all once, as training does
        found = self.data.info.normalisation
        assert found.audio is not None
        assert found.visual is not None
        self.scale = {
            "audio": (torch.tensor(found.audio.mean), 1 / torch.tensor(found.audio.std)),
            "visual": (torch.tensor(found.visual.mean), 1 / torch.tensor(found.visual.std)),
        }
        self.bytes = 2 * (STEPS * AUDIO + 2 * STEPS * SIDE * SIDE * DIM)

    def __len__(self) -> int:
        return self.questions

    def __getitem__(self, i: int) -> Item:
        own, rng = i % self.clips, generator("negative", 0, i)
        arrays = self.data[own].arrays
        others = (own + 1 + rng.integers(self.clips - 1, size=STEPS)) % self.clips
        steps = rng.integers(STEPS, size=STEPS)
        negative = np.empty_like(arrays["visual"])
        for row, (clip, step) in enumerate(zip(others, steps, strict=True)):
            negative[row] = self._frame(int(clip), int(step))
        audio, visual = (self._standard(m, arrays[m]) for m in ("audio", "visual"))
        return audio, visual, self._standard("visual", negative)

    def _frame(self, clip: int, step: int) -> np.ndarray:
        return self.data.rows(clip, lambda name, shape: step if name == "visual" else 0).arrays["visual"]

    def _standard(self, modality: str, x: np.ndarray) -> Tensor:
        if self.half:
            return torch.from_numpy(x)
        mean, inverse = self.scale[modality]
        return torch.from_numpy(x).float().sub_(mean).mul_(inverse)


class Released(Dataset):
    """What the released `AVQA_dataset` does per question, read by read."""

    def __init__(self, folder: Path, questions: int):
        self.folder, self.questions = folder / "files", questions
        self.names = sorted(path.stem.removesuffix("-audio") for path in self.folder.glob("*-audio.npy"))
        self.random = random.Random(0)
        self.bytes = 4 * (SECONDS * AUDIO + (1 + STEPS) * SECONDS * DIM * SIDE * SIDE)

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


def _way(items: Ours | Released, batch_size: int, drop: Path | None) -> Callable[[], float]:
    """Questions per second of making batches of all of them in this process; `drop`: a folder whose files are
    out of the page cache at each question (dropping them is not counted)."""

    def run() -> float:
        taken, batch = 0.0, []
        for i in range(len(items)):
            if drop is not None:
                _drop(drop)
            start = time.perf_counter()
            batch.append(items[i])
            if len(batch) == batch_size:
                default_collate(batch)
                batch = []
            taken += time.perf_counter() - start
        return len(items) / taken

    return run


def _drop(folder: Path) -> None:
    """Have the files out of the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


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
        f"{args.clips} videos, batch {args.batch_size}, one process, {args.repeats} repetitions in turn, "
        "median (least-greatest).\n\n" + report.table(columns, cells)
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.subplots()
    names = [f"{row['way']}\n{row['files']}" for row in rows]
    axes.barh(names, [row["rate"].median for row in rows])
    axes.set(xlabel="questions per second", xscale="log")
    axes.invert_yaxis()


if __name__ == "__main__":
    raise SystemExit(main())
