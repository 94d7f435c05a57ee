"""Texts of users (labels, names of runs and folders) in figures: no formulas, no more room than they deserve."""

from __future__ import annotations

import unicodedata

MOST = 48  # characters of a name in a figure


def shortened(text: str, most: int = MOST) -> str:
    """`text` on one line, without control characters, its middle left out where it is longer than `most`."""
    plain = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text)
    if len(plain) <= most:
        return plain
    head = (most - 1) * 2 // 3
    return f"{plain[:head]}…{plain[head + 1 - most :]}"


def figure_text(text: str, most: int = MOST) -> str:
    """As `shortened`, for a matplotlib that reads ``$...$`` as a formula: shown as it is written."""
    return shortened(text, most).replace("$", r"\$")
