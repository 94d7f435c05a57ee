"""Legends below figures hold every name once, and none is cut off."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainers.legend import legend_below

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("name", "columns"), [("a", 4), ("a method with a name of some length", 2), (90 * "W", 1)])
def test_as_many_columns_as_fit(name, columns):
    fig = Figure(figsize=(7, 4), layout="constrained")
    for axes in fig.subplots(1, 2):
        for i in range(6):
            axes.plot([0, 1], [0, i], label=f"{name} {i}")
    legend_below(fig)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"{name} {i}" for i in range(6)]
    assert legend._ncols == columns
    box = legend.get_window_extent(canvas.get_renderer())
    assert columns == 1 or (box.x0 >= 0 and box.x1 <= fig.bbox.width)
    assert all(axes.get_window_extent().y0 > box.y1 for axes in fig.axes), "below the panels"
