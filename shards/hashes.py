"""Hashes of files: sha256, by which what was read is checked, and those by which a store tells what it holds."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

PART = 50 << 20  # bytes of a part of a large upload, as s3fs cuts it


def differs(info: dict[str, Any], file: Path) -> bool:
    """Whether the MD5 that a store tells of an object is another one than a file's; False where it tells none."""
    told, parts = str(info.get("ETag") or "").strip('"').partition("-")[::2]
    digests = _md5s(file)
    if parts:  # MD5 of the parts' MD5s
        return int(parts) == len(digests) and hashlib.md5(b"".join(digests)).hexdigest() != told
    if told:
        return len(told) == 32 and md5(file).hex() != told
    return "md5Hash" in info and b64encode(md5(file)).decode() != info["md5Hash"]


def _md5s(file: Path) -> list[bytes]:
    with file.open("rb") as opened:
        return [hashlib.md5(part).digest() for part in iter(lambda: opened.read(PART), b"")]


def md5(file: Path) -> bytes:
    """MD5 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").digest()


def file_sha256(file: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
