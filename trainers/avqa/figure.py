"""The figure of question answering: accuracy against missing rate, sound at the left, picture right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.figure_text import figure_text
from models.settings import MODALITIES
from trainers.avqa.results import Line
from trainers.differences import varied_network
from trainers.legend import legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS: dict[str, dict] = {  # a ceiling is dashed, rules that neither hear nor see are grey
    "specialist": {"color": "black", "linestyle": "--"},
    "question look-up": {"color": "0.55", "linestyle": ":"},
    "majority of the kind": {"color": "0.75", "linestyle": ":"},
}
MARKS = "osD^vPX*"
BANDS = 6
MARGIN = 4.0  # points of accuracy around what is shown


def figure(lines: Sequence[Line], path: Path) -> None:
    """Write :func:`drawing` into a file."""
    drawing(lines).savefig(path, dpi=150)


def drawing(lines: Sequence[Line]) -> Figure:
    """One row per network (with its variants) and what its training clips lacked, a line per method, its interval of
    95 % as a band, cut where it leaves the panel: a band wider than that says only that nothing is known. Of more than
    `BANDS` methods the bands would hide each other and are left to the table."""
    from matplotlib.figure import Figure

    panel = _panels([x.network for x in lines if x.network])
    trained = list(dict.fromkeys((panel[x.network], x.train_missing) for x in lines if x.network))
    methods = [m for m in dict.fromkeys(x.method for x in lines if x.network) if m not in LOOKS]
    size = (9.0, 3.1 * len(trained) + 0.9)
    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(len(trained), 2, squeeze=False, sharex=True, sharey="row")
    for row, (network, lacked) in zip(axes, trained, strict=True):
        for axis, modality in zip(row, MODALITIES, strict=True):
            for line in (x for x in lines if not x.network or (panel[x.network], x.train_missing) == (network, lacked)):
                _draw(axis, line, modality, methods)
            trained_on = f"\ntrained without {lacked}" if lacked else ""
            axis.set_title(figure_text(f"{network}: {modality} missing") + trained_on, fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.3)
        row[0].set_ylabel("accuracy, %")
        row[0].set_ylim(*_limits([y for axis in row for line in axis.get_lines() for y in line.get_ydata()]))
    for axis in axes[-1]:
        axis.set_xlabel("clips without it, %")
    legend_below(fig, most=5)
    return fig


def _panels(networks: Sequence[str]) -> dict[str, str]:
    """In whose panel a network is: its own, or that of the one that it varies."""
    return {name: min((varied_network(name, {other}) or name for other in networks), key=len) for name in networks}


def _limits(shown: Sequence[float]) -> tuple[float, float]:
    """Of a panel, from the accuracies that it shows."""
    return min(shown) - MARGIN, max(shown) + MARGIN


def _draw(axis, line: Line, modality: str, methods: Sequence[str]) -> None:
    points = line.curve(modality)
    if not points:
        return
    if not line.network:  # a rule: the same whatever is missing
        axis.axhline(100 * points[0][1][0], label=figure_text(line.method), **LOOKS[line.method])
        return
    place = methods.index(line.method) if line.method in methods else 0
    look = LOOKS.get(line.method) or {
        "color": f"C{place % 10}",
        "linestyle": "-" if place < 10 else "-.",
        "marker": MARKS[place % len(MARKS)],
    }
    at = [rate for rate, _ in points]
    mean = [100 * m for _, (m, _) in points]
    axis.plot(at, mean, label=figure_text(line.method), markersize=4, linewidth=1.5, **look)
    if len(methods) > BANDS:
        return
    known = [line.interval((modality, rate)) for rate in at]
    low, high = ([100 * interval[side] for interval in known] for side in (0, 1))
    axis.fill_between(at, low, high, color=look["color"], alpha=0.12, linewidth=0)
