"""Addresses of datasets: folders, and URLs of any storage that fsspec knows. A setting that is a path may hold a URL:
`pathlib` folds its two slashes to one, and what it says of parents, names and joined paths stays right."""

from __future__ import annotations

import re
from pathlib import Path

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # of two letters at least: one is a drive
_LOCAL = ("file", "local")


def url_of(folder: str | Path) -> str | None:
    """The URL that a text or a path stands for, None for a folder.

    >>> url_of(Path("s3://bucket/scenes") / "features")
    's3://bucket/scenes/features'
    """
    if (found := _SCHEME.match(text := str(folder))) is None:
        return None
    scheme, rest = found[1], text[found.end() :].rstrip("/")
    return f"{scheme}:///{rest}" if scheme in _LOCAL else f"{scheme}://{rest}"


def absolute(folder: Path) -> Path:
    """The same as every process sees it; a URL stays as it is."""
    return folder if url_of(folder) else folder.absolute()
