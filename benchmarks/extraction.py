"""Feature extraction against its limit: the bare forward of the same network on tensors that are ready.

    python -m benchmarks.extraction --preset base --device cuda

Extraction reads media shards, normalises, draws noise, runs the frozen blocks, and writes feature shards.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import corpus, report
from benchmarks.report import Spread, positive
from models.backbone import Backbone
from models.settings import BACKBONES, MODALITIES
from pipelines.feature_shard import extract_shard, feature_plan, reproducible
from pipelines.settings import FeatureConfig
from pipelines.tokens import TokenExtractor, frozen_backbone
from shards.schema import DatasetInfo

CLIPS = {("tiny", "cpu"): 64, ("base", "cpu"): 2, ("tiny", "cuda"): 512, ("base", "cuda"): 128}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction", description=about)
    report.common_arguments(parser, threads=False)
    parser.add_argument("--draws", type=positive, default=1, help="noisy draws of either severity (default 1)")
    parser.add_argument("--batch-size", type=positive, default=FeatureConfig().batch_size)
    parser.add_argument("--depths", type=lambda text: [int(k) for k in text.split(",")], help="such as 0,10")
    args = parser.parse_args(argv)
    args.clips = args.clips or CLIPS[args.preset, args.device]
    args.depths = args.depths or [0, BACKBONES[args.preset].depth - 1]
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write JSON, markdown and figure."""
    args = parse(argv)
    found = report.machine(args.device) | {"threads": 1}  # extraction's own choice, one actor per core
    with tempfile.TemporaryDirectory(prefix="extraction-") as folder:
        rows = measure(args, Path(folder))
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    record = {"machine": found, "settings": settings, "rows": rows}
    name, title = f"extraction-{args.preset}-{args.device}", f"Feature extraction, preset {args.preset}"
    report.save(args.out, name, title, _text(args, rows), record, lambda figure: _draw(figure, rows))
    return 0


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Per depth: clips per second of extraction and of the bare forward, alternating, and the share."""
    info = corpus.write_media(folder / "data", args.preset, args.clips)
    backbone = frozen_backbone(corpus.write_backbone(folder / "finetune", args.preset))
    backbone.net.to(args.device)
    rows = []
    for depth in args.depths:
        ways = {
            "extraction": _extraction(args, backbone, info, folder, depth),
            "forward": _forward(args, backbone, depth),
        }
        taken = report.alternate(ways, args.repeats)
        rows.append(
            {
                "depth": depth,
                "extraction": Spread.of(taken["extraction"]),
                "forward": Spread.of(taken["forward"]),
                "share": report.ratios(taken["extraction"], taken["forward"]),
            }
        )
    return rows


def _extraction(
    args: argparse.Namespace, backbone: Backbone, info: DatasetInfo, folder: Path, depth: int
) -> Callable[[], float]:
    """Clips per second of `extract_shard` over all media shards."""
    config = FeatureConfig(depth=depth, draws=args.draws, eval_draws=args.draws, batch_size=args.batch_size, workers=0)

    extractor = TokenExtractor(backbone, config)
    extractor.to(args.device)

    def run() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            start = time.perf_counter()
            for shard in feature_plan(info):
                extract_shard(shard, extractor, config, folder / "data", Path(out))
            return args.clips / (time.perf_counter() - start)

    return run


def _forward(args: argparse.Namespace, backbone: Backbone, depth: int) -> Callable[[], float]:
    """Clips per second of embedding and blocks alone: the same arithmetic, batches and number of rows."""
    config, variants = backbone.net.config, 1 + 2 * args.draws
    total = args.clips * variants
    step = min(args.batch_size, total)
    ready = {
        "audio": torch.randn(step, config.target_length, 128, device=args.device),
        "visual": torch.randn(step, 3, config.image_size, config.image_size, device=args.device),
    }

    def run() -> float:
        start = time.perf_counter()
        with reproducible(), torch.inference_mode():
            for at in range(0, total, step):
                for modality in MODALITIES:
                    rows = ready[modality][: min(step, total - at)]
                    backbone.net.encode(modality, backbone.net.embed(modality, rows), 0, depth)
        if args.device == "cuda":
            torch.cuda.synchronize()
        return args.clips / (time.perf_counter() - start)

    return run


def _text(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    cells = [[r["depth"], r["extraction"].text(), r["forward"].text(), r["share"].text()] for r in rows]
    columns = ["k", "extraction, clips/s", "bare forward, clips/s", "share of the limit"]
    return (
        f"{args.clips} clips, {1 + 2 * args.draws} variants of both modalities, batch {args.batch_size}, "
        f"{args.repeats} repetitions in turn, median (least-greatest). A bare forward is no limit at k = 0, "
        "where there is next to no network.\n\n" + report.table(columns, cells)
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.subplots()
    for shift, name in ((-0.2, "extraction"), (0.2, "forward")):
        axes.bar([i + shift for i in range(len(rows))], [r[name].median for r in rows], 0.4, label=name)
    axes.set_xticks(range(len(rows)), [f"k = {r['depth']}" for r in rows])
    axes.set(ylabel="clips per second", yscale="log")
    axes.legend()


if __name__ == "__main__":
    raise SystemExit(main())
