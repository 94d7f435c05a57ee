"""What all measurements share: alternation, medians, the machine's name, the files with the figures."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of several repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 3) -> str:
        """ "0.25 (0.24-0.27)", the range left out where there is none."""
        middle = f"{self.median:.{digits}g}"
        if self.low == self.high:
            return middle
        return f"{middle} ({self.low:.{digits}g}-{self.high:.{digits}g})"


def ratios(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Of measurements taken in pairs, each over its own partner."""
    return Spread.of([a / b for a, b in zip(values, reference, strict=True)])


def alternate(ways: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run all ways in turn (A B C A B C ...), once unmeasured, then `repeats` times; their return values."""
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            taken[name].append(way())
    return taken


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    import torch

    found = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
    }
    return found | ({"card": torch.cuda.get_device_name()} if device == "cuda" else {})


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table with aligned columns."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def save(out: Path, name: str, title: str, text: str, record: dict[str, Any], draw: Callable[[Any], None]) -> None:
    """Print the report and write NAME.json, NAME.md and NAME.png.

    Args:
        draw: fills a matplotlib figure; without matplotlib no figure is written, and a line says so.
    """
    page = f"# {title}\n\n{_machine_line(record['machine'])}\n\n{text}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(record, indent=1, default=asdict) + "\n")
    (out / f"{name}.md").write_text(page)
    print(page)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no figure: matplotlib is not installed")
    else:
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        draw(figure)
        figure.savefig(out / f"{name}.png", dpi=120)
    print(f"written: {name}.json, {name}.md, {name}.png" if (out / f"{name}.png").exists() else f"{name}.json")


def save_folder(
    out: Path,
    name: str,
    title: str,
    text: str,
    record: dict[str, Any],
    draw: Callable[[Any], None],
    rows: Sequence[Mapping[str, object]],
    line: Sequence[object],
) -> None:
    """As `save`, into the folder ``out``/NAME, with NAME.csv, and line.md: a row for a table of results.

    Args:
        rows: of the csv, all with the same columns.
        line: cells of the row, after the benchmark's name.
    """
    folder = Path(out) / name
    save(folder, name, title, text, record, draw)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / "line.md").write_text("| " + " | ".join([f"`{name}`", *map(str, line)]) + " |\n")


def _machine_line(found: Mapping[str, Any]) -> str:
    card = f"{found['card']}; " if "card" in found else ""
    return (
        f"{card}{found['processor']}, {found['cores']} cores, {found['threads']} threads, torch "
        f"{found['torch']}, Python {found['python']}, load before the run {found['load_before']}."
    )


def common_arguments(parser: argparse.ArgumentParser, device: bool = True, threads: bool = True) -> None:
    """Options of every measurement; the last two where they mean something."""
    parser.add_argument("--preset", choices=("tiny", "base"), default="tiny", help="sizes of the backbone")
    parser.add_argument("--clips", type=positive, help="clips in the synthetic dataset")
    parser.add_argument("--repeats", type=positive, default=3, help="measured repetitions (default 3)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    if device:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    if threads:
        parser.add_argument("--threads", type=positive, help="CPU threads of torch (default: its choice)")


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value
