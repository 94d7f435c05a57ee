"""Thousands of ruined files through the ingestion: is each one accounted for, and does nothing remain?

    python -m benchmarks.hostile --files 2000 --work DIR

Real clips and own encodings are cut, flipped, rearranged, mislabelled, blown up (``mutations``). Each batch
is one ingestion, some of them on Ray. Meanwhile the open files and the processes of driver, decoders and
workers are counted. The work folder keeps what was measured: the same command goes on after an interruption.
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
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mutations import MUTATIONS, png_bomb, text
from benchmarks.processes import ROOT, Marked, stoppable
from benchmarks.report import RESULTS, machine, positive, save_folder, table
from pipelines.ffmpeg import executable
from shards.causes import Cause
from shards.reader import ShardDataset
from shards.verify import verify

DATA = ROOT.parent / "shared" / "data"
FIELDS = ("frames=4", "image_size=64", "samples_per_shard=25", "timeout_s=6")
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
Looks = list[dict[str, tuple[int, int]]]  # by role: processes, the most open files of one
Held = dict[str, tuple[list[float], list[float]]]  # by role: the same near the beginning, and at the end
RUNNING: list[Marked] = []
SLACK = (1, 3)  # more processes or open files than that are growth


@dataclass(frozen=True)
class Batch:
    """One ingestion: outcome by mutation (``ingested`` or a code), and what it left or held.

    Attributes:
        missing, twice: clips that are in no place, or in two.
        mode: "alone", or on "ray" with two workers.
        held: by role (driver, decoder, worker): processes and the most open files of one, as medians over
            the second and over the last quarter of the run.
        resident: MiB, the most that was seen.
    """

    number: int
    outcomes: dict[str, dict[str, int]]
    status: int
    missing: int
    twice: int
    faults: int
    leaked: tuple[str, ...]
    held: Held
    resident: int
    seconds: float
    mode: str = "alone"

    @property
    def grown(self) -> list[str]:
        """Roles with more processes or open files at the end than near the beginning."""
        return [
            role
            for role, (first, last) in self.held.items()
            if any(b > a + slack for a, b, slack in zip(first, last, SLACK, strict=True))
        ]

    @property
    def bad(self) -> bool:
        """Something is wrong with it."""
        return bool(self.status or self.missing or self.twice or self.faults or self.leaked or self.grown)


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


def _ruined(kind: str, source: Path, files: Sequence[Path], work: Path, rng: np.random.Generator) -> tuple[str, bytes]:
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
    mode = "ray" if number % args.ray_every == args.ray_every - 1 else "alone"
    command = ["-m", "pipelines.ingest", "--manifest", str(folder / "manifest.csv"), "--out", str(out)]
    fields = [*FIELDS, f"workers={2 if mode == 'ray' else 0}"]
    with Marked.start(*command, *fields, log=out.with_suffix(".log")) as run:
        RUNNING.append(run)
        looks, resident = watch(run, limit=count * 100.0)
        status, leaked = run.process.wait(), tuple(run.left(20.0 if mode == "ray" else 5.0))
    RUNNING.remove(run)
    record = replace(_account(number, made, out, status, leaked, looks, resident, time.monotonic() - begin), mode=mode)
    if not args.keep:
        shutil.rmtree(folder)
        shutil.rmtree(out, ignore_errors=True)
    return record


def watch(run: Marked, limit: float) -> tuple[Looks, int]:
    """Processes and open files at each look until the end, and the most memory (MiB); what takes too long is
    killed."""
    looks: Looks = []
    resident = 0
    while run.process.poll() is None:
        looks.append(run.held())
        resident = max(resident, run.resident())
        if time.monotonic() - run.begin > limit:
            run.kill(run.pids())
        time.sleep(0.5)
    return looks, resident


def held(looks: Looks) -> Held:
    """Medians over the second and over the last quarter of those looks in which a role was seen, from the
    first decoder on (before, Ray starts)."""
    looks = looks[next((i for i, look in enumerate(looks) if "decoder" in look), 0) :]
    out: Held = {}
    for role in sorted({role for look in looks for role in look}):
        seen = [look[role] for look in looks if role in look]
        quarters = seen[len(seen) // 4 : len(seen) // 2], seen[3 * len(seen) // 4 :]
        if all(quarters):
            first, last = ([float(x) for x in np.median(part, axis=0)] for part in quarters)
            out[role] = (first, last)
    return out


def _account(
    number: int,
    made: dict[str, str],
    out: Path,
    status: int,
    leaked: tuple[str, ...],
    looks: Looks,
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
    return Batch(
        number,
        {kind: dict(counts) for kind, counts in outcomes.items()},
        status,
        missing=len(set(made) - set(times)),
        twice=sum(count > 1 for count in times.values()),
        faults=len(verify(out)) if found else 0,
        leaked=leaked,
        held=held(looks),
        resident=resident,
        seconds=round(seconds, 1),
    )


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if a run failed, a file is unaccounted for, or a process was left."""
    parser = argparse.ArgumentParser(prog="benchmarks.hostile", description=__doc__)
    parser.add_argument("--files", type=positive, default=2000, help="in all (default 2000)")
    parser.add_argument("--batch", type=positive, default=200, help="files in one ingestion (default 200)")
    parser.add_argument("--jobs", type=positive, default=2, help="ingestions at a time (default 2)")
    parser.add_argument("--ray-every", type=positive, default=5, help="each Nth batch on Ray (default 5)")
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
    with stoppable(f"to go on, give --work {work} too"):
        batches = measure(args, work)
    write(args.out, batches, {"machine": found, "settings": settings})
    if args.work is None:
        shutil.rmtree(work)
    return int(any(batch.bad for batch in batches))


def measure(args: argparse.Namespace, work: Path) -> list[Batch]:
    """All batches; those of earlier calls on the same folder are read."""
    journal = work / f"batches-{args.seed}-{args.files}-{args.batch}-{args.ray_every}.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    done = {batch.number: batch for batch in (Batch(**json.loads(line)) for line in lines)}
    todo = [number for number in range(-(-args.files // args.batch)) if number not in done]
    sources(work / "sources", args.data)
    bombs(work / "sources")
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = [pool.submit(one_batch, number, args, work) for number in todo]
        try:
            for future in as_completed(waiting):
                batch = future.result()
                done[batch.number] = batch
                with journal.open("a") as file:
                    file.write(json.dumps(asdict(batch)) + "\n")
                lost = sum(b.missing for b in done.values())
                print(
                    f"{min(len(done) * args.batch, args.files)} of {args.files} files, {lost} lost",
                    flush=True,
                )
        except BaseException:  # stopped: what runs is ended, and not recorded
            for future in waiting:
                future.cancel()
            for run in list(RUNNING):
                run.kill(run.pids())
            raise
    return [done[number] for number in sorted(done)]


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
        **_held_rows(batches),
        "runs in which files or processes grew": sum(bool(b.grown) for b in batches),
        "memory at most (MiB)": max(b.resident for b in batches),
        "seconds in all": round(sum(b.seconds for b in batches)),
    }
    lines = [table(["mutation", "files", *shown], rows), "", table(["", "found"], list(total.items()))]
    found = {**record, "batches": list(batches)}
    flat = [{"mutation": k, "files": sum(count[k, c] for c in codes), **{c: count[k, c] for c in codes}} for k in kinds]
    files = sum(sum(counts.values()) for b in batches for counts in b.outcomes.values())
    line = [
        f"{files:,} ruined files",
        f"{total['files unaccounted for']} unaccounted for",
        f"{total['runs that failed']} runs failed",
        f"{total['processes left']} processes left",
        f"{total['runs in which files or processes grew']} runs grew",
    ]
    save_folder(out, "hostile", "Ruined files", "\n".join(lines), found, _draw(count), flat, line)


def _held_rows(batches: Sequence[Batch]) -> dict[str, str]:
    """Per role: processes and open files near the beginning and at the end, the most of any run."""
    rows = {}
    for role in sorted({role for batch in batches for role in batch.held}):
        for at, what in enumerate(("processes", "open files")):
            first, last = (max(b.held[role][part][at] for b in batches if role in b.held) for part in (0, 1))
            rows[f"{role}: {what}, second quarter to last of a run"] = f"{first:g} to {last:g}"
    return rows


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
        figure.legend(loc="outside right center", fontsize="small")
        axes.set(xlabel="files", title="What became of ruined files")

    return draw


if __name__ == "__main__":
    raise SystemExit(main())
