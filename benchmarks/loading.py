"""Our loaders against plain webdataset reading, and against a loader that decodes jpg and wav per item.

    python -m benchmarks.loading --preset base

All in one process and in turn, on files that the page cache holds. webdataset only reads and decodes the very
members; our items are normalised, checked and stacked into batches besides.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
import wave
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import corpus, report
from benchmarks.report import Spread, positive
from models.backbone import Backbone
from models.inputs import Normalisation
from models.settings import BACKBONES, BackboneConfig
from pipelines.tokens import frozen_backbone
from shards.reader import ShardDataset
from trainers.classification.items import FeatureItems, InputSpec, MediaItems
from trainers.classification.stages import input_spec
from trainers.data import Items, batches, epoch_order

CLIPS = {"tiny": 256, "base": 64}
PER_ITEM = "jpg + wav per item"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__.splitlines()[0])
    report.common_arguments(parser, device=False)
    parser.add_argument("--draws", type=positive, default=4, help="noisy draws of either severity (default 4)")
    parser.add_argument("--batch-size", type=positive, default=32)
    parser.add_argument("--loaders", type=int, default=0, help="loader processes of every way (default 0)")
    args = parser.parse_args(argv)
    args.clips = args.clips or CLIPS[args.preset]
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, write JSON, markdown and figure."""
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    found = report.machine("cpu")
    with tempfile.TemporaryDirectory(prefix="loading-") as folder:
        rows = measure(args, Path(folder))
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    record = {"machine": found, "settings": settings, "rows": rows}
    name, title = f"loading-{args.preset}", f"Loading, preset {args.preset}"
    report.save(args.out, name, title, _text(args, rows), record, lambda figure: _draw(figure, rows))
    return 0


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Rows of the media and of the feature shards."""
    corpus.write_media(folder / "data", args.preset, args.clips)
    backbone = frozen_backbone(corpus.write_backbone(folder / "finetune", args.preset))
    features = corpus.write_features(folder / "data", folder / "finetune", 0, args.draws, gpu=False)
    files = write_files(folder / "files", BACKBONES[args.preset], args.clips)
    return [
        *_compare("media", _media_ways(args, backbone, folder / "data", files), args.repeats),
        *_compare("features", _feature_ways(args, backbone, features), args.repeats),
    ]


def _compare(kind: str, ways: dict[str, Callable[[], float]], repeats: int) -> list[dict[str, Any]]:
    taken = report.alternate(ways, repeats)
    ours = taken["our loader"]
    return [
        {"shards": kind, "way": way, "rate": Spread.of(rates), "ours_over_it": report.ratios(ours, rates)}
        for way, rates in taken.items()
    ]


def _media_ways(
    args: argparse.Namespace, backbone: Backbone, data: Path, files: Path
) -> dict[str, Callable[[], float]]:
    shards, spec = ShardDataset(data, "train"), input_spec(backbone)
    items = MediaItems(shards, corpus.LABELS, spec, seed=0, random_frame=True)
    noisy = MediaItems(shards, corpus.LABELS, spec, ("noisy_both",), seed=0, random_frame=True)
    return {
        "our loader": lambda: _rate(args, _ours(args, items)),
        "our loader, noise drawn": lambda: _rate(args, _ours(args, noisy)),
        "our reader, arrays only": lambda: _rate(args, (shards[i] for i in range(len(shards)))),
        **_webdataset(args, data),
        PER_ITEM: lambda: _rate(args, DataLoader(Files(files, spec), args.batch_size, True, **_pool(args))),
    }


def _feature_ways(args: argparse.Namespace, backbone: Backbone, data: Path) -> dict[str, Callable[[], float]]:
    shards = ShardDataset(data, "train")
    items = FeatureItems(shards, backbone.labels, "noisy_both")
    return {
        "our loader": lambda: _rate(args, _ours(args, items)),
        "our reader, arrays only": lambda: _rate(args, (shards[i] for i in range(len(shards)))),
        **_webdataset(args, data),
    }


def _pool(args: argparse.Namespace) -> dict[str, Any]:
    return {"num_workers": args.loaders}


def _ours(args: argparse.Namespace, items: Items) -> Iterable:
    items.epoch += 1
    order = epoch_order(items.ids, 0, items.epoch)
    return batches(items, order, args.batch_size, args.loaders, drop_last=False)


def _rate(args: argparse.Namespace, samples: Iterable) -> float:
    """Clips per second of going through all of them."""
    start = time.perf_counter()
    for _ in samples:
        pass
    return args.clips / (time.perf_counter() - start)


def _webdataset(args: argparse.Namespace, data: Path) -> dict[str, Callable[[], float]]:
    """Reading and decoding of the same members, in order; nothing where webdataset is not installed."""
    if find_spec("webdataset") is None:
        print("not measured: webdataset is not installed")
        return {}
    import webdataset

    urls = [str(path) for path in sorted(data.rglob("train-*.tar")) if "features" not in path.parts[len(data.parts) :]]

    def decode(sample: dict[str, Any]) -> dict[str, np.ndarray]:
        return {
            name: np.load(io.BytesIO(value), allow_pickle=False)
            for name, value in sample.items()
            if name.endswith(".npy")
        }

    def run() -> float:
        pipeline = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).map(decode)
        return _rate(args, webdataset.WebLoader(pipeline, batch_size=None, **_pool(args)))

    return {"webdataset, read and decode": run}


def write_files(folder: Path, config: BackboneConfig, clips: int) -> Path:
    """One jpg and one 16 kHz wav per clip, of the preset's picture size and length."""
    from PIL import Image

    folder.mkdir(parents=True)
    size = (config.image_size, config.image_size, 3)
    for i in range(clips):
        rng = np.random.default_rng(i)
        picture = rng.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{i:06d}.jpg", quality=90)
        with wave.open(str(folder / f"{i:06d}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", "not compressed"))
            file.writeframes(rng.integers(-9999, 9999, config.target_length * 160, dtype=np.int16).tobytes())
    return folder


class Files(Dataset):
    """What CAV-MAE's released loader does per item: read a wav, make its filter bank, decode and normalise a
    jpg; items as ours are."""

    def __init__(self, folder: Path, spec: InputSpec):
        self.spec = spec
        self.paths = sorted(folder.glob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        from PIL import Image

        from models.fbank import log_mel

        norm: Normalisation = self.spec.normalisation
        with wave.open(str(self.paths[i].with_suffix(".wav"))) as file:
            sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        with Image.open(self.paths[i]) as image:
            picture = np.asarray(image.convert("RGB"))
        fbank = norm.fbank(log_mel(sound), self.spec.target_length)
        return fbank, norm.picture(picture[None], 0, self.spec.image_size)


def _text(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    cells = [[r["shards"], r["way"], r["rate"].text(4), r["ours_over_it"].text()] for r in rows]
    return (
        f"{args.clips} clips, batch {args.batch_size}, {args.loaders} loader processes, {args.repeats} "
        f"repetitions in turn, median (least-greatest). Features: {1 + 2 * args.draws} variants of tokens at "
        "k = 0; our loader takes one of them.\n\n"
        + report.table(["shards", "way", "clips/s", "our loader over it"], cells)
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    for axes, kind in zip(figure.subplots(1, 2), ("media", "features"), strict=True):
        own = [row for row in rows if row["shards"] == kind]
        axes.barh([row["way"] for row in own], [row["rate"].median for row in own])
        axes.set(title=f"{kind} shards", xlabel="clips per second")
        axes.invert_yaxis()


if __name__ == "__main__":
    raise SystemExit(main())
