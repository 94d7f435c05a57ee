"""Importing features: MUSIC-AVQA's layout against merely reading its files; bytes; then training on what came of it.

    python -m benchmarks.features_import --work DIR

The videos are drawn, in the released shapes: `vggish` [60, 128] and `res18_14x14` [60, 512, 14, 14], float32, 24.1 MB a
video. How many instruments sound is in the sound's channels alone, on which side the first stands in the maps' alone.
"Reading" is `numpy.load` of both files of every video, as the published loaders do, in one process. What is compared
runs in turn, with no file in the page cache when it begins (the released set has 224 GB); once more reading with all of
them there. Processor time is that of this process, of which another load of the machine changes little.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.avqa_loading import drop
from benchmarks.report import Spread, positive
from configs import load_config
from configs.cluster import ray_session
from pipelines.imports.layouts import LAYOUTS
from pipelines.imports.run import import_features
from shards.questions import Question, load_questions, save_questions
from shards.verify import verify
from trainers.avqa.config import AVQAConfig, QuestionEvaluation
from trainers.evaluate import evaluate
from trainers.train import train

LAYOUT = "music-avqa"
COUNTS, SIDES = ("one", "two", "three", "four"), ("left", "right")
FOLDERS = ("vggish", "res18_14x14")
READ, CACHED = "reading", "reading, in the page cache"
HERE, RAY = "import, one process", "import, Ray, two tasks"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features_import", description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=positive, default=200, help="of 24 MB each (default 200)")
    parser.add_argument("--timed", type=positive, default=32, help="of them, for the rates (default 32)")
    parser.add_argument("--repeats", type=positive, default=3, help="measured repetitions (default 3)")
    parser.add_argument("--epochs", type=positive, default=6, help="of the training (default 6)")
    parser.add_argument("--work", type=Path, help="where the temporary files go, 10 GB (default: the system's)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    if args.videos < max(args.timed, 20):
        parser.error("--videos: at least 20, and those that are timed")
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, train, print the tables, write JSON, markdown and figure."""
    args = parse(argv)
    found = report.machine("cpu")
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="features-import-", dir=args.work))
    try:
        draw(folder, args.videos)
        rates, sizes = measure(folder, args.timed, args.repeats)
        answers = answered(folder, args.videos, args.epochs)
    finally:
        shutil.rmtree(folder)
    settings = {name: getattr(args, name) for name in ("videos", "timed", "repeats", "epochs")}
    rows = _rows(rates, sizes["originals"], args.timed)
    record = {"machine": found, "settings": settings, "rates": rates, "rows": rows, "bytes": sizes, "answers": answers}
    text = _text(args, rows, sizes, answers)
    report.save(args.out, "features-import", "Importing features", text, record, lambda figure: _draw(figure, rows))
    return 0


def draw(folder: Path, videos: int) -> None:
    """`folder`/feats and `folder`/questions.jsonl."""
    for name in FOLDERS:
        (folder / "feats" / name).mkdir(parents=True)
    questions = []
    for i in range(videos):
        rng, clip = np.random.default_rng(i), f"{i:08d}"
        count, side = rng.integers(len(COUNTS)), rng.integers(len(SIDES))
        sound = np.maximum(rng.standard_normal((60, 128), np.float32), 0)
        sound[:, 8 * count : 8 * count + 8] += 1
        maps = np.maximum(rng.standard_normal((60, 512, 14, 14), np.float32), 0)
        maps[:, 32 * side : 32 * side + 32, :, 7 * side : 7 * side + 7] += 1
        np.save(folder / "feats" / "vggish" / f"{clip}.npy", sound)
        np.save(folder / "feats" / "res18_14x14" / f"{clip}.npy", maps)
        split = "train" if i % 10 < 7 else "val" if i % 10 < 8 else "test"
        questions += [
            _question(clip, "How many instruments are sounding in the video?", COUNTS[count], "Audio Counting", split),
            _question(clip, "On which side is the first instrument?", SIDES[side], "Visual Location", split),
        ]
    save_questions(folder / "questions.jsonl", questions)


def _question(clip: str, text: str, answer: str, kind: str, split: str) -> Question:
    return Question(id=f"{clip}-{kind[0]}", clip=clip, question=text, answer=answer, type=kind, split=split)


def measure(folder: Path, timed: int, repeats: int) -> tuple[dict[str, Measured], dict[str, int]]:
    """Each way over the first `timed` videos; and bytes of these, as originals and as shards.

    Raises:
        AssertionError: bytes that depend on how the import was done, or a dataset that is not whole.
    """
    questions = [q for q in load_questions(folder / "questions.jsonl") if int(q.clip) < timed]
    save_questions(folder / "timed.jsonl", questions)
    files = [folder / "feats" / name / f"{i:08d}.npy" for i in range(timed) for name in FOLDERS]
    with ray_session(2):
        ways = {
            READ: Way(folder, files, lambda: read(files)),
            HERE: Way(folder, files, lambda: take(folder, "timed.jsonl", "here", 0)),
            RAY: Way(folder, files, lambda: take(folder, "timed.jsonl", "ray", 2)),
            CACHED: Way(folder, files, lambda: read(files), cached=True),
        }
        rates = report.alternate(ways, repeats)
    for path in sorted((folder / "here").glob("*.tar")):
        assert path.read_bytes() == (folder / "ray" / path.name).read_bytes()
    assert verify(folder / "here") == []
    shards = sum(path.stat().st_size for path in (folder / "here").glob("*.tar"))
    for name in ("here", "ray"):
        shutil.rmtree(folder / name)
    measured = {name: Measured(rates[name], way.processor[1:]) for name, way in ways.items()}
    return measured, {"originals": sum(path.stat().st_size for path in files), "shards": shards}


@dataclass(frozen=True)
class Measured:
    """Videos per second, and seconds of this process a video, of each repetition."""

    rates: list[float]
    processor: list[float]


@dataclass(frozen=True)
class Way:
    """One way to go through the files; called, it tells its rate in videos per second.

    Attributes:
        folder: of the features.
        files: that are out of the page cache when it begins, or in it if `cached`.
    """

    folder: Path
    files: list[Path]
    work: Callable[[], None]
    cached: bool = False
    processor: list[float] = field(default_factory=list)  # seconds of this process a video, of each call

    def __call__(self) -> float:
        if self.cached:
            read(self.files)
        else:
            drop(self.folder / "feats")
        videos, start, begun = len(self.files) / len(FOLDERS), time.perf_counter(), time.process_time()
        self.work()
        self.processor.append((time.process_time() - begun) / videos)
        return videos / (time.perf_counter() - start)


def read(files: list[Path]) -> None:
    """As the published loaders read them."""
    for path in files:
        np.load(path)


def take(folder: Path, questions: str, name: str, workers: int) -> None:
    """Import what the questions ask about into `folder`/`name`, anew."""
    shutil.rmtree(folder / name, ignore_errors=True)
    config = load_config(LAYOUTS[LAYOUT].config, None, [f"workers={workers}", "samples_per_shard=8"])
    import_features(folder / "feats", folder / questions, folder / name, LAYOUT, config)


def answered(folder: Path, videos: int, epochs: int) -> dict[str, Any]:
    """Accuracies of AVST on the whole import, with the published loader's rows and scale, and with ours.

    Raises:
        AssertionError: a question that could not be asked.
    """
    start = time.perf_counter()
    take(folder, "questions.jsonl", "whole", 2)
    seconds = time.perf_counter() - start
    assert not (folder / "whole" / "import.jsonl").read_text()
    shared: dict[str, Any] = {
        "data": folder / "whole",
        "questions": folder / "questions.jsonl",
        "sizes": {"dim": 64},
        "epochs": epochs,
        "batch_size": 10,
        "steps": 10,
        "workers": 0,
        "resident": False,
    }
    configs: dict[str, dict[str, Any]] = {
        "rows 0, 6, ..., 54, as they are": {"steps_at": "starts", "standardise": False, "lr": 1e-3},
        "middles, standardised": {"lr": 1e-3},
    }
    runs = [train(AVQAConfig(**shared, **more, label=name), folder / "runs") for name, more in configs.items()]
    results = evaluate(runs, QuestionEvaluation(rates=(), resident=False), folder / "results", folder / "runs")
    rows = [row for row in results if row.missing == "none" and not row.kind.endswith("average")]
    whole = {(row.method, row.kind): [round(row.accuracy, 4), row.samples] for row in rows}
    return {
        "videos": videos,
        "import_seconds": round(seconds, 1),
        "bytes": {
            "originals": sum(path.stat().st_size for path in (folder / "feats").rglob("*.npy")),
            "shards": sum(path.stat().st_size for path in (folder / "whole").glob("*.tar")),
        },
        "accuracy": {f"{method} | {kind}": value for (method, kind), value in whole.items()},
    }


def _rows(measured: dict[str, Measured], size: int, timed: int) -> list[dict[str, Any]]:
    each = size / timed
    return [
        {
            "way": way,
            "rate": Spread.of(found.rates),
            "mb_per_second": Spread.of([rate * each / 1e6 for rate in found.rates]),
            "over_reading": report.ratios(found.rates, measured[READ].rates),
            "processor_ms": Spread.of([1000 * seconds for seconds in found.processor]),
        }
        for way, found in measured.items()
    ]


def _text(args: argparse.Namespace, rows: list[dict[str, Any]], sizes: dict[str, int], answers: dict[str, Any]) -> str:
    names = ("rate", "mb_per_second", "over_reading", "processor_ms")
    cells = [[row["way"], *(row[name].text() for name in names)] for row in rows]
    for row in cells:
        row[-1] = row[-1] if row[0] != RAY else ""  # it is spent in the workers
    columns = ["way", "videos/s", "MB/s of originals", "over reading", "processor ms a video"]
    whole = answers["bytes"]
    lines = [
        f"{args.timed} videos of {sizes['originals'] / args.timed / 1e6:.1f} MB, {args.repeats} repetitions in turn, "
        "median (least-greatest); out of the page cache unless said.",
        report.table(columns, cells),
        f"Shards: {sizes['shards'] / sizes['originals']:.3f} of the originals' bytes (float16).",
        f"All {answers['videos']} videos: {whole['originals'] / 1e9:.2f} GB to {whole['shards'] / 1e9:.2f} GB in "
        f"{answers['import_seconds']:g} s. AVST of width 64 on them, {args.epochs} epochs, on the test questions:",
    ]
    found = [[*name.split(" | "), f"{100 * value[0]:.1f} %", value[1]] for name, value in answers["accuracy"].items()]
    return "\n\n".join([*lines, report.table(["method", "questions", "accuracy", "asked"], found)])


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.subplots()
    axes.barh([row["way"] for row in rows], [row["rate"].median for row in rows])
    axes.set(xlabel="videos per second")
    axes.invert_yaxis()


if __name__ == "__main__":
    raise SystemExit(main())
