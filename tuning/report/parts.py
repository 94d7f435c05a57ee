"""What a report is made of: parts with tables, drawings, lines and pictures. No HTML here: see `page`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is read.
        value: what its column is sorted by, those that are no finite number last; None: the text.
        mark: "best" or "front" to make it stand out.
    """

    text: str
    value: float | None = None
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table; its first `left` columns are text, the others figures.

    Attributes:
        caption: above it.
        note: below it.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: int = 1
    caption: str = ""
    note: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Drawing:
    """A figure as inline SVG (safe: matplotlib made it), with what it shows in words."""

    svg: str
    caption: str
    kind: ClassVar[str] = "drawing"


@dataclass(frozen=True)
class Text:
    """A paragraph; `warn` makes it stand out."""

    text: str
    warn: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Answer:
    """What a method said of a clip; `right` None where there is nothing to compare with."""

    method: str
    said: str
    right: bool | None


@dataclass(frozen=True)
class View:
    """A clip under one condition: pictures as data URLs, None for a modality that is not there.

    Attributes:
        fate: what happened to sound and picture, in words.
    """

    condition: str
    frame: str | None
    sound: str | None
    fate: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Clip:
    """A clip with its truth, under every condition."""

    title: str
    truth: str
    views: tuple[View, ...]
    kind: ClassVar[str] = "clip"


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown when asked for."""

    title: str
    blocks: tuple[Block, ...]
    kind: ClassVar[str] = "folded"


Block = Table | Drawing | Text | Clip | Folded


@dataclass(frozen=True)
class Part:
    """A section; `name` is its heading, `lead` what it is."""

    name: str
    lead: str
    blocks: tuple[Block, ...]


def text(value: object) -> Cell:
    """A cell of text."""
    return Cell(str(value))


def figure(value: float | None, digits: int = 1, scale: float = 1.0, mark: str = "") -> Cell:
    """A cell with a figure, empty where there is none."""
    if value is None or math.isnan(value):
        return Cell("", -math.inf)
    return Cell(f"{scale * value:,.{digits}f}", scale * value, mark)


def spread(mean: float | None, half: float, digits: int = 1, scale: float = 1.0, mark: str = "") -> Cell:
    """A mean with the half width of its interval; the mean alone where that is not known (NaN)."""
    cell = figure(mean, digits, scale, mark)
    if mean is None or math.isnan(mean) or math.isnan(half):
        return cell
    return Cell(f"{cell.text} ± {scale * half:.{digits}f}", cell.value, mark)


def folded_rows(table: Table, shown: int, title: str) -> tuple[Block, ...]:
    """A long table's first rows, and all of them where they are asked for."""
    if len(table.rows) <= shown:
        return (table,)
    first = Table(table.head, table.rows[:shown], table.left, table.caption, table.note)
    return first, Folded(title, (Table(table.head, table.rows, table.left),))


def plural(count: int, what: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def short(value: object, width: int = 48) -> str:
    """A text of at most `width` characters: the middle gives way."""
    whole = str(value)
    if len(whole) <= width:
        return whole
    return f"{whole[: width // 2 - 1]}…{whole[-(width // 2) :]}"


def shared(blocks: Sequence[Block | None]) -> tuple[Block, ...]:
    """Those that are there."""
    return tuple(block for block in blocks if block is not None)
