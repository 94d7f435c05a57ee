"""Users' texts in figures."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.figure_text import MOST, figure_text, shortened
from tests.fixtures.tiers import told_by
from tuning.report.drawings import curves, dots, fronts, svg

unit = pytest.mark.unit
AWKWARD = (r"$\frac{x$", "$a$ and $b", r"\$5", "a\nb\tc\0d", "x" * 300, "é$_$" * 90, "")
every_text = pytest.mark.parametrize(
    "text", told_by((AWKWARD[0], AWKWARD[3], AWKWARD[4]).__contains__, AWKWARD, pytest.mark.integration)
)


@unit
@given(st.text(), st.integers(8, 60))
def test_a_long_text_keeps_both_ends(text: str, most: int):
    found = shortened(text, most)
    assert len(found) <= most
    assert found.isprintable() or not text.isprintable()
    if text.isprintable():
        assert (found == text) == (len(text) <= most)
        if len(text) > most:
            head, tail = found.split("…")[0], found.rpartition("…")[2]
            assert text.startswith(head)
            assert text.endswith(tail)
            assert tail


@every_text
def test_matplotlib_draws_it_as_it_is_written(text: str):
    from matplotlib.figure import Figure

    page = Figure(layout="constrained")
    axes = page.subplots()
    axes.set_title(figure_text(text))
    axes.plot([1, 2], label=figure_text(text))
    axes.legend()
    page.savefig(io.BytesIO(), format="png")
    assert len(axes.get_title()) <= 2 * MOST


@every_text
def test_the_reports_drawings_take_any_name(text: str):
    drawn = [
        svg(lambda: dots([(text, [(text, 50.0, 1.0), ("b", 40.0, 1.0)])]), "dots"),
        svg(lambda: fronts([(text, 1.0, (2.0,)), ("b", 2.0, (3.0,))], [(text, False)], text, [(0, 1)]), "fronts"),
        svg(lambda: curves([(text, [1.0, 2.0])], text, None), "curves"),
    ]
    for page in drawn:
        assert "x" * 60 not in page
        assert "\0" not in page
