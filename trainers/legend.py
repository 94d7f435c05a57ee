"""The legend of a figure, below its panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def legend_below(fig: Figure, most: int = 4) -> None:
    """What all panels show, each name once, in as many columns as fit the figure's width, at most `most`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    found = [pair for axes in fig.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    shown = {label: handle for handle, label in reversed(found)}  # of the first panel that has it
    labels = list(dict.fromkeys(label for _, label in found))
    renderer = FigureCanvasAgg(fig).get_renderer()
    for columns in range(most, 0, -1):
        legend = fig.legend(
            [shown[label] for label in labels],
            labels,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=8,
        )
        if columns == 1 or legend.get_window_extent(renderer).width <= fig.bbox.width:
            return
        legend.remove()
