"""An audit of drawn clips, up to a million: time and memory of all that comes after measuring.

    python -m benchmarks.audit_scale --work DIR

What is measured of each clip is drawn and written as the parts' files that measuring leaves, and a dataset.json that
names their shards; then ``avmend audit`` runs as it is, in a process of its own for each size: it finds all parts
measured, looks for duplicates, writes audit.csv, duplicates.csv, audit.html. One clip in ten is a copy of another one,
in another split; half of the clips are in groups of ten. Memory is what the process holds for itself (RssAnon of
/proc/self/status, read 50 times a second); pages of mapped files are the system's, which takes them back.

Random hashes have neighbours by chance, more of them the more clips there are, up to 6 of each clip by sound and by
picture; comparing these takes milliseconds a pair on as many cores as there are, and needs no memory. So pairs are
sought at the default distance and counted, and compared at a distance of 2 bits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.report import RESULTS, machine, positive, save_folder, table
from pipelines.audit import sketch
from pipelines.audit.clip import Measures
from pipelines.audit.duplicates import candidate_pairs
from pipelines.audit.part import FOLDER, ClipRecord, part_path
from pipelines.audit.run import COLUMNS, audit, columns_of
from pipelines.audit.settings import AuditConfig
from pipelines.audit.sources import plan_parts
from pipelines.thumbnails import jpeg
from shards.schema import DatasetInfo, ShardInfo, SplitInfo

PART, STEPS, SIDE, COPIES, GROUP = 1000, 24, 8, 10, 10
SPLITS = ("train", "val", "test")
LABELS = tuple(f"class {i}" for i in range(309))
BITS = np.uint64((1 << 41) - 1)


def draw(folder: Path, clips: int, seed: int = 0) -> Path:
    """A dataset.json of so many clips in ``folder``, and the files of their parts, as measuring leaves them in
    ``folder/audit``."""
    shards: dict[str, list[ShardInfo]] = {split: [] for split in SPLITS}
    for number in range(-(-clips // PART)):
        split = SPLITS[min(number * 10 // max(-(-clips // PART), 1), 9) // 4]
        size = min(PART, clips - number * PART)
        name = f"media/{split}-{number:06d}.tar"
        digest = sha256(f"{seed} {name} {size}".encode()).hexdigest()
        shards[split].append(ShardInfo(name=name, samples=size, bytes=1, sha256=digest))
    splits = {
        split: SplitInfo(samples=sum(s.samples for s in found), present={}, shards=tuple(found))
        for split, found in shards.items()
        if found
    }
    DatasetInfo(kind="media", preprocessing={}, labels=LABELS, splits=splits).save(folder)
    first = 0
    (folder / "audit" / FOLDER).mkdir(parents=True, exist_ok=True)
    for part in plan_parts(folder, AuditConfig()):
        path = folder / "audit" / FOLDER / f"{part.name}.safetensors"
        save_file(_drawn(first, part.size, clips, part.split, seed), path, metadata={"digest": part.digest})
        first += part.size
    return folder


def _drawn(first: int, size: int, clips: int, split: str, seed: int) -> dict[str, np.ndarray]:
    """What a part's file holds; every tenth clip of the second half is the copy of one of the first half."""
    numbers = np.arange(first, first + size)
    copied = (numbers >= clips // 2) & (numbers % COPIES == 0)
    origins = np.where(copied, numbers - clips // 2 // COPIES * COPIES, numbers).astype(np.uint64)
    digests = np.stack([_mixed(origins, 2 * seed + k + 1) for k in (0, 1, 2)], axis=1)
    records = [_record(int(i), split).model_dump_json().encode() for i in numbers]
    thumb = jpeg(np.zeros((16, 48, 3), np.uint8), 48)
    noise = np.random.default_rng([seed, first])
    return {
        "digests": digests,
        "sound_hashes": np.stack([_mixed(origins, 10 + k) & BITS for k in range(len(sketch.TIME_WINDOWS))], axis=1),
        "picture_hashes": np.stack([_mixed(origins, 20 + k) & BITS for k in range(6)], axis=1),
        "steps": np.full(size, 2, np.int64),
        "sounds": noise.integers(0, 256, (size * STEPS, 128), dtype=np.uint8),
        "sound_ends": STEPS * np.arange(1, size + 1),
        "pictures": noise.integers(0, 256, (size, sketch.STILLS, SIDE, SIDE, 3), dtype=np.uint8),
        "thumbs": np.frombuffer(thumb * size, np.uint8),
        "thumb_ends": len(thumb) * np.arange(1, size + 1),
        "records": np.frombuffer(b"".join(records), np.uint8),
        "record_ends": np.cumsum([len(record) for record in records]),
    }


def _mixed(values: np.ndarray, salt: int) -> np.ndarray:
    """64 bits that look random, the same for the same value and salt (SplitMix64's finish)."""
    with np.errstate(over="ignore"):
        x = values * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt * 0x632BE59BD9B4E019 % (1 << 64))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _record(number: int, split: str) -> ClipRecord:
    silent = number % 97 == 0
    measures = Measures(
        audio_s=10.0,
        visual_s=10.0,
        level_db=-80.0 if silent else -20.0,
        variation=1.0,
        brightness=200.0,
        contrast=50.0,
        motion=1.0 if number % 89 == 0 else 30.0,
        blur=0.1,
    )
    group = f"recording {number // GROUP}" if number // GROUP % 2 else None
    return ClipRecord(
        id=f"clip/{number:09d}",
        split=split,
        labels=(LABELS[number % len(LABELS)],),
        group=group,
        audio="present",
        visual="present",
        failure=None,
        measures=measures,
    )


class Memory:
    """The most that this process holds for itself while the block runs, MB."""

    def __init__(self) -> None:
        self.peak = self.begin = _anonymous()
        self._ended = threading.Event()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.peak = max(self.peak, _anonymous())

    @contextmanager
    def watched(self) -> Iterator[Memory]:
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()


def _anonymous() -> float:
    text = Path("/proc/self/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024 / 1e6


def audited(folder: Path) -> dict[str, Any]:
    """Audit what was drawn, in this process; pairs are compared at a distance of 2."""
    out, begin, used = folder / "audit", time.monotonic(), time.process_time()
    with Memory().watched() as memory:
        summary = audit(folder, out, AuditConfig(workers=0, distance=2))
    return {
        "clips": summary.clips.total(),
        "seconds": round(time.monotonic() - begin, 1),
        "processor_seconds": round(time.process_time() - used, 1),
        "peak_mb": round(memory.peak),
        "at_start_mb": round(memory.begin),
        "pairs": summary.matched[0],
        "across": summary.matched[1],
        "csv_mb": round((out / "audit.csv").stat().st_size / 1e6, 1),
        "page_kb": round((out / "audit.html").stat().st_size / 1e3),
    }


def sought(folder: Path) -> dict[str, Any]:
    """Seek candidates among what was drawn, at the default distance."""
    out, config = folder / "audit", AuditConfig(workers=0)
    parts = plan_parts(folder, config)
    columns = columns_of(parts, [part_path(part, out) for part in parts], config, out)
    begin, used = time.monotonic(), time.process_time()
    with Memory().watched() as memory:
        pairs = len(candidate_pairs(columns, config))
    shutil.rmtree(out / COLUMNS)
    return {
        "seeking_seconds": round(time.monotonic() - begin, 1),
        "seeking_processor_seconds": round(time.process_time() - used, 1),
        "seeking_peak_mb": round(memory.peak - memory.begin),
        "candidate_pairs": pairs,
    }


STEPS_OF_IT = {"audited": audited, "sought": sought}


def planted(clips: int) -> int:
    """Copies among so many clips."""
    return sum(1 for i in range(clips // 2, clips) if i % COPIES == 0)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if a planted copy was not found."""
    parser = argparse.ArgumentParser(prog="benchmarks.audit_scale", description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=positive, default=[10_000, 100_000, 1_000_000], help="clips")
    parser.add_argument(
        "--work", type=Path, help="folder to go on in, with room for 5 kB a clip (default: a temporary one)"
    )
    parser.add_argument("--seek", type=positive, default=1_000_000, help="clips, at most, among which all are sought")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(STEPS_OF_IT[args.one[0]](Path(args.one[1]))))
        return 0
    work = (args.work or Path(tempfile.mkdtemp(prefix="audit-scale-"))).absolute()
    rows = [_of_size(work, size, ["audited", "sought"] if size <= args.seek else ["audited"]) for size in args.sizes]
    write(args.out, rows, machine("cpu"))
    return int(any(row["pairs"] < planted(row["clips"]) for row in rows))


def _of_size(work: Path, clips: int, steps: Sequence[str]) -> dict[str, Any]:
    folder = work / str(clips)
    if not (folder / "dataset.json").exists():
        draw(folder, clips)
    found: dict[str, Any] = {}
    for step in steps:
        kept = folder / f"{step}.json"
        if kept.exists():
            found |= json.loads(kept.read_text())
            continue
        command = [sys.executable, "-m", "benchmarks.audit_scale", "--one", step, str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        kept.write_text(done.stdout.splitlines()[-1])
        found |= json.loads(kept.read_text())
    return found


def write(out: Path, rows: Sequence[dict[str, Any]], found: dict[str, Any]) -> None:
    """The table, by size."""
    head = ["clips", "processor s", "peak memory, MB", "of it before, MB", "bytes a clip", "pairs found"]
    head += ["audit.csv, MB", "audit.html, kB", "candidates: processor s", "MB", "pairs"]
    cells = [
        [
            f"{r['clips']:,}",
            r["processor_seconds"],
            r["peak_mb"],
            r["at_start_mb"],
            round((r["peak_mb"] - r["at_start_mb"]) * 1e6 / r["clips"]),
            f"{r['pairs']:,}",
            r["csv_mb"],
            r["page_kb"],
            r.get("seeking_processor_seconds", "-"),
            r.get("seeking_peak_mb", "-"),
            f"{r['candidate_pairs']:,}" if "candidate_pairs" in r else "-",
        ]
        for r in rows
    ]

    def figure(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([r["clips"] for r in rows], [r["peak_mb"] for r in rows], "o-", label="peak memory of the audit, MB")
        axes.plot([r["clips"] for r in rows], [r["page_kb"] for r in rows], "o-", label="audit.html, kB")
        axes.set_xscale("log")
        axes.set_xlabel("clips")
        axes.set_ylim(bottom=0)
        axes.legend()

    last = rows[-1]
    line = [
        f"{last['clips']:,} drawn clips",
        f"{last['peak_mb']} MB, {last['processor_seconds']:g} s of one core after measuring",
    ]
    text = table(head, cells)
    save_folder(
        out,
        "audit-scale",
        "An audit of many clips, after measuring",
        text,
        {"machine": found, "sizes": list(rows)},
        figure,
        list(rows),
        line,
    )


if __name__ == "__main__":
    raise SystemExit(main())
