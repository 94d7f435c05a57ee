"""Thousands of ruined files through the ingestion: is each one accounted for, and does nothing remain?

    python -m benchmarks.hostile --files 2000

Real clips and own encodings are cut, flipped, rearranged, mislabelled, blown up (``mutations``). Each batch
is one ingestion. The work folder keeps what was measured: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mutations import MUTATIONS, png_bomb, text
from benchmarks.processes import ROOT, Marked
from benchmarks.report import RESULTS, machine, positive, save, table
from pipelines.ffmpeg import executable
from shards.causes import Cause
from shards.reader import ShardDataset
from shards.verify import verify

DATA = ROOT.parent / "shared" / "data"
FIELDS = ("frames=4", "image_size=64", "samples_per_shard=25", "timeout_s=20", "workers=0")
TEST = "testsrc=size=96x64:rate=10:duration=1"
TONE = "sine=frequency=440:duration=1"
OWN = {  # name -> codecs; all from one second of test pattern and tone
    "h264.mp4": "-c:v libx264 -pix_fmt yuv420p -c:a aac",
    "fast.mp4": "-c:v libx264 -pix_fmt yuv420p -c:a aac -movflags +faststart",
    "fragments.mp4": "-c:v libx264 -pix_fmt yuv420p -c:a aac -movflags frag_keyframe+empty_moov",
    "h264.mov": "-c:v libx264 -pix_fmt yuv420p -c:a pcm_s16le",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus",
    "h264.mkv": "-c:v libx264 -pix_fmt yuv420p -c:a flac",
    "mpeg4.avi": "-c:v mpeg4 -c:a libmp3lame",
    "mpeg2.ts": "-c:v mpeg2video -c:a mp2",
    "sound.wav": "-vn -c:a pcm_s16le",
    "sound.mp3": "-vn -c:a libmp3lame",
    "sound.flac": "-vn -c:a flac",
    "picture.png": "-an -frames:v 1",
    "picture.jpg": "-an -frames:v 1",
}
FAST = "-c:v libx264 -preset ultrafast"
BOMBS = {  # small files that decode to gigabytes, or are wider than any
    "silence.flac": "-f lavfi -i anullsrc=r=8000:cl=mono:d=36000 -c:a flac",
    "large.mp4": f"-f lavfi -i color=size=8192x8192:rate=1:duration=1 {FAST}",
    "many.mp4": f"-f lavfi -i color=size=6000x6000:rate=20:duration=1 {FAST}",
    "wide.mkv": "-f lavfi -i color=size=16000x64:rate=5:duration=1 -c:v mjpeg",
}
PICTURES = (".png", ".jpg")


@dataclass(frozen=True)
class Batch:
    """One ingestion: outcome by mutation (``ingested`` or a code), and what it left or held.

    Attributes:
        missing, twice: clips that are in no place, or in two.
        handles: open files in the second and in the third quarter of the run, mean, all processes together.
        resident: MiB, the most that was seen.
    """

    number: int
    outcomes: dict[str, dict[str, int]]
    status: int
    missing: int
    twice: int
    faults: int
    leaked: tuple[str, ...]
    handles: tuple[float, float]
    resident: int
    seconds: float


def ffmpeg(arguments: str, path: Path) -> Path:
    """Make a file by ffmpeg, once."""
    if not path.exists():
        half = path.with_name(f"half-{path.name}")
        command = [
            executable(),
            "-nostdin",
            "-v",
            "error",
            "-y",
            "-threads",
            "1",
            *arguments.split(),
            str(half),
        ]
        subprocess.run(command, check=True, timeout=300)
        half.rename(path)
    return path


def sources(work: Path, data: Path) -> tuple[list[Path], list[float]]:
    """Files to ruin and how often each is drawn: own encodings, small real clips, sometimes a large one."""
    work.mkdir(parents=True, exist_ok=True)
    inputs = f"-f lavfi -i {TEST} -f lavfi -i {TONE}"
    own = [ffmpeg(f"{inputs} {codecs}", work / name) for name, codecs in OWN.items()]
    real = sorted((data / "clips").iterdir()) if data.is_dir() else []
    weights = [1.0] * len(own) + [1.0 if file.stat().st_size < 300_000 else 0.1 for file in real]
    return own + real, [weight / sum(weights) for weight in weights]


def bombs(work: Path) -> list[Path]:
    """Files that are small and decode to gigabytes, or claim to."""
    pictures = {"claims.png": (100_000, 1), "full.png": (30_000, None), "allowed.png": (6000, None)}
    for name, (side, rows) in pictures.items():
        if not (work / name).exists():
            (work / name).write_bytes(png_bomb(side, rows))
    return [
        *(ffmpeg(how, work / name) for name, how in BOMBS.items()),
        *(work / name for name in pictures),
    ]


def write_batch(folder: Path, count: int, work: Path, data: Path, rng: np.random.Generator) -> dict[str, str]:
    """``count`` ruined files and their manifest; the mutation of each, by id."""
    files, weights = sources(work / "sources", data)
    made: dict[str, str] = {}
    rows = ["id,path,audio_path,image_path,label,split"]
    kinds = [*MUTATIONS] * 4 + ["wrong extension", "empty", "text", "bomb"]
    folder.mkdir(parents=True)
    for i in range(count):
        kind = kinds[int(rng.integers(len(kinds)))]
        source = files[int(rng.choice(len(files), p=weights))]
        name, content = _ruined(kind, source, files, work, rng)
        path = folder / f"{i:05d}{name}"
        path.write_bytes(content)
        made[f"clip{i:05d}"] = kind
        place = f",,{path.name}" if name in PICTURES else f"{path.name},,"
        rows.append(f"clip{i:05d},{place},x,train")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return made


def _ruined(
    kind: str, source: Path, files: Sequence[Path], work: Path, rng: np.random.Generator
) -> tuple[str, bytes]:
    """Suffix and content."""
    if kind == "bomb":
        choices = bombs(work / "sources")
        bomb = choices[int(rng.integers(len(choices)))]
        return bomb.suffix, bomb.read_bytes()
    if kind == "wrong extension":
        return files[int(rng.integers(len(files)))].suffix, source.read_bytes()
    if kind in ("empty", "text"):
        return source.suffix, b"" if kind == "empty" else text(rng)
    return source.suffix, MUTATIONS[kind](source.read_bytes(), rng)


def one_batch(number: int, args: argparse.Namespace, work: Path) -> Batch:
    """Make the files, ingest them, and look at what came out."""
    folder, out, begin = work / f"batch-{number:03d}", work / f"out-{number:03d}", time.monotonic()
    for old in (folder, out):
        shutil.rmtree(old, ignore_errors=True)
    count = min(args.batch, args.files - number * args.batch)
    made = write_batch(folder, count, work, args.data, np.random.default_rng([args.seed, number]))
    run = Marked.start(
        *("-m", "pipelines.ingest", "--manifest", str(folder / "manifest.csv"), "--out", str(out), *FIELDS),
        log=out.with_suffix(".log"),
    )
    handles, resident = watch(run, limit=count * 100.0)
    status, leaked = run.process.wait(), tuple(run.left(5.0))
    record = _account(number, made, out, status, leaked, handles, resident, time.monotonic() - begin)
    if not args.keep:
        shutil.rmtree(folder)
        shutil.rmtree(out, ignore_errors=True)
    return record


def watch(run: Marked, limit: float) -> tuple[list[int], int]:
    """Open files at each look until the end, and the most memory (MiB); what takes too long is killed."""
    handles, resident = [], 0
    while run.process.poll() is None:
        handles.append(run.handles())
        resident = max(resident, run.resident())
        if time.monotonic() - run.begin > limit:
            run.kill(run.pids())
        time.sleep(0.5)
    return handles, resident


def _account(
    number: int,
    made: dict[str, str],
    out: Path,
    status: int,
    leaked: tuple[str, ...],
    handles: Sequence[int],
    resident: int,
    seconds: float,
) -> Batch:
    found: list[tuple[str, str]] = []
    if (out / "dataset.json").exists():
        found += [(meta.id, "ingested") for meta in ShardDataset(out, "train").metas]
        lines = (out / "quarantine.jsonl").read_text().splitlines()
        found += [(line["id"], Cause(line["error"]).value) for line in map(json.loads, lines)]
    times = Counter(name for name, _ in found)
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in made.values()}
    for name, outcome in found:
        outcomes[made[name]][outcome] += 1
    first, middle, last = (len(handles) * part // 4 for part in (1, 2, 3))
    parts = (handles[first:middle], handles[middle:last])
    means = [float(np.mean(part)) if len(part) else 0.0 for part in parts]
    return Batch(
        number,
        {kind: dict(counts) for kind, counts in outcomes.items()},
        status,
        missing=len(set(made) - set(times)),
        twice=sum(count > 1 for count in times.values()),
        faults=len(verify(out)) if found else 0,
        leaked=leaked,
        handles=(means[0], means[1]),
        resident=resident,
        seconds=round(seconds, 1),
    )


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if a run failed, a file is unaccounted for, or a process was left."""
    parser = argparse.ArgumentParser(prog="benchmarks.hostile", description=__doc__)
    parser.add_argument("--files", type=positive, default=2000, help="in all (default 2000)")
    parser.add_argument("--batch", type=positive, default=200, help="files in one ingestion (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA, help="real clips (if there)")
    parser.add_argument("--keep", action="store_true", help="keep the files in the work folder")
    parser.add_argument("--work", type=Path, help="folder to go on in (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    work = (args.work or Path(tempfile.mkdtemp(prefix="hostile-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    found = machine("cpu")
    settings = {"files": args.files, "batch": args.batch, "seed": args.seed, "fields": FIELDS}
    batches = measure(args, work)
    write(args.out, batches, {"machine": found, "settings": settings})
    if args.work is None:
        shutil.rmtree(work)
    return int(any(b.status or b.missing or b.twice or b.faults or b.leaked for b in batches))


def measure(args: argparse.Namespace, work: Path) -> list[Batch]:
    """All batches; those of earlier calls on the same folder are read."""
    journal = work / f"batches-{args.seed}-{args.files}-{args.batch}.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    batches = [Batch(**json.loads(line)) for line in lines]
    for number in range(len(batches), -(-args.files // args.batch)):
        batches.append(one_batch(number, args, work))
        with journal.open("a") as file:
            file.write(json.dumps(asdict(batches[-1])) + "\n")
        done, lost = min((number + 1) * args.batch, args.files), sum(b.missing for b in batches)
        print(f"{done} of {args.files} files, {lost} unaccounted for", flush=True)
    return batches


def write(out: Path, batches: Sequence[Batch], record: dict[str, Any]) -> None:
    """Outcomes by mutation, and what the runs held and left."""
    kinds = list(dict.fromkeys(kind for batch in batches for kind in batch.outcomes))
    codes = ["ingested", *(cause.value for cause in Cause)]
    count = {(k, c): sum(b.outcomes.get(k, {}).get(c, 0) for b in batches) for k in kinds for c in codes}
    shown = [code for code in codes if any(count[kind, code] for kind in kinds)]
    rows: list[list[object]] = [
        [kind, sum(count[kind, c] for c in codes), *(count[kind, c] for c in shown)] for kind in kinds
    ]
    rows.append(["all", *(sum(int(str(row[i])) for row in rows) for i in range(1, len(shown) + 2))])
    total = {
        "runs that failed": f"{sum(b.status != 0 for b in batches)} of {len(batches)}",
        "files unaccounted for": sum(b.missing for b in batches),
        "files in two places": sum(b.twice for b in batches),
        "faults that verify finds": sum(b.faults for b in batches),
        "processes left": sum(len(b.leaked) for b in batches),
        "open files in the second quarter of a run": f"{np.mean([b.handles[0] for b in batches]):.1f}",
        "open files in the third quarter of a run": f"{np.mean([b.handles[1] for b in batches]):.1f}",
        "memory at most (MiB)": max(b.resident for b in batches),
        "seconds in all": round(sum(b.seconds for b in batches)),
    }
    lines = [table(["mutation", "files", *shown], rows), "", table(["", "found"], list(total.items()))]
    save(out, "hostile", "Ruined files", "\n".join(lines), {**record, "batches": list(batches)}, _draw(count))


def _draw(count: dict[tuple[str, str], int]):
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        kinds, codes = (list(dict.fromkeys(pair[i] for pair in count)) for i in (0, 1))
        left = np.zeros(len(kinds))
        for code in codes:
            values = np.array([count[kind, code] for kind in kinds])
            if values.any():
                axes.barh(kinds, values, left=left, label=code)
            left += values
        axes.invert_yaxis()
        axes.legend(fontsize="small")
        axes.set(xlabel="files", title="What became of ruined files")

    return draw


if __name__ == "__main__":
    raise SystemExit(main())
