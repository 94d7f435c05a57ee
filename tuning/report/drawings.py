"""Figures as inline SVG: text stays text, black becomes the page's colour of text, nothing from elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from configs.figure_text import shortened
from trainers.legend import legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's colour of text, which dark mode changes
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are no formulas
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify_threshold": 0.5,
}


@contextmanager
def _style(name: str) -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context({**_RC, "svg.hashsalt": name}):
        yield


def svg(draw: Callable[[], Figure], name: str) -> str:
    """What `draw` makes as inline SVG.

    Args:
        name: of the figure, another one for every figure of a page: ids in it begin with its hash.
    """
    out = io.StringIO()
    with _style(name):
        page = draw()
        _plain_logarithms(page)
        page.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r"(#010203|#000000)\b", "currentColor", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    tag = sha256(name.encode()).hexdigest()[:6]
    text = re.sub(r'\bid="', f'id="{tag}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{tag}-", text)
    width = re.search(r'width="([\d.]+)pt"', text)
    wide = f"{float(width.group(1)) * 4 / 3:.0f}" if width else "640"
    opening = rf'<svg \1 role="img" style="width:{wide}px">'
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', opening, text, count=1)


def _plain_logarithms(page: Figure) -> None:
    """Powers of ten as numbers: matplotlib writes them as formulas, and here nothing is a formula."""
    from matplotlib.ticker import LogFormatterMathtext, NullFormatter

    for axis in (axis for axes in page.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(NullFormatter())


def within_percent(page: Figure) -> Figure:
    """Vertical axes that end at 0 and 100: an interval of two seeds can be wider than accuracies go."""
    for axes in page.axes:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 100.5))
    return page


def tidy(axes: Any, grid: str = "both") -> None:
    """Spines at the left and below, a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid)
    axes.set_axisbelow(True)


def dots(
    groups: Sequence[tuple[str, Sequence[tuple[str, float, float]]]], gain: str = "accuracy", columns: int = 3
) -> Figure:
    """One panel per group, one line per method: a dot at its mean, its interval as a bar.

    Args:
        groups: title and (method, mean, half width; NaN: not known) in percent.
        gain: what is shown.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for _, rows in groups for name, _, _ in rows))
    wide = min(columns, len(groups))
    high = -(-len(groups) // wide)
    page = Figure(figsize=(1.6 + 2.1 * wide, high * (0.75 + 0.21 * len(names))), layout="constrained")
    grid = page.subplots(high, wide, sharex=True, sharey=True, squeeze=False)
    for axes, (title, rows) in zip(grid.flat, groups, strict=False):
        for name, mean, half in rows:
            at, colour = names.index(name), f"C{names.index(name) % 10}"
            axes.errorbar(mean, at, xerr=half, fmt="o", markersize=4.5, color=colour, elinewidth=1.4)
        axes.set_title(shortened(title), fontsize=9)
        tidy(axes)
        axes.tick_params(labelsize=8)
    for axes in list(grid.flat)[len(groups) :]:
        axes.remove()
    low, high = grid[0][0].get_xlim()
    grid[0][0].set_xlim(max(low, -1), min(high, 101))
    grid[0][0].set_yticks(range(len(names)), [shortened(name) for name in names])
    grid[0][0].set_ylim(len(names) - 0.5, -0.5)
    page.supxlabel(f"{gain}, %", fontsize=9)
    return page


def fronts(
    points: Sequence[tuple[str, float, Sequence[float]]],
    costs: Sequence[tuple[str, bool]],
    gain: str,
    edges: Sequence[Sequence[int]],
) -> Figure:
    """The gain against every cost, the front as a line.

    Args:
        points: name, gain, and the costs.
        costs: label, and whether it is drawn on a logarithmic axis.
        gain: label of the gain.
        edges: for every cost the points of the front, cheapest first.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    page = Figure(figsize=(1.2 + 2.7 * len(costs), 3.6), layout="constrained")
    grid = page.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for column, (axes, (label, log), edge) in enumerate(zip(grid, costs, edges, strict=True)):
        for i, (name, y, at) in enumerate(points):
            axes.plot(at[column], y, "oshD^vPX*"[i // 10 % 9], color=f"C{i % 10}", label=shortened(name))
        line = [points[i] for i in edge]
        axes.plot([at[column] for _, _, at in line], [y for _, y, _ in line], "-", color=INK, linewidth=1)
        axes.plot(
            [at[column] for _, _, at in line],
            [y for _, y, _ in line],
            "o",
            markersize=11,
            fillstyle="none",
            color=INK,
            label="on the front" if column == 0 else "_",
        )
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(shortened(label), fontsize=9)
        axes.tick_params(labelsize=8)
        tidy(axes)
    grid[0].set_ylabel(shortened(gain), fontsize=9)
    legend_below(page)
    return page


def curves(lines: Sequence[tuple[str, Sequence[float]]], label: str, chosen: int | None) -> Figure:
    """Figures by epoch, one line each; many are thin and grey, the `chosen` one stands out."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(7.0, 3.6), layout="constrained")
    axes, few = page.subplots(), len(lines) <= 10
    for i, (name, values) in enumerate(lines):
        look = {"color": f"C{i % 10}"} if few else {"color": INK, "alpha": 0.25, "linewidth": 0.7}
        if few or i != chosen:
            axes.plot(
                range(1, len(values) + 1), values, label=shortened(name) if few else "_", rasterized=not few, **look
            )
    if not few and chosen is not None:
        name, values = lines[chosen]
        axes.plot(range(1, len(values) + 1), values, color="C1", linewidth=2, label=f"best: {shortened(name)}")
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel(shortened(label), fontsize=9)
    axes.tick_params(labelsize=8)
    tidy(axes)
    legend_below(page, most=3)
    return page
