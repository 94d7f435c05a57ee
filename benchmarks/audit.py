"""Faults planted in a drawn corpus: which of them does the audit find, and what does it flag besides?

    python -m benchmarks.audit --work DIR

Clips of ``scenes`` get one fault each, by ffmpeg; others stay as they are. Of some, copies are added to another
split: as they are, re-encoded, cropped, with other gain, brightness and bit rate, cut short in time. The truth is
exact: it is what was planted. The same is audited from the manifest and from media shards made of it (which
know neither the files nor the waveforms). The thresholds were chosen on clips of seed 0; other seeds are held out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import RESULTS, machine, positive, save_folder, table
from pipelines.audit.candidates import BITS, close_pairs
from pipelines.audit.run import audit
from pipelines.audit.settings import AuditConfig
from pipelines.corpora.synthetic import scenes
from pipelines.ffmpeg import executable
from pipelines.ingest import ingest
from pipelines.manifest import Clip, read_manifest, write_manifest
from pipelines.settings import IngestConfig
from shards.audit_file import read_flags
from shards.progress import Progress

SECONDS, SIZE = 2.0, 96
H264 = "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv420p"
AAC = "-c:a aac -b:a 64k"
HALF = "half"  # of the file's bytes
COPY_V, COPY_A = "-c:v copy", "-c:a copy"
FAULTS: dict[str, str] = {  # fault -> what ffmpeg does to a clip ({...}: drawn)
    "silent": f"-af volume=0 {COPY_V} {AAC}",
    "nearly silent": f"-af volume=-45dB {COPY_V} -c:a pcm_s16le",
    "constant_audio": "-f lavfi -i sine={pitch}:sample_rate=16000:duration=2 -map 0:v -map 1:a " + f"{COPY_V} {AAC}",
    "clipped": f"-af volume=45dB,aformat=s16 {COPY_V} {AAC}",
    "cancelled_stereo": f"-af pan=stereo|c0=c0|c1=-1*c0 {COPY_V} {AAC}",
    "short_audio": f"-af atrim=0:0.2 {COPY_V} {AAC}",
    "black": f"-vf drawbox=t=fill:c=black {H264} {COPY_A}",
    "constant_visual": "-vf drawbox=t=fill:c={colour} " + f"{H264} {COPY_A}",
    "frozen": f"-vf loop=-1:1:0,setpts=N/8/TB,trim=duration=2 {H264} {COPY_A}",
    "blurred": f"-vf gblur=sigma=5 {H264} {COPY_A}",
    "short_visual": f"-vf trim=end_frame=2 {H264} {COPY_A}",
    "length_differs": "-af atrim=0:{part} " + f"{COPY_V} {AAC}",
    "clock_offset": "-itsoffset {shift} -t {rest} -i {path} -map 0:v -map 1:a " + f"{COPY_V} {COPY_A}",
    "failed": HALF,
}
COPIES: dict[str, str] = {
    "exact": "",
    "re-encoded": "-c:v libx264 -crf 28 -pix_fmt yuv420p -c:a aac -b:a 96k",
    "cropped": f"-vf crop={{crop}},scale={SIZE}:{SIZE} {H264} {AAC}",
    "gain": f"-af volume={{gain}}dB -vf eq=brightness=0.05:contrast=1.15 {H264} -c:a libmp3lame -b:a 96k",
    "cut": "-ss {begin} " + f"{H264} {AAC}",
}
IMPLIED = {  # what a fault brings with it, by what it is
    "nearly silent": {"silent"},
    "short_audio": {"short_audio", "length_differs"},
    "short_visual": {"short_visual", "length_differs"},
}
ALLOWED = {  # what may be flagged or not
    "short_visual": {"frozen"},
    "clock_offset": {"length_differs"},
    "clipped": {"constant_audio"},
    "cancelled_stereo": {"silent"},  # shards hold the mix, which is
    "short_audio": {"silent"},  # what is left of it may hold nothing
    "length_differs": {"duplicate_audio"},
}
DUPLICATES = {"duplicate_audio", "duplicate_visual", "shared_source", "across_splits"}
FROM_FILE = ("clipped", "cancelled_stereo", "clock_offset", "failed")  # flags that shards can't give


def build(work: Path, faults: int, clean: int, seed: int, jobs: int) -> dict[str, str]:
    """The corpus ``work/manifest.csv``; what was planted in each clip, by id ("": nothing)."""
    kinds = [*FAULTS, *COPIES]
    count = clean + faults
    config = scenes.ScenesConfig(clips=count, seed=seed, seconds=SECONDS, size=SIZE, jobs=jobs)
    drawn_scenes = scenes.build(config, work / "scenes", partial(Progress, "scenes"))
    clips, rng = read_manifest(drawn_scenes.manifests["default"]), np.random.default_rng(seed)
    planted: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    commands: list[tuple[Path, str, Path]] = []
    (work / "planted").mkdir(exist_ok=True)
    for i, clip in enumerate(clips):
        kind = kinds[i % len(kinds)] if i < faults else ""
        source, out = Path(str(clip.path)), work / "planted" / f"{clip.id}.mp4"
        drawn = _drawn(rng, source)
        if kind in FAULTS:
            suffix = ".mov" if kind == "nearly silent" else ".mp4"
            commands.append((source, FAULTS[kind].format(**drawn), out.with_suffix(suffix)))
            rows.append(_row(clip, clip.id, commands[-1][2], clip.split))
            planted[clip.id] = kind
            continue
        rows.append(_row(clip, clip.id, source, clip.split))
        planted[clip.id] = f"has a copy, {kind}" if kind else ""
        if kind:
            commands.append((source, COPIES[kind].format(**drawn), out))
            rows.append(_row(clip, f"copy-{clip.id}", out, "test" if clip.split == "train" else "train"))
            planted[f"copy-{clip.id}"] = kind
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(_make, commands))
    write_manifest(work / "manifest.csv", rows)
    return planted


def _drawn(rng: np.random.Generator, path: Path) -> dict[str, Any]:
    shift = round(float(rng.uniform(0.2, 0.8)), 2)
    left, right, top, bottom = (round(float(x), 3) for x in rng.uniform(0.01, 0.08, 4))
    return {
        "path": path,
        "pitch": int(rng.integers(100, 3000)),
        "colour": f"0x{rng.integers(60, 200, 3, dtype=np.uint8).tobytes().hex()}",
        "part": round(float(rng.uniform(0.8, 1.3)), 2),
        "shift": shift,
        "rest": round(SECONDS - shift, 2),
        "crop": f"iw*{1 - left - right:.3f}:ih*{1 - top - bottom:.3f}:iw*{left}:ih*{top}",
        "gain": round(float(rng.choice([-9, -6, 4, 6])), 1),
        "begin": round(float(rng.uniform(0.06, 0.2)), 3),
    }


def _row(clip: Clip, name: str, path: Path, split: str) -> dict[str, Any]:
    return {"id": name, "path": str(path), "label": list(clip.labels), "split": split}


def _make(command: tuple[Path, str, Path]) -> None:
    source, options, out = command
    if out.exists():
        return
    if not options or options == HALF:
        content = source.read_bytes()
        out.write_bytes(content if not options else content[: len(content) // 2])
        return
    half = out.with_name(f"half-{out.name}")
    begin = [executable(), "-nostdin", "-v", "error", "-y", "-threads", "1", "-i", str(source)]
    subprocess.run([*begin, *options.split(), str(half)], check=True, timeout=120)
    half.rename(out)


def truth(kind: str) -> tuple[set[str], set[str]]:
    """Flags that a clip must have for what was planted in it, and flags that it may have."""
    name = kind.removeprefix("has a copy, ")
    if name in COPIES:
        wanted = {"duplicate_audio", "duplicate_visual", "across_splits"}
        return wanted, {"shared_source"} | ({"clock_offset"} if kind == "cut" else set())  # the next frame's time
    return IMPLIED.get(kind, {kind} if kind else set()), ALLOWED.get(kind, set())


def score(planted: Mapping[str, str], flags: Mapping[str, frozenset[str]], without: Sequence[str] = ()) -> list[dict]:
    """By kind of fault: planted, found, recall; by flag, flagged and precision.

    Args:
        without: kinds that this way can't find; they are no fault of it.
    """
    rows = []
    for kind in [*FAULTS, *COPIES]:
        if kind in without:
            continue
        ids = [name for name, what in planted.items() if what == kind and name in flags]
        found = sum(truth(kind)[0] <= flags[name] for name in ids)
        names = sorted(truth(kind)[0] - {"length_differs"} or truth(kind)[0]) if kind not in COPIES else []
        flagged = {n for n in flags if flags[n] & set(names)}
        right = {n for n in flagged if set(names) & (truth(planted[n])[0] | truth(planted[n])[1])}
        rows.append(
            {
                "fault": kind,
                "planted": len(ids),
                "found": found,
                "recall": round(found / len(ids), 3) if ids else "",
                "precision": round(len(right) / len(flagged), 3) if flagged else "",
            }
        )
    copies = [n for n, f in flags.items() if f & {"duplicate_audio", "duplicate_visual"}]
    right_copies = sum(planted[n].removeprefix("has a copy, ") in COPIES for n in copies)
    for row in rows:
        if row["fault"] in COPIES:
            row["precision"] = round(right_copies / len(copies), 3) if copies else ""
    return rows


def at_scale(count: int, seed: int) -> dict[str, Any]:
    """Candidates among so many clips of random hashes, 1,000 of them near another's: time, memory, how many found."""
    rng, planted = np.random.default_rng(seed), min(1000, count // 4)
    hashes = rng.integers(0, 1 << BITS, (count, 5), dtype=np.uint64)
    for i in range(planted):
        flips = rng.choice(BITS, i % 7, replace=False).astype(np.uint64)
        hashes[count // 2 + i, 1] = hashes[i, 3] ^ np.bitwise_or.reduce(np.uint64(1) << flips, initial=np.uint64(0))
    config, usable = AuditConfig(), np.ones(count, bool)
    search = {name: getattr(config, name) for name in ("tables", "neighbours", "distance", "seed")}
    tracemalloc.start()
    begin, processor = time.monotonic(), time.process_time()
    a, b, _ = close_pairs(hashes, usable, **search, nearest=config.candidates)
    seconds, used = time.monotonic() - begin, time.process_time() - processor
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = set(zip(a.tolist(), b.tolist(), strict=True))
    return {
        "clips": count,
        "pairs": len(a),
        "found": sum((i, count // 2 + i) in found for i in range(planted)) / planted,
        "seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "bytes_a_clip": round(peak / count),
    }


def wrong(planted: Mapping[str, str], flags: Mapping[str, frozenset[str]]) -> list[dict[str, str]]:
    """Clips whose flags are not what was planted."""
    out = []
    for name, found in flags.items():
        wanted, allowed = truth(planted[name])
        missed, extra = wanted - found, found - wanted - allowed
        if missed or extra:
            row = {"id": name, "planted": planted[name], "missed": ";".join(sorted(missed))}
            out.append({**row, "besides": ";".join(sorted(extra))})
    return out


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if recall or precision of some kind is below 0.95."""
    parser = argparse.ArgumentParser(prog="benchmarks.audit", description=__doc__)
    parser.add_argument("--faults", type=positive, default=304, help="in all, of 19 kinds (default 304)")
    parser.add_argument("--clean", type=positive, default=176, help="clips without one (default 176)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=("manifest", "shards"), default=["manifest", "shards"])
    parser.add_argument("--jobs", type=positive, default=2, help="processes")
    parser.add_argument("--scale", type=positive, default=1_000_000, help="clips among which candidates are sought")
    parser.add_argument("--work", type=Path, help="folder to go on in (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    work = (args.work or Path(tempfile.mkdtemp(prefix="audit-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    found = machine("cpu")
    planted = build(work, args.faults, args.clean, args.seed, args.jobs)
    sources: dict[str, Callable[[], Path]] = {
        "manifest": lambda: work / "manifest.csv",
        "shards": lambda: _shards(work),
    }
    results: dict[str, Any] = {}
    for way in args.ways:
        place, begin = sources[way](), time.monotonic()
        audit(place, work / f"audit-{way}", AuditConfig(workers=0))
        flags = read_flags(work / f"audit-{way}")
        without = FROM_FILE if way == "shards" else ()
        results[way] = {
            "clips": len(flags),
            "seconds": round(time.monotonic() - begin, 1),
            "kinds": score(planted, flags, without),
            "wrong": wrong(planted, flags) if way == "manifest" else [],
        }
    settings = {"seed": args.seed, "faults": args.faults, "clean": args.clean}
    write(args.out, results, {"machine": found, "settings": settings, "scale": at_scale(args.scale, args.seed)})
    figures = [row[name] for r in results.values() for row in r["kinds"] for name in ("recall", "precision")]
    return int(min(figure for figure in figures if figure != "") < 0.95)


def _shards(work: Path) -> Path:
    """Media shards of the same corpus, as the ingestion makes them."""
    ingest(work / "manifest.csv", work / "shards", IngestConfig(frames=10, image_size=96, partial="keep", workers=0))
    return work / "shards"


def write(out: Path, results: Mapping[str, Any], record: dict[str, Any]) -> None:
    """Recall and precision by kind, and what was wrong."""
    kinds = results["manifest"]["kinds"]
    shards = {row["fault"]: row for row in results.get("shards", {"kinds": []})["kinds"]}
    columns = ["fault", "planted", "recall", "precision", "recall, shards", "precision, shards"]
    cells, flat = [], []
    for row in kinds:
        other = shards.get(row["fault"], {"recall": "-", "precision": "-"})
        values = [row["recall"], row["precision"], other["recall"], other["precision"]]
        cells.append([row["fault"], row["planted"], *values])
        flat.append(dict(zip(columns, cells[-1], strict=True)))
    low = min(row[name] for row in kinds for name in ("recall", "precision") if row[name] != "")
    amount = sum(row["planted"] for row in kinds)
    said = json.dumps(results["manifest"]["wrong"])
    scale = record["scale"]
    lines = [
        table(columns, cells),
        "",
        f"Candidates among {scale['clips']:,} clips of random hashes: {scale['processor_seconds']:g} s of one core, "
        f"{scale['bytes_a_clip']} bytes of memory a clip; {scale['found']:.1%} of the near ones (0 to 6 bits) found.",
        "",
        f"Clips flagged otherwise than planted (manifest): {said}",
    ]
    line = [f"{amount} planted faults of {len(kinds)} kinds", f"recall and precision of each at least {low:.2f}"]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        places = np.arange(len(kinds))
        for shift, name in ((-0.2, "recall"), (0.2, "precision")):
            axes.barh(places + shift, [row[name] or 0 for row in kinds], 0.38, label=name)
        axes.set_yticks(places, [row["fault"] for row in kinds], fontsize=7)
        axes.invert_yaxis()
        axes.axvline(0.95, color="black", linewidth=0.8, linestyle=":")
        axes.legend(loc="lower left")

    seed = record["settings"]["seed"]
    save_folder(
        out,
        f"audit-seed-{seed}" if seed else "audit",
        "Faults planted, and found by the audit",
        "\n".join(lines),
        {**record, **results},
        draw,
        flat,
        line,
    )


if __name__ == "__main__":
    raise SystemExit(main())
