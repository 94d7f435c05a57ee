"""Why a stream or a clip could not be had: a small stable vocabulary, each with its remedy."""

from __future__ import annotations

import errno
import re

from shards.causes import Cause

ABSENT, UNSUPPORTED, TRUNCATED = Cause.ABSENT, Cause.UNSUPPORTED, Cause.TRUNCATED
UNDECODABLE, TIMED_OUT, TOO_LARGE = Cause.UNDECODABLE, Cause.TIMED_OUT, Cause.TOO_LARGE
MISSING_FILE, TOO_SHORT = Cause.MISSING_FILE, Cause.TOO_SHORT

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
# The machine is at fault, not the clip: no room, no rights, no more files or processes.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EAGAIN}

READ_COMPLAINTS = re.compile(
    r"partial file|File ended prematurely|[Pp]acket corrupt|corrupt input packet|[Tt]runcat|Read error"
)
_NO_CODEC = re.compile(
    r"[Nn]o decoder|Unknown decoder|[Dd]ecoder .* not found|unknown codec|is not (implemented|supported)"
)
_NO_MEMORY = re.compile(r"Cannot allocate memory|bad_alloc|Picture size .* is invalid|MemoryError")


class DecodeError(Exception):
    """A clip, or a stream that should be there, can't be decoded: the cause, and what was seen."""

    def __init__(self, cause: str, message: str):
        self.cause, self.message = Cause(cause), message
        super().__init__(f"{cause}: {message}")


class MachineError(OSError):
    """Decoding fails for a reason that is not the clip's, and would fail for the next clip too."""


def machine_at_fault(error: OSError, *programs: str) -> bool:
    """Whether an error from decoding is the machine's; ``programs`` are the ones that have to be there."""
    return error.errno in _MACHINE or error.filename in programs


def from_stderr(stderr: str, what: str) -> DecodeError:
    """The cause behind ffmpeg's messages, with its last telling line."""
    lines = [line for line in stderr.splitlines() if re.search(r"\[(error|fatal)\]", line)]
    detail = re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] *|\[(error|fatal)\] *", "", lines[0]) if lines else "no message"
    for cause, pattern in ((TOO_LARGE, _NO_MEMORY), (TRUNCATED, READ_COMPLAINTS), (UNSUPPORTED, _NO_CODEC)):
        if pattern.search(stderr):
            return DecodeError(cause, f"{what}: {detail}")
    return DecodeError(UNDECODABLE, f"{what}: {detail}")
