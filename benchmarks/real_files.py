"""Is the right sound at the right time, whatever the file? A generated zoo, and real clips.

    python -m benchmarks.real_files --work DIR

The zoo's truth is in its making (``benchmarks.zoo``); that of real clips is an independent full decode by ffmpeg.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

from benchmarks import report
from benchmarks.zoo import Specimen, Truth, specimens
from pipelines.causes import DecodeError
from pipelines.decode import Decoded, Request, decode

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "clips"
TOLERANCE = 0.06  # seconds: encoders add up to a frame of sound that no container speaks of
RIGHT, WRONG, LOST, REFUSED = "right", "wrong", "lost silently", "wrongly refused"
FAULTY = ("corrupted.mp4",)  # real clips that are damaged


@dataclass(frozen=True)
class Verdict:
    """What became of one file: ``outcome``, and why."""

    group: str
    name: str
    outcome: str
    detail: str = ""


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if a file is wrong, lost or wrongly refused."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_files", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder to keep the zoo in (default: a temporary one)")
    parser.add_argument("--data", type=Path, default=DATA, help="real clips (if there)")
    parser.add_argument("--decoder", default="pyav", help="pyav (default) or ffmpeg")
    parser.add_argument("--every", type=report.positive, default=1, help="take each Nth file alone")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    found = report.machine("cpu")
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        work = args.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        verdicts = [judge(specimen, work, args.decoder) for specimen in list(specimens())[:: args.every]]
        clips = sorted(args.data.iterdir())[:: args.every] if args.data.is_dir() else []
        verdicts += [judge_clip(path, args.decoder) for path in clips]
    write(args.out, verdicts, {"machine": found, "decoder": args.decoder})
    return int(any(verdict.outcome != RIGHT for verdict in verdicts))


def judge(specimen: Specimen, work: Path, decoder: str) -> Verdict:
    """Decode one of the zoo and compare it, and a piece of it, with its truth."""
    path = work / specimen.name
    if not path.exists():
        specimen.make(path)
    outcome, detail = _judged(path, specimen.truth, decoder)
    return Verdict(specimen.group, specimen.name, outcome, detail)


def _request(path: Path, decoder: str, **more: Any) -> Request:
    return Request(path=str(path), size=32, in_process=decoder == "pyav", **more)


def _judged(path: Path, truth: Truth, decoder: str) -> tuple[str, str]:
    try:
        clip = decode(_request(path, decoder, frames=200))
    except DecodeError as error:
        rightly = any(error.cause.startswith(cause) for cause in truth.refused)
        return (RIGHT, str(error)) if rightly else (REFUSED, str(error))
    if truth.refused:
        return LOST, "ingested, though damaged"
    if (clip.audio is not None, clip.frames is not None) != (truth.sound, truth.picture):
        return LOST, f"sound {clip.audio is not None}, picture {clip.frames is not None}"
    problems = [*_timing(clip, truth), *_length(clip, truth), *_sides(clip, truth)]
    if not problems and (truth.lag is not None or truth.tone is not None):
        problems = _piece(path, clip, decoder)
    return (WRONG, "; ".join(problems)) if problems else (RIGHT, "")


def tone_begins(samples: np.ndarray) -> float | None:
    """Second at which sound rises above 6 % of full scale."""
    loud = np.flatnonzero(np.abs(samples.astype(float)) > 2000)
    return float(loud[0]) / 16000 if len(loud) else None


def lime_begins(clip: Decoded) -> float | None:
    """Second at which the first lime frame appears; what is neither red nor lime is an error of its own."""
    assert clip.frames is not None
    means = clip.frames.mean((1, 2))
    red, lime = means[:, 0] > 127, means[:, 1] > 127
    if (red == lime).any() or (means[:, 2] > 100).any():
        return None
    return float(clip.frame_times[int(lime.argmax())]) if lime.any() else None


def _timing(clip: Decoded, truth: Truth) -> list[str]:
    tone = tone_begins(clip.audio) if clip.audio is not None else None
    lime = lime_begins(clip) if clip.frames is not None and truth.red is None else None
    found = {
        "tone after lime": (None if tone is None or lime is None else tone - lime, truth.lag),
        "tone": (tone, truth.tone),
        "lime": (lime, truth.lime),
    }
    return [
        f"{name}: {value} s, not {right:g}"
        for name, (value, right) in found.items()
        if right is not None and (value is None or abs(value - right) > TOLERANCE)
    ]


def _length(clip: Decoded, truth: Truth) -> list[str]:
    wrong = truth.length is not None and abs(clip.duration - truth.length) > 0.35
    return [f"{clip.duration:.2f} s long, not {truth.length:g}"] if wrong else []


def _sides(clip: Decoded, truth: Truth) -> list[str]:
    if truth.red is None or clip.frames is None:
        return []
    frame = clip.frames[0].astype(float)
    half = {"left": frame[:, :12], "right": frame[:, -12:], "top": frame[:12], "bottom": frame[-12:]}[truth.red]
    return [] if half[..., 0].mean() > 200 and half[..., 1].mean() < 60 else [f"not red at the {truth.red}"]


def _piece(path: Path, whole: Decoded, decoder: str) -> list[str]:
    """A piece around the begin of the tone must be that part of the whole."""
    assert whole.audio is not None
    begin = tone_begins(whole.audio)
    assert begin is not None
    start = round(begin - 0.5, 3)
    try:
        clip = decode(_request(path, decoder, frames=60, start=start, duration=1.0))
    except DecodeError as error:
        return [f"piece: {error}"]
    tone = tone_begins(clip.audio) if clip.audio is not None else None
    problems = [] if tone is not None and abs(tone - 0.5) < 0.03 else [f"piece: tone at {tone} s, not 0.5"]
    if clip.frames is not None and whole.frames is not None:
        lime, right = lime_begins(clip), lime_begins(whole)
        inside = right is not None and start + 0.1 < right < start + 0.9
        if inside and right is not None and (lime is None or abs(lime - (right - start)) > 0.015):
            problems.append(f"piece: lime at {lime} s, not {right - start:.3f}")
    return problems


def judge_clip(path: Path, decoder: str) -> Verdict:
    """A real clip against a full decode by ffmpeg alone: frames at their times, sound where ffmpeg's filter puts it."""
    group = "real clips"
    try:
        clip = decode(_request(path, decoder, frames=10))
    except DecodeError as error:
        return Verdict(group, path.name, RIGHT if path.name in FAULTY else REFUSED, str(error))
    if path.name in FAULTY:
        return Verdict(group, path.name, LOST, "ingested, though damaged")
    problems = []
    times, pictures = full_pictures(path)
    sound = full_sound(path)
    if (clip.frames is None) != (not len(times)) or (clip.audio is None) != (sound is None):
        return Verdict(group, path.name, LOST, f"sound {clip.audio is not None}, picture {clip.frames is not None}")
    if clip.frames is not None:
        nearest = [int(np.abs(times - time).argmin()) for time in clip.frame_times]
        if max(abs(times[i] - t) for i, t in zip(nearest, clip.frame_times, strict=True)) > 0.005:
            problems.append("frame times that the file does not have")
        means = clip.frames.mean((1, 2))
        if np.abs(means - pictures[nearest]).max() > 25:
            problems.append("other pictures at these times")
    if clip.audio is not None and sound is not None and abs(lag := _lag(clip.audio, sound)) > 0.02:
        problems.append(f"sound {lag:+.3f} s off")
    return Verdict(group, path.name, WRONG if problems else RIGHT, "; ".join(problems))


def full_pictures(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seconds [frames], and mean colour [frames, 3] of the middle square, of every frame of the first video stream."""
    square = "crop='min(iw,ih)':'min(iw,ih)',scale=1:1:flags=area"
    base = ["-i", path, "-map", "0:v:0?", "-an", "-sn", "-dn", "-fps_mode", "passthrough", "-enc_time_base", "demux"]
    crc = _ffmpeg(*base, "-f", "framecrc", "-").decode()
    unit = [line.split()[2] for line in crc.splitlines() if line.startswith("#tb 0:")]
    if not unit:
        return np.zeros(0), np.zeros((0, 3))
    up, down = map(int, unit[0].split("/"))
    times = [int(line.split(",")[2]) * up / down for line in crc.splitlines() if line.startswith("0,")]
    raw = _ffmpeg(*base, "-vf", square, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.array(times), np.frombuffer(raw, np.uint8).reshape(-1, 3)[: len(times)].astype(float)


def full_sound(path: Path) -> np.ndarray | None:
    """Int16 [samples] at 16 kHz from second 0 of ffmpeg's clock, gaps filled by its own filter."""
    filled = "aresample=16000:async=1:min_hard_comp=0.05:first_pts=0"
    raw = _ffmpeg("-i", path, "-map", "0:a:0?", "-af", filled, "-ac", 1, "-f", "s16le", "-")
    return np.frombuffer(raw, np.int16) if raw else None


def _ffmpeg(*arguments: object) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "quiet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).stdout


def _lag(found: np.ndarray, right: np.ndarray) -> float:
    """Seconds by which one sound is later than another, by the peak of the correlation of their loudness (1 ms)."""
    length = min(len(found), len(right)) // 16 * 16
    a, b = (np.abs(s[:length].astype(float)).reshape(-1, 16).mean(1) for s in (found, right))
    a, b = a - a.mean(), b - b.mean()
    if not a.any() or not b.any():
        return 0.0
    size = 1 << (2 * len(a)).bit_length()
    match = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)))
    peak = int(match.argmax())
    return (peak - size if peak > size // 2 else peak) / 1000


def write(out: Path, verdicts: Sequence[Verdict], record: dict[str, Any]) -> None:
    """Outcomes by group, and each file that is not right."""
    groups = list(dict.fromkeys(verdict.group for verdict in verdicts))
    outcomes = (RIGHT, WRONG, LOST, REFUSED)
    count = Counter((verdict.group, verdict.outcome) for verdict in verdicts)
    rows: list[list[Any]] = [[g, sum(count[g, o] for o in outcomes), *(count[g, o] for o in outcomes)] for g in groups]
    total: list[Any] = ["all", *(sum(int(row[i]) for row in rows) for i in range(1, len(outcomes) + 2))]
    bad = [f"- {v.group}, `{v.name}`: {v.outcome}: {v.detail}" for v in verdicts if v.outcome != RIGHT]
    text = "\n".join([report.table(["files", "number", *outcomes], [*rows, total]), "", *bad])
    flat = [{k: v for k, v in asdict(verdict).items() if k != "detail"} for verdict in verdicts]
    line = [f"{total[1]} files", f"{total[3]} wrong", f"{total[4]} lost silently", f"{total[5]} wrongly refused"]
    full = record | {"verdicts": [asdict(verdict) for verdict in verdicts]}
    report.save_folder(out, "real-files", "Real files", text, full, lambda figure: _draw(figure, rows), flat, line)


def _draw(figure: Any, rows: Sequence[Sequence[Any]]) -> None:
    axes = figure.subplots()
    names, left = [row[0] for row in rows], np.zeros(len(rows))
    for number, outcome in enumerate((RIGHT, WRONG, LOST, REFUSED), 2):
        values = np.array([row[number] for row in rows])
        axes.barh(names, values, left=left, label=outcome)
        left += values
    axes.invert_yaxis()
    figure.legend(loc="outside right center", fontsize="small")
    axes.set(xlabel="files", title="Is the right sound at the right time?")


if __name__ == "__main__":
    raise SystemExit(main())
