"""Why a stream or a clip could not be had: a small stable vocabulary, each with its remedy."""

from __future__ import annotations

import re

from shards.schema import ABSENT

UNSUPPORTED = "unsupported codec"
TRUNCATED = "truncated"
UNDECODABLE = "undecodable"
TIMED_OUT = "timed out"
TOO_LARGE = "too large"
MISSING_FILE = "missing file"
TOO_SHORT = "too short"

REMEDIES = {
    ABSENT: "give the clip a file with sound or picture, or take it out of the manifest",
    UNSUPPORTED: "re-encode it (ffmpeg -i IN -c:v libx264 -c:a aac OUT.mp4) and run again",
    TRUNCATED: "fetch the file again; if it really ends early, cut it cleanly (ffmpeg -i IN OUT.mp4)",
    UNDECODABLE: "fetch the file again, or re-encode what can be read (ffmpeg -i IN OUT.mp4)",
    TIMED_OUT: "raise timeout_s, or cut or re-encode the clip",
    TOO_LARGE: "raise max_pixels, max_seconds or memory_mb, or scale the clip down",
    MISSING_FILE: "correct the path in the manifest (paths are relative to it), or fetch the file",
    TOO_SHORT: "give a clip of at least 25 ms of sound",
}
CAUSES = tuple(REMEDIES)

READ_COMPLAINTS = re.compile(
    r"partial file|File ended prematurely|[Pp]acket corrupt|corrupt input packet|[Tt]runcat|Read error"
)
_NO_CODEC = re.compile(
    r"[Nn]o decoder|Unknown decoder|[Dd]ecoder .* not found|unknown codec|is not (implemented|supported)"
)
_NO_MEMORY = re.compile(r"Cannot allocate memory|bad_alloc|Picture size .* is invalid|MemoryError")


class DecodeError(Exception):
    """A clip, or a stream that should be there, can't be decoded: one of ``CAUSES``, and what was seen."""

    def __init__(self, cause: str, message: str):
        assert cause in REMEDIES, cause
        super().__init__(f"{cause}: {message}")
        self.cause, self.message = cause, message


def from_stderr(stderr: str, what: str) -> DecodeError:
    """The cause behind ffmpeg's messages, with its last telling line."""
    lines = [line for line in stderr.splitlines() if re.search(r"\[(error|fatal)\]", line)]
    detail = (
        re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] *|\[(error|fatal)\] *", "", lines[0]) if lines else "no message"
    )
    for cause, pattern in ((TOO_LARGE, _NO_MEMORY), (TRUNCATED, READ_COMPLAINTS), (UNSUPPORTED, _NO_CODEC)):
        if pattern.search(stderr):
            return DecodeError(cause, f"{what}: {detail}")
    return DecodeError(UNDECODABLE, f"{what}: {detail}")
