"""The decoders by name on the same clips: their rates, what they agree on, what each refuses.

    python -m benchmarks.decoders --clips 4

Clips drawn as by ``benchmarks.decode``, and the real clips if they are there. Rates are clips per second of
processor time of one core (children count); agreement is with PyAV.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.decode import HEIGHTS, _processor_seconds, write_clips
from benchmarks.real_files import DATA
from pipelines.causes import DecodeError
from pipelines.decode import Decoded, Request, decode
from pipelines.decoders import DECODERS, decoder_versions
from pipelines.manifest import read_manifest


@dataclass(frozen=True)
class Outcome:
    """One decoder on some clips: ``refused`` ones by name with the reason, those ``equal`` to PyAV's to the bit, the
    greatest difference of a pixel where they are not."""

    clips: str
    decoder: str
    taken: int
    refused: dict[str, str]
    equal: int
    times_equal: int
    greatest: int
    rate: float


def measure(name: str, paths: list[Path], decoder: Any) -> Outcome:
    """Decode all by one decoder and by PyAV."""
    refused, equal, times, greatest, used, taken = {}, 0, 0, 0, 0.0, 0
    for path in paths:
        request: dict[str, Any] = {"path": str(path), "timeout_s": 600.0}
        start = _processor_seconds()
        found = _decoded(Request(**request, decoder=decoder))
        used += _processor_seconds() - start
        right = _decoded(Request(**request))
        if isinstance(found, DecodeError):
            refused[path.name] = str(found)
            continue
        taken += 1
        if isinstance(right, Decoded) and found.frames is not None and right.frames is not None:
            away = int(np.abs(found.frames.astype(int) - right.frames).max())
            greatest, equal = max(greatest, away), equal + (away == 0)
            times += found.frame_times == right.frame_times
        elif isinstance(right, Decoded):
            equal, times = equal + 1, times + 1
    return Outcome(name, decoder, taken, refused, equal, times, greatest, len(paths) / used)


def _decoded(request: Request) -> Decoded | DecodeError:
    try:
        return decode(request)
    except DecodeError as error:
        return error


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoders", description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=report.positive, default=4, help="drawn, per resolution (default 4)")
    parser.add_argument("--seconds", type=report.positive, default=10, help="length of a drawn clip (default 10)")
    parser.add_argument("--data", type=Path, default=DATA, help="real clips (if there)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    found, versions = report.machine("cpu"), decoder_versions()
    names = [name for name in DECODERS if versions[name]]
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="decoders-") as folder:
        groups: dict[str, list[Path]] = {}
        for height in HEIGHTS:
            manifest = write_clips(Path(folder) / str(height), args.clips, args.seconds, height)
            groups[f"{height}p"] = [Path(clip.path or "") for clip in read_manifest(manifest)]
        if args.data.is_dir():
            groups["real clips"] = sorted(args.data.iterdir())
        for group, paths in groups.items():
            outcomes += [measure(group, paths, name) for name in names]
    write(args.out, outcomes, {"machine": found, "versions": versions})
    return 0


def write(out: Path, outcomes: list[Outcome], record: dict[str, Any]) -> None:
    """The table, and what each refused."""
    columns = ["clips", "decoder", "clips/s/core", "taken", "refused", "same times", "same bits", "greatest difference"]
    rows = [
        [o.clips, o.decoder, f"{o.rate:.3g}", o.taken, len(o.refused), o.times_equal, o.equal, o.greatest]
        for o in outcomes
    ]
    told = [f"- {o.decoder}, `{name}`: {reason}" for o in outcomes for name, reason in o.refused.items()]
    text = "\n".join([report.table(columns, rows), "", *told])
    flat = [{k: v for k, v in asdict(o).items() if k != "refused"} | {"refused": len(o.refused)} for o in outcomes]
    line = [f"{o.clips}, {o.decoder}: {o.rate:.3g} clips/s/core, {len(o.refused)} refused" for o in outcomes]
    full = record | {"outcomes": [asdict(o) for o in outcomes]}
    report.save_folder(out, "decoders", "Decoders", text, full, lambda figure: _draw(figure, outcomes), flat, line)


def _draw(figure: Any, outcomes: list[Outcome]) -> None:
    groups = list(dict.fromkeys(o.clips for o in outcomes))
    for axes, group in zip(np.atleast_1d(figure.subplots(1, len(groups))), groups, strict=True):
        mine = [o for o in outcomes if o.clips == group]
        axes.bar([o.decoder for o in mine], [o.rate for o in mine])
        axes.set(title=group, ylabel="clips per second and core")


if __name__ == "__main__":
    raise SystemExit(main())
