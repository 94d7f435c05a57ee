"""How well RMM's slots can be addressed: the mean squared error of a toy fit under each way of addressing.

    python -m benchmarks.addressing                # about a minute on one core
    python -m benchmarks.addressing --places 196   # the grid of the AVQA paper's features

Every pair of a clip kind and a question has a sound of its own, so that picture *and* question are needed to
recall it; there are fewer pairs than slots, so slots that can be addressed recall all of them. All ways get
the same pairs, first slots, optimiser and number of steps; "mean" is the error of the pairs' mean, which
needs no addressing at all.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import report
from benchmarks.report import Spread, positive
from models.avqa.batch import FeatureSpec
from models.avqa.recovery.rmm import RMM

KINDS, QUESTIONS = 6, 6  # 36 pairs for 75 slots
LIKENESS = 0.3  # what tells the pictures of a kind apart, in what they share
WAYS: dict[str, dict[str, Any]] = {
    "released": {"addressing": "released"},
    "paper": {"addressing": "paper"},
    "product": {},
    "product, temperature": {"temperature": True},
    "product, slots from data": {"from_data": True},
}


@dataclass(frozen=True)
class Fit:
    """What became of one fit.

    Attributes:
        error: RMMR after the fit over its two parts.
        largest: the largest weight any slot got in recalling a sound; 1 / L is none.
    """

    error: float
    largest: float


def pairs(spec: FeatureSpec, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every kind with every question: audio [N, 1, Da], visual [N, 1, P, Dv], question [N, 1]."""
    rng = torch.Generator().manual_seed(seed)
    audio = torch.randn(KINDS, QUESTIONS, 1, spec.audio, generator=rng)
    shared = torch.randn(KINDS, 1, 1, spec.places, spec.visual, generator=rng)
    own = torch.randn(KINDS, QUESTIONS, 1, spec.places, spec.visual, generator=rng)
    visual = (shared + LIKENESS * own) / (1 + LIKENESS**2) ** 0.5
    question = (2 + torch.arange(QUESTIONS)).expand(KINDS, QUESTIONS)[..., None]
    return audio.flatten(0, 1), visual.flatten(0, 1), question.flatten(0, 1)


def mean_error(spec: FeatureSpec, seed: int) -> float:
    """Error of the pairs' mean, over the two modalities."""
    audio, visual, _ = pairs(spec, seed)
    return float(sum((x - x.mean(dim=0)).square().mean() for x in (audio, visual))) / 2


def fit(
    spec: FeatureSpec,
    seed: int,
    steps: int,
    rate: float,
    from_data: bool = False,
    slots: int = 75,
    **way: Any,
) -> Fit:
    """Fit the slots to all pairs at once with Adam."""
    torch.manual_seed(seed)
    rmm = RMM(spec, 2 + QUESTIONS, slots=slots, question=32, **way)
    audio, visual, question = pairs(spec, seed)
    if from_data:
        rmm.memorise(audio, visual, question, seed)
    optimizer = torch.optim.Adam(rmm.parameters(), lr=rate)
    for _ in range(steps):
        loss = rmm.losses(audio, visual, question)["rmmr"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = float(rmm.losses(audio, visual, question)["rmmr"].mean()) / 2
        return Fit(error, float(rmm.address("audio", visual, question).max()))


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    spec = FeatureSpec(audio=32, visual=8, steps=1, places=args.places)
    found = report.machine("cpu")
    fits = {
        name: [fit(spec, seed, args.steps, args.rate, **way) for seed in range(args.repeats)]
        for name, way in WAYS.items()
    }
    means = [mean_error(spec, seed) for seed in range(args.repeats)]
    rows = [["mean", Spread.of(means).text(), ""]] + [
        [name, Spread.of([f.error for f in of]).text(), Spread.of([f.largest for f in of]).text(4)]
        for name, of in fits.items()
    ]
    text = (
        f"{KINDS * QUESTIONS} pairs, 75 slots (1 / L = 0.01333), sound 32, picture {args.places} x 8, Adam "
        f"{args.rate:g}, {args.steps} steps, {args.repeats} seeds.\n\n"
        + report.table(["addressing", "mean squared error", "largest weight"], rows)
    )
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    record = {"machine": found, "settings": settings, "mean": means, "fits": fits}
    name = "addressing" if args.places == 4 else f"addressing-{args.places}"
    report.save(args.out, name, "Addressing of RMM's slots", text, record, lambda f: _draw(f, fits, means))
    return 0


def _draw(figure: Any, fits: dict[str, list[Fit]], means: list[float]) -> None:
    axes = figure.subplots()
    axes.bar(
        ["mean", *fits],
        [Spread.of(means).median, *(Spread.of([f.error for f in of]).median for of in fits.values())],
    )
    axes.set_ylabel("mean squared error")
    axes.tick_params(axis="x", rotation=15)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.addressing", description=__doc__)
    parser.add_argument("--places", type=positive, default=4, help="P of the pictures, a square (default 4)")
    parser.add_argument("--steps", type=positive, default=400)
    parser.add_argument("--rate", type=float, default=3e-2, help="Adam's learning rate")
    parser.add_argument("--repeats", type=positive, default=3, help="seeds (default 3)")
    parser.add_argument("--threads", type=positive, help="CPU threads of torch (default: its choice)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
