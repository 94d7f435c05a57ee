"""``avmend probe``: what sequence features hold of seconds and places, by linear probes fitted on the train split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shards.atomic import write_text
from shards.command import command
from shards.dense_targets import DenseTarget, classes_of, load_targets
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from shards.sequence import sequence_spec
from trainers.audit_table import share
from trainers.command_line import probe_parser
from trainers.tables import markdown_table, write_rows

if TYPE_CHECKING:
    from trainers.linear_probe import Figure, Probed


@dataclass(frozen=True)
class ProbeRow:
    """One line of probe.csv.

    Attributes:
        features: name of the folder.
        modality: whose features are asked.
        what: what they are asked.
        items: seconds, cells, pairs or clips; 0 of a figure that is no share.
        value: share right, mAP (0 to 1), or dB.
        low, high: Wilson's interval of 95 % of a share.
        floor: of the most frequent answer, of a coin, of a random order (mAP), or of the mean level (dB).
    """

    features: str
    modality: str
    what: str
    items: int
    value: float
    low: float
    high: float
    floor: float


def probe(features: Path, targets: Path, out: Path, split: str = "test", side: int = 3) -> list[ProbeRow]:
    """Fit the probes on the train split and ask them of another; writes probe.csv and probe.md.

    Args:
        features: folder of sequence features.
        targets: of these clips.
        side: of the grid of cells; finer features are averaged to it.

    Raises:
        InputError: no sequence features, no such split, no targets of its clips, a grid that is finer than theirs.
    """
    from trainers.linear_probe import figures

    info, known = DatasetInfo.load(features), load_targets(targets)
    train, test = (_Clips(features, info, name, known, side) for name in ("train", split))
    classes = classes_of(known[clip] for clip in train.ids)
    found = list(figures(train.read(classes), test.read(classes)))
    rows = [_row(features.absolute().name, figure) for figure in found]
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "probe.csv", rows)
    write_text(out / "probe.md", markdown(rows, split) + "\n")
    return rows


class _Clips:
    """The clips of a split that have a target."""

    def __init__(
        self, folder: Path, info: DatasetInfo, split: str, targets: Mapping[str, DenseTarget], side: int
    ) -> None:
        self.spec = sequence_spec(info)
        own = math.isqrt(self.spec.places)
        if side > own:
            raise InputError(f"{side} is beyond the features' grid of {own}", field="side", remedy=f"choose 1 to {own}")
        self.data, self.targets, self.side = ShardDataset(folder, split, info=info), targets, side
        self.positions = [i for i, clip in enumerate(self.data.ids) if clip in targets]
        self.ids = [self.data.ids[i] for i in self.positions]
        if not self.positions:
            remedy = "give the targets of the clips that the features are of"
            raise InputError(f"no clip of the split {split} has a target", file=folder, field="targets", remedy=remedy)

    def read(self, classes: Sequence[str]) -> Probed:
        """Features and truth, in memory."""
        from trainers.linear_probe import Probed

        n, spec, places = len(self.positions), self.spec, self.side**2
        nan = np.float32(np.nan)
        out = Probed(
            np.full((n, spec.steps, spec.audio), nan),
            np.full((n, places, spec.visual), nan),
            np.full((n, spec.steps, len(classes)), nan),
            np.zeros((n, places, len(classes)), bool),
            np.zeros(n, int),
            np.zeros(n, bool),
            np.zeros(n, bool),
        )
        for row, position in enumerate(self.positions):
            self._fill(out, row, position, classes)
        return out

    def _fill(self, out: Probed, row: int, position: int, classes: Sequence[str]) -> None:
        sample = self.data[position]
        target, steps = self.targets[sample.meta.id], self.spec.steps
        if "audio" in sample.arrays and target.seconds is not None:
            times = (np.arange(steps) + 0.5) * (sample.meta.visual.duration or sample.meta.duration) / steps
            out.audio[row], out.heard[row] = sample.arrays["audio"], True
            out.levels[row] = target.levels(classes, times)
        if "visual" in sample.arrays and target.places is not None:
            grids = sample.arrays["visual"][:, int(self.spec.frame_token) :]
            out.visual[row], out.looked[row] = averaged(grids.astype(np.float32).mean(axis=0), self.side), True
            out.cells[row] = target.cells(classes, self.side)
            out.seen[row] = len(target.places)


def averaged(places: np.ndarray, side: int) -> np.ndarray:
    """A grid of places [P, D], row by row, averaged to `side` x `side` (as `models.sequence.pooled`)."""
    import torch

    from models.sequence import pooled

    return pooled(torch.from_numpy(places)[None], side)[0].numpy()


def _row(features: str, figure: Figure) -> ProbeRow:
    items, _, low, high = (0, 0, math.nan, math.nan) if figure.right is None else share(figure.right)
    return ProbeRow(features, figure.modality, figure.what, items, figure.value, low, high, figure.floor)


def markdown(rows: Sequence[ProbeRow], split: str) -> str:
    """The table, and what its figures are."""
    head = ["features of", "what they hold", "probe", "95 %", "without looking", "items"]
    body = [[row.modality, row.what, *_shown(row)] for row in rows]
    text = (
        f"Linear probes of {rows[0].features}, fitted on train, asked of {split}. Without looking: the most frequent "
        "answer, a coin, a random order (mAP), the mean level. Intervals are Wilson's over items; several items are of "
        "one clip, so they are a little too narrow."
    )
    return f"{markdown_table(head, body, left=2)}\n\n{text}"


def _shown(row: ProbeRow) -> list[str]:
    if row.what.endswith("dB"):
        return [f"{row.value:.2f}", "", f"{row.floor:.2f}", ""]
    interval = f"{100 * row.low:.1f}-{100 * row.high:.1f}" if row.items else ""
    return [f"{100 * row.value:.1f}", interval, f"{100 * row.floor:.1f}", str(row.items or "")]


@command()
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = probe_parser().parse(argv)
    out = args.out or args.features / "probe"
    rows = probe(args.features, args.targets, out, args.split, args.side)
    print(markdown(rows, args.split))
    print(out / "probe.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
