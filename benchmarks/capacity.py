"""What a corpus needs, computed from measured rates: shards, bytes, core-hours, cost.

    python -m benchmarks.capacity --price 0.04 --storage 0.02

Reads `results/decode/decode.json`, `results/reading/reading.json` and `results/scale/scale.json`, which the benchmarks
of these names left; writes `capacity.md` beside this file, and figures into `results/capacity/`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.scale import TRAINED, further
from pipelines.estimate import FILES, INDEX, few, shards_of
from pipelines.settings import IngestConfig

PAGE = Path(__file__).resolve().parent / "capacity.md"


@dataclass(frozen=True)
class Corpus:
    """Clips, seconds of each, and the picture height that its sources have."""

    name: str
    clips: int
    seconds: float
    height: int


CORPORA = (
    Corpus("UrbanSound8K-AV", 8_732, 4, 360),
    Corpus("MUSIC-AVQA", 9_288, 60, 360),
    Corpus("VGGSound", 199_000, 10, 360),
    Corpus("AudioSet 2M", 2_000_000, 10, 360),
    Corpus("100 M clips", 100_000_000, 10, 720),
)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the measured rates")
    parser.add_argument("--price", type=float, default=0.04, help="of a core-hour (default 0.04)")
    parser.add_argument("--storage", type=float, default=0.02, help="of a GB and month (default 0.02)")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Write the page."""
    args = parse(argv)
    decode, reading, grown = (_rates(args.results / n / f"{n}.json", n) for n in ("decode", "reading", "scale"))
    text = page(decode, reading, grown, args.price, args.storage)
    args.out.write_text(text)
    found = {corpus.name: needs(corpus, decode, reading) for corpus in CORPORA}
    rows: list[dict[str, Any]] = [
        {"corpus": name, **need, "cost": need["exact"] * args.price, "plan": changes(need)}
        for name, need in found.items()
    ]
    line = [f"{row['corpus']}: {few(row['exact'])} core-hours, {row['bytes'] / 1e9:,.0f} GB" for row in rows]
    record = {"machine": decode["machine"], "prices": [args.price, args.storage], "corpora": rows}
    report.save_folder(
        args.results,
        "capacity",
        "Capacity",
        f"See `{args.out.name}`.",
        record,
        lambda f: _draw(f, rows),
        rows,
        ["; ".join(line)],
    )
    return 0


def _rates(path: Path, name: str) -> dict[str, Any]:
    if not path.exists():
        remedy = f"measure it: python -m benchmarks.{name}"
        raise SystemExit(f"error: {path}: no measured rates\n  remedy: {remedy}")
    return json.loads(path.read_text())


def _draw(figure: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Core-hours of both modes, and bytes, by corpus."""
    hours, size = figure.subplots(1, 2, sharey=True)
    names = [row["corpus"] for row in rows]
    for offset, way in ((-0.2, "exact"), (0.2, "approximate")):
        hours.barh([i + offset for i in range(len(rows))], [row[way] for row in rows], 0.4, label=way)
    hours.set(yticks=range(len(rows)), yticklabels=names, xscale="log", xlabel="core-hours of ingestion")
    hours.legend(fontsize="small")
    size.barh(range(len(rows)), [row["bytes"] / 1e9 for row in rows], 0.4)
    size.set(xscale="log", xlabel="GB of media shards")


def clip_bytes(seconds: float, config: IngestConfig) -> int:
    """Bytes of one clip in a media shard: log-mel float16 of 100 frames a second, frames uint8, headers."""
    members = (600, 128 + round(seconds * 100) * 128 * 2, 128 + config.frames * config.image_size**2 * 3)
    return sum(512 + -(-size // 512) * 512 for size in members)


def core_hours(corpus: Corpus, decode: dict[str, Any], way: str) -> float:
    """Hours of one core; time is taken to grow with the length of a clip."""
    row = next(row for row in decode["rows"] if row["height"] == corpus.height)
    seconds = corpus.seconds / decode["settings"]["seconds"]
    return corpus.clips * seconds / row["rate"][way]["median"] / 3600


def needs(corpus: Corpus, decode: dict[str, Any], reading: dict[str, Any]) -> dict[str, float]:
    """What one corpus needs with the default settings."""
    config = IngestConfig()
    size = corpus.clips * clip_bytes(corpus.seconds, config)
    rate = next(
        row["rate"]["median"] * row["bytes"]
        for row in reading["rows"]
        if row["samples"] == "1.9 MB" and row["way"] == "our reader"
    )
    return {
        "shards": shards_of({"train": corpus.clips}, config.samples_per_shard),
        "bytes": size,
        "exact": core_hours(corpus, decode, "ingest"),
        "approximate": core_hours(corpus, decode, "approximate"),
        "epoch_hours": size / rate / 3600,
    }


def changes(found: dict[str, float], days: float = 2.0) -> str:
    """Where the plan changes: what the default settings no longer do well."""
    told = []
    if found["shards"] > FILES:
        per = math.ceil(found["bytes"] / FILES / (found["bytes"] / found["shards"]) * 64)
        told.append(f"samples_per_shard={2 ** math.ceil(math.log2(per))}")
    if found["exact"] > 24 * days * 8:
        told.append(f"{math.ceil(found['exact'] / 24 / days):,} cores for {days:g} days: several nodes")
    if found["bytes"] > 2e12:
        told.append("object storage, and fetching through the cache by split")
    return "; ".join(told) or "one machine, default settings"


def memory(grown: dict[str, Any], clips: int) -> str:
    """What so many clips take of the memory of processes that know all of them."""
    rows = grown["rows"]
    held, copied = (further(rows, f"{name} process", "held_mb") / TRAINED for name in ("training", "loader"))
    peak = further(rows, "nothing to do", "own_mb")
    return (
        f"Plan, index and ledger take about {INDEX} bytes a sample on disk, of {clips:,} clips\n"
        f"  {clips * INDEX / 1e9:.0f} GB. A training process holds {held:.0f} bytes of its own a sample "
        f"({clips * held / 1e9:.1f} GB), its loaders share them\n  and copy {copied:.0f}; an ingestion that finds "
        f"nothing to do takes {peak:.0f} (`results/scale/`).\n  A process keeps 256 shards open."
    )


def page(decode: dict[str, Any], reading: dict[str, Any], grown: dict[str, Any], price: float, storage: float) -> str:
    """The page's markdown."""
    cells = []
    for corpus in CORPORA:
        found = needs(corpus, decode, reading)
        cells.append(
            [
                corpus.name,
                f"{corpus.clips:,} x {corpus.seconds:g} s, {corpus.height}p",
                f"{found['shards']:,.0f}",
                f"{found['bytes'] / 1e9:,.0f} GB",
                f"{few(found['exact'])}",
                f"{found['exact'] * price:,.0f} + {found['bytes'] / 1e9 * storage:,.0f} a month",
                f"{few(found['approximate'])}",
                f"{found['epoch_hours']:.2g}",
                changes(found),
            ]
        )
    columns = [
        "corpus",
        "clips",
        "shards",
        "media shards",
        "core-hours",
        "cost",
        "approximate",
        "epoch",
        "plan",
    ]
    config, machine = IngestConfig(), decode["machine"]
    return f"""# Capacity

Computed by `python -m benchmarks.capacity` from rates measured on {machine["processor"]}
({machine["cores"]} cores): `results/decode/`, `results/reading/`. Default settings:
{config.frames} frames of {config.image_size} pixels, log-mel at 100 Hz, {config.samples_per_shard} clips a
shard. A core-hour costs {price:g}, a GB and month {storage:g}.

{report.table(columns, cells)}

- *core-hours*: ingestion with exact frames; *approximate*: `frame_mode=approximate`; *epoch*: hours to read
  all media shards once, one process, page cache warm: a disk's own rate counts where it is less.
- Time is taken as proportional to the clips' length, and sources to have the height given; higher ones cost
  more.
- {memory(grown, CORPORA[-1].clips)}
- What your own clips take: `avmend plan MANIFEST`.
"""


if __name__ == "__main__":
    raise SystemExit(main())
