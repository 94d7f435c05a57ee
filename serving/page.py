"""The page: one HTML file, and the policy by which a browser runs its script and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Page:
    """The page and the header that lets it run its own script and nothing else."""

    text: str
    policy: str

    @classmethod
    def read(cls) -> Page:
        """The file beside this module."""
        text = PAGE.read_text(encoding="utf-8")
        allowed = {tag: " ".join(f"'sha256-{_digest(x)}'" for x in _inline(text, tag)) for tag in ("script", "style")}
        policy = (
            f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; "
            "img-src data:; media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        return cls(text, policy)


def _inline(text: str, tag: str) -> list[str]:
    return re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
