"""Ingestion against decord, its faster mode, and the way of the released extraction scripts.

    python -m benchmarks.decode

Clips of 10 s, H.264 at 30 fps with AAC sound, drawn by ffmpeg. Rates are clips per second of processor time
of one core (children count), which other work disturbs least; two cores are timed by the clock. The work
folder keeps each resolution's figures: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.processes import stoppable
from benchmarks.report import Spread, positive
from pipelines.audio import Span
from pipelines.ffmpeg import executable
from pipelines.frames import uniform
from pipelines.manifest import read_manifest
from pipelines.plan import ShardPlan, make_plan
from pipelines.settings import IngestConfig
from pipelines.shard_job import ingest_shard
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, SplitInfo

HEIGHTS = (720, 360)
SECONDS, FRAMES, SIDE = 10, 10, 224
SHARDS = 18  # by which two processes are compared with one: with few, one of them waits for the last one
TARGETS = {"share 720": 0.85, "share 360": 0.75, "two cores": 1.8, "over the scripts": 3.0}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=positive, default=6, help="per resolution (default 6)")
    parser.add_argument("--repeats", type=positive, default=3, help="measured repetitions (default 3)")
    parser.add_argument("--seconds", type=positive, default=SECONDS, help="length of a clip (default 10)")
    parser.add_argument("--before", type=Path, help="another checkout, whose ingestion runs in turn with this one's")
    parser.add_argument("--work", type=Path, help="folder to go on in (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write JSON, markdown and figure."""
    args = parse(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    found = report.machine("cpu") | {"threads": 1}
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "work", "before")}
    advice = f"to go on, give --work {args.work} again" if args.work else "nothing is kept without --work"
    with stoppable(advice), tempfile.TemporaryDirectory(prefix="decode-") as folder:
        work = args.work or Path(folder)
        rows = [_measured_once(args, settings, work.absolute(), height) for height in HEIGHTS]
    record = {"machine": found, "settings": settings, "targets": TARGETS, "rows": rows}
    names = {
        "share": "over decord alone",
        "two_cores": "two cores over one",
        "over_scripts": "over scripts",
    }
    flat = [
        {"height": row["height"], **{f"{way} (clips/s)": rate.median for way, rate in row["rate"].items()}}
        | {text: row[name].median for name, text in names.items()}
        for row in rows
    ]
    line = [f"{row['height']}p: " + ", ".join(f"{t} {row[n].text(2)}" for n, t in names.items()) for row in rows]
    text = _text(args, rows)
    report.save_folder(args.out, "decode", "Decoding", text, record, lambda f: _draw(f, rows), flat, line)
    return 0


def _measured_once(args: argparse.Namespace, settings: dict[str, Any], work: Path, height: int) -> dict[str, Any]:
    """One resolution; what an earlier call with the same settings left in the work folder is read."""
    kept = work / f"{height}.json"
    if kept.exists() and (record := json.loads(kept.read_text(), object_hook=_spread))["settings"] == settings:
        return record["row"]
    shutil.rmtree(work / str(height), ignore_errors=True)
    row = measure(args, work / str(height), height)
    kept.write_text(json.dumps({"settings": settings, "row": row}, default=asdict) + "\n")
    return row


def _spread(record: dict[str, Any]) -> Any:
    return Spread(**record) if record.keys() == {"median", "low", "high"} else record


def measure(args: argparse.Namespace, folder: Path, height: int) -> dict[str, Any]:
    """One resolution: rates of all ways in turn, and what the approximate mode does to the frames' times."""
    manifest = write_clips(folder, args.clips, args.seconds, height)
    paths = [Path(clip.path or "") for clip in read_manifest(manifest)]
    ways: dict[str, Callable[[], float]] = {
        "bare": lambda: _rate(paths, bare),
        "ingest": lambda: _ingest(manifest, folder, "exact"),
        "approximate": lambda: _ingest(manifest, folder, "approximate"),
        "scripts": lambda: _scripts(paths, folder),
        "one core": lambda: _cores(manifest, folder, 1),
        "two cores": lambda: _cores(manifest, folder, 2),
    }
    if args.before:
        ways["before"] = lambda: _ingest(manifest, folder, "exact", args.before)
    taken = report.alternate(ways, args.repeats)
    paired = {"over_before": report.ratios(taken["ingest"], taken["before"])} if args.before else {}
    return paired | {
        "height": height,
        "rate": {name: Spread.of(rates) for name, rates in taken.items()},
        "share": report.ratios(taken["ingest"], taken["bare"]),
        "approximate": report.ratios(taken["approximate"], taken["ingest"]),
        "over_scripts": report.ratios(taken["ingest"], taken["scripts"]),
        "two_cores": report.ratios(taken["two cores"], taken["one core"]),
        "frames": compare_frames(folder),
    }


def write_clips(folder: Path, clips: int, seconds: int, height: int) -> Path:
    """Moving patterns with noise and a tone, as mp4, and their manifest."""
    folder.mkdir(parents=True)
    rows, width = ["id,path,label,split"], height * 16 // 9
    for i in range(clips):
        picture = f"testsrc2=size={width}x{height}:rate=30:duration={seconds}"
        sound = f"sine=frequency={200 + 50 * (i % 20)}:sample_rate=44100:duration={seconds}"
        moving = f"rotate=0.05*t*{1 + i % 5},noise=c0s=12:c0f=t:c0_seed={i}"
        coding = (
            "-pix_fmt",
            "yuv420p",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-crf",
            "26",
            "-c:a",
            "aac",
        )
        command = [executable(), "-nostdin", "-v", "error", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i"]
        subprocess.run([*command, sound, "-vf", moving, *coding, folder / f"{i}.mp4"], check=True)
        rows.append(f"{i},{i}.mp4,pattern,train")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def bare(path: Path) -> None:
    """decord decoding the same frames on one thread; no sound, no scaling, nothing written.

    It decodes every frame up to the last wanted one, which ingestion does not.
    """
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    shown = np.asarray(reader.get_frame_timestamp(range(len(reader))), np.float64)
    reader.get_batch(np.unique(uniform(shown, Span(), FRAMES)).tolist()).asnumpy()


def _processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _rate(paths: Sequence[Path], work: Callable[[Path], Any]) -> float:
    start = _processor_seconds()
    for path in paths:
        work(path)
    return len(paths) / (_processor_seconds() - start)


def _plan(manifest: Path, per_shard: int) -> tuple[ShardPlan, ...]:
    return tuple(make_plan(read_manifest(manifest), per_shard, manifest.parent))


def _config(mode: str, per_shard: int) -> IngestConfig:
    overrides: dict[str, Any] = {"frame_mode": mode, "samples_per_shard": per_shard, "timeout_s": 600}
    return IngestConfig(frames=FRAMES, image_size=SIDE, workers=0, **overrides)


def _ingest(manifest: Path, folder: Path, mode: str, checkout: Path | None = None) -> float:
    """Clips per processor second of the whole ingestion: decode, resample, log-mel, write, sync."""
    out = folder / (f"before-{mode}" if checkout else mode)
    return len(read_manifest(manifest)) / _in_process("ingest_alone", manifest, out, mode, checkout=checkout)


def _scripts(paths: Sequence[Path], folder: Path) -> float:
    """The same of the way of CAV-MAE's extraction scripts: `extract_as_released`."""
    (folder / "extracted").mkdir(exist_ok=True)
    return len(paths) / _in_process("extract_alone", folder / "extracted", *paths)


def _in_process(function: str, *arguments: str | Path, checkout: Path | None = None) -> float:
    """What one of the functions below prints last, in a process of its own: its processor seconds."""
    code = f"import sys; from benchmarks.decode import {function} as run; print(run(*sys.argv[1:]))"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    env = os.environ | ({"PYTHONPATH": str(checkout.absolute())} if checkout else {})
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=checkout, env=env)
    return float(done.stdout.split()[-1])


def ingest_alone(manifest: str, out: str, mode: str) -> float:
    """Ingest all clips as one shard, and write its dataset.json; processor seconds, the start left out.

    The decoding child is started by a first clip that is thrown away; what it and its ffmpegs use is counted.
    """
    from shutil import rmtree

    from pipelines.shard_job import _decoders

    rmtree(out, ignore_errors=True)
    config = _config(mode, 10**6)
    ingest_shard(_plan(Path(manifest), 1)[0], config, Path(out) / "first")
    (child,) = (decoder._process for decoder in _decoders.values())
    assert child is not None
    start = _processor_seconds() + _seconds_of(child.pid)
    result = ingest_shard(_plan(Path(manifest), 10**6)[0], config, Path(out))
    assert not result.quarantined, result.quarantined[0]  # else the child may be another one now
    used = _processor_seconds() + _seconds_of(child.pid) - start
    split = SplitInfo(samples=result.shard.samples, present=result.present, shards=(result.shard,))
    info = DatasetInfo(kind="media", preprocessing={}, labels=("pattern",), splits={"train": split})
    info.save(out)
    return used


def _seconds_of(process: int) -> float:
    """Processor seconds of a running process and of its children that have ended (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def extract_alone(out: str, *paths: str) -> float:
    """Processor seconds of `extract_as_released`, after one clip that is not counted."""
    extract_as_released(out, paths[:1])
    start = _processor_seconds()
    extract_as_released(out, paths)
    return _processor_seconds() - start


def reader_of_scripts() -> str:
    """OpenCV, as the scripts use it; decord seeking frame by frame where OpenCV is not installed."""
    from importlib.util import find_spec

    return "OpenCV" if find_spec("cv2") else "decord"


def extract_as_released(out: str, paths: Sequence[str]) -> None:
    """Per clip: one ffmpeg for a 16 kHz wav; then for each of ten frames a seek, a decode, a small jpg.

    Our own writing of what the scripts in the CAV-MAE repository (`src/preprocess`) are described to do.
    """
    from PIL import Image

    from pipelines.frames import fit

    frame_at = _with_opencv if reader_of_scripts() == "OpenCV" else _with_decord
    for path in paths:
        name = Path(out) / Path(path).stem
        command = [executable(), "-nostdin", "-v", "error", "-y", "-threads", "1", "-i", path]
        subprocess.run([*command, "-vn", "-ac", "1", "-ar", "16000", name.with_suffix(".wav")], check=True)
        for number, picture in enumerate(frame_at(path)):
            Image.fromarray(fit(picture, SIDE)).save(f"{name}-{number}.jpg", quality=95)


def _with_opencv(path: str) -> list[np.ndarray]:
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    import cv2

    cv2.setNumThreads(1)
    video, frames = cv2.VideoCapture(path), []
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    for i in range(FRAMES):
        video.set(cv2.CAP_PROP_POS_FRAMES, int(i * total / FRAMES))
        frames.append(cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB))
    return frames


def _with_decord(path: str) -> list[np.ndarray]:
    import decord

    video, frames = decord.VideoReader(path, num_threads=1), []
    for i in range(FRAMES):
        video.seek_accurate(int(i * len(video) / FRAMES))
        frames.append(video.next().asnumpy())
    return frames


def _cores(manifest: Path, folder: Path, count: int) -> float:
    """Clips per second by the clock of that many processes, each with its share of the shards of one clip; the clips
    are taken again until there are `SHARDS`."""
    plan = _plan(manifest, 1)
    passes = -(-SHARDS // len(plan))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        context = multiprocessing.get_context("spawn")
        with context.Pool(count, initializer=_warm, initargs=(manifest, out)) as pool:
            pool.map(_nothing, range(count), chunksize=1)
            start = time.perf_counter()
            work = [(shard, _config("exact", 1), Path(out) / str(n)) for n in range(passes) for shard in plan]
            pool.starmap(ingest_shard, work, chunksize=1)
            return len(work) / (time.perf_counter() - start)


def _nothing(_: int) -> None:
    time.sleep(0.5)  # so that every process of the pool gets one, and has started


def _warm(manifest: Path, out: str) -> None:
    """Start this process's decoding child with a clip that is thrown away."""
    first = _plan(manifest, 1)[0]
    ingest_shard(first, _config("exact", 1), Path(out) / f"warm-{os.getpid()}")


def compare_frames(folder: Path) -> dict[str, float]:
    """Frames of the approximate mode against the exact ones: distance in seconds, share that is the same."""
    exact, approximate = (ShardDataset(folder / mode, "train") for mode in ("exact", "approximate"))
    away = np.array(
        [np.abs(np.subtract(a.frame_times, b.frame_times)) for a, b in zip(exact.metas, approximate.metas, strict=True)]
    )
    distinct = [len(set(meta.frame_times)) for meta in approximate.metas]
    return {
        "median_seconds_away": float(np.median(away)),
        "greatest_seconds_away": float(away.max()),
        "share_same": float((away < 1e-3).mean()),
        "distinct_of_ten": float(np.mean(distinct)),
    }


def _text(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    head = ["clips", *(f"{row['height']}p" for row in rows)]

    def line(name: str, value: Callable[[dict[str, Any]], Spread]) -> list[str]:
        return [name, *(value(row).text() for row in rows)]

    rates = {
        "bare": "decord alone, same frames, clips/s/core",
        "ingest": "ingestion, exact frames, clips/s/core",
        "approximate": "ingestion, approximate frames, clips/s/core",
        "scripts": f"the scripts' way ({reader_of_scripts()}), clips/s/core",
        "one core": "ingestion by one process, clips/s",
        "two cores": "ingestion by two processes, clips/s",
    }
    cells = [line(text, lambda row, name=name: row["rate"][name]) for name, text in rates.items()]  # type: ignore[misc]
    cells += [
        line("ingestion over decord alone (0.85, 0.75 wanted)", lambda row: row["share"]),
        line("two processes over one (1.8 wanted)", lambda row: row["two_cores"]),
        line("approximate over exact", lambda row: row["approximate"]),
        line("ingestion over the scripts (3 wanted)", lambda row: row["over_scripts"]),
    ]
    if args.before:
        cells.append(line("ingestion of the checkout before", lambda row: row["rate"]["before"]))
        cells.append(line("ingestion over the checkout before", lambda row: row["over_before"]))
    away = "; ".join(
        f"{row['height']}p: median {row['frames']['median_seconds_away']:.2f} s, at most "
        f"{row['frames']['greatest_seconds_away']:.2f} s, {row['frames']['distinct_of_ten']:.1f} different "
        f"frames of {FRAMES}"
        for row in rows
    )
    return (
        f"{args.clips} clips of {args.seconds} s per resolution, H.264 30 fps + AAC, {FRAMES} frames of "
        f"{SIDE} pixels, {args.repeats} repetitions in turn, median (least-greatest).\n\n"
        f"{report.table(head, cells)}\n\n"
        f"Approximate frames lie this far from the exact ones: {away}."
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    names = ("scripts", "ingest", "bare", "approximate")
    for axes, row in zip(figure.subplots(1, len(rows)), rows, strict=True):
        axes.bar(names, [row["rate"][name].median for name in names])
        axes.set(title=f"{row['height']}p", ylabel="clips per second and core")


if __name__ == "__main__":
    raise SystemExit(main())
