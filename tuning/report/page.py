"""The report as HTML: everything that comes from runs is escaped, nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from tuning.report.parts import Part

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: of the document.
        facts: what the first lines say: what it is about, in a few figures.
        verdicts: what each evaluation comes to, in a sentence.
    """

    title: str
    facts: tuple[str, ...]
    parts: tuple[Part, ...]
    verdicts: tuple[str, ...] = ()


def html(page: Page) -> str:
    """One self-contained HTML document."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = _breakable
    environment.filters["drawn"] = Markup  # matplotlib's SVG, which escapes what it is given
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(page=page, anchors=_anchors(page.parts))


def _breakable(name: str) -> Markup:
    """A heading that may break after a dot or an underscore."""
    return Markup(re.sub(r"([._])(?=\w)", r"\1<wbr>", str(escape(name))))


def _anchors(parts: Sequence[Part]) -> list[str]:
    return [f"part-{i}" for i in range(1, len(parts) + 1)]
