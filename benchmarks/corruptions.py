"""The corruptions of AVROBUSTBENCH to look at and to listen to, what they measure, and what they cost.

    python -m benchmarks.corruptions --recordings DIR --overlays DIR [--clip FILE] [--sounds DIR]

One clip, whose picture and spectrogram are drawn at severities 1, 3 and 5, one corruption beside the other. The table
has the picture's mean absolute difference (of 255), the signal-to-noise ratio of the sound as int16 holds it (dB; a
filter delays, so its ratio is low), and milliseconds per picture and per clip's sound, log-mel included. What lacks
recordings or overlays is left out, and said.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import wavfile

from benchmarks import report
from configs.corruption_files import CorruptionFiles
from models.corruptions.apply import corrupt
from models.corruptions.protocols import CORRELATED
from models.corruptions.record import Corruption
from models.fbank import SAMPLE_RATE, log_mel
from pipelines.corpora.synthetic.scenes import ScenesConfig, describe, encode_scene
from pipelines.decode import Request, decode
from shards.errors import InputError

CLIP = Path(__file__).resolve().parents[2] / "shared" / "data" / "clips" / "KlsG1EnBEjc_000361.mp4"
SHOWN, BLOCKS = (1, 3, 5), 4
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Looked:
    """A corruption of the clip: its arrays, differences, ratios in dB and milliseconds by severity."""

    kind: str
    arrays: dict[int, Arrays]
    picture: dict[int, float]
    snr: dict[int, float | None]
    cost: tuple[float, float]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corruptions", description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, help="(default: a real one of ../shared/data, else a drawn scene)")
    parser.add_argument("--recordings", type=Path, help="folder of sounds, as of avmend evaluate")
    parser.add_argument("--overlays", type=Path, help="folder of pictures, as of avmend evaluate")
    parser.add_argument("--side", type=report.positive, default=224, help="of the picture, in pixels (default 224)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default 0)")
    parser.add_argument("--sounds", type=Path, help="folder that gets every sound as .wav, to listen to")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Corrupt, print the table, write JSON, markdown and figure."""
    args = parse(argv)
    name, clean = clip_arrays(args.clip, args.side)
    files, looked, missing = CorruptionFiles(args.recordings, args.overlays), [], []
    for corruption in CORRELATED:
        try:
            looked.append(look(corruption, clean, files, args.seed))
        except InputError as error:
            missing.append(corruption.kind)
            print(f"{corruption.kind} is left out: {error.message}")
    record: dict[str, Any] = {
        "clip": name,
        "side": args.side,
        "seed": args.seed,
        "missing": missing,
        "machine": report.machine("cpu"),
    }
    record["runs"] = [{"kind": x.kind, "picture": x.picture, "snr": x.snr, "cost_ms": x.cost} for x in looked]
    title = f"Corruptions of one clip ({name})"
    text = table(looked, missing)
    report.save(args.out, "corruptions", title, text, record, lambda figure: draw(figure, clean, looked))
    shrink(args.out / "corruptions.png")
    if args.sounds is not None:
        write_sounds(args.sounds, clean, looked)
    return 0


def clip_arrays(clip: Path | None, side: int) -> tuple[str, Arrays]:
    """The clip's name, its waveform, log-mel and middle picture, as media shards hold them."""
    with tempfile.TemporaryDirectory() as folder:
        path = clip or CLIP
        if clip is None and not CLIP.is_file():
            path = Path(folder) / "drawn-scene.mp4"
            encode_scene(describe(ScenesConfig(clips=8), 3), path)
        found = decode(Request(path=str(path), frames=3, size=side))
    if found.audio is None or found.frames is None:
        raise SystemExit(f"{path}: needs both sound and picture")
    return path.stem, {"wave": found.audio, "audio": log_mel(found.audio), "frames": found.frames[1]}


def look(corruption: Corruption, clean: Arrays, files: CorruptionFiles, seed: int) -> Looked:
    """One corruption at every severity."""
    arrays = {s: corrupt(clean, corruption, s, files, seed, "clip", 0) for s in range(1, 6)}
    picture = {s: float(np.abs(x["frames"].astype(float) - clean["frames"]).mean()) for s, x in arrays.items()}
    snr = {s: ratio(clean["wave"], x["wave"]) for s, x in arrays.items()}
    parts = [{m: clean[m] for m in members} for members in (("frames",), ("wave", "audio"))]
    cost = [milliseconds(part, corruption, files) for part in parts]
    return Looked(corruption.kind, arrays, picture, snr, (cost[0], cost[1]))


def ratio(clean: np.ndarray, ruined: np.ndarray) -> float | None:
    """Signal-to-noise ratio in dB; None where nothing changed."""
    noise = np.square(ruined.astype(float) - clean).sum()
    return round(10 * math.log10(np.square(clean, dtype=float).sum() / noise), 1) + 0.0 if noise else None


def milliseconds(part: Arrays, corruption: Corruption, files: CorruptionFiles) -> float:
    """The mean of severities, the least of three times each."""
    times = []
    for severity in range(1, 6):
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            corrupt(part, corruption, severity, files, 0, "clip", 0)
            taken.append(time.perf_counter() - start)
        times.append(min(taken))
    return 1e3 * float(np.mean(times))


def table(looked: Sequence[Looked], missing: Sequence[str]) -> str:
    columns = [f"{what} {s}" for what in ("picture", "SNR") for s in range(1, 6)]
    head = ("corruption", *columns, "ms picture", "ms sound")
    body = [
        (
            x.kind,
            *(f"{d:.1f}" for d in x.picture.values()),
            *("same" if r is None else f"{r:.1f}" for r in x.snr.values()),
            *(f"{ms:.0f}" for ms in x.cost),
        )
        for x in looked
    ]
    left = f"\n\nLeft out, for want of files: {', '.join(missing)}." if missing else ""
    return report.table(head, body) + left


def draw(figure: Any, clean: Arrays, looked: Sequence[Looked]) -> None:
    """Pictures above, spectrograms below, of every corruption at severities 1, 3 and 5."""
    cells: list[tuple[str, dict[int, Arrays]]] = [("clean", {SHOWN[0]: clean}), *((x.kind, x.arrays) for x in looked)]
    lines = -(-len(cells) // BLOCKS)
    figure.set_size_inches(1.1 * 3 * BLOCKS, 1.06 * 2 * lines)
    figure.set_layout_engine("none")
    margins = {"left": 0.003, "bottom": 0.003, "right": 0.997, "top": 0.985, "wspace": 0.04, "hspace": 0.14}
    axes = figure.subplots(2 * lines, 3 * BLOCKS, squeeze=False, gridspec_kw=margins)
    for axis in axes.flat:
        axis.axis("off")
    scale = {"vmin": float(clean["audio"].min()), "vmax": float(clean["audio"].max())}
    for at, (kind, arrays) in enumerate(cells):
        line, block = divmod(at, BLOCKS)
        for column, severity in enumerate(s for s in SHOWN if s in arrays):
            above, below = (axes[2 * line + row][3 * block + column] for row in (0, 1))
            above.imshow(arrays[severity]["frames"])
            below.imshow(arrays[severity]["audio"].astype(np.float32).T, origin="lower", aspect="auto", **scale)
            above.set_title(kind if kind == "clean" else f"{kind} {severity}", fontsize=8, pad=2)


def shrink(path: Path) -> None:
    """Write a figure with 5 of 8 bits per channel: noise is large in a png."""
    if path.exists():
        values = np.array(Image.open(path).convert("RGB"))
        Image.fromarray(np.where(values > 247, 255, values & 0xF8).astype(np.uint8)).save(path, optimize=True)


def write_sounds(folder: Path, clean: Arrays, looked: Sequence[Looked]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wavfile.write(folder / "clean.wav", SAMPLE_RATE, clean["wave"])
    for x in looked:
        for severity in SHOWN:
            wavfile.write(folder / f"{x.kind}-{severity}.wav", SAMPLE_RATE, x.arrays[severity]["wave"])


if __name__ == "__main__":
    raise SystemExit(main())
