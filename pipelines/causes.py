"""Why a stream or a clip could not be had: a small stable vocabulary, each with its remedy."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence

from shards.causes import Cause
from shards.redaction import redacted

ABSENT, UNSUPPORTED, TRUNCATED = Cause.ABSENT, Cause.UNSUPPORTED, Cause.TRUNCATED
UNDECODABLE, TIMED_OUT, TOO_LARGE = Cause.UNDECODABLE, Cause.TIMED_OUT, Cause.TOO_LARGE
MISSING_FILE, TOO_SHORT, NOT_IN_CLIP = Cause.MISSING_FILE, Cause.TOO_SHORT, Cause.NOT_IN_CLIP
NOT_FINITE, UNREACHABLE = Cause.NOT_FINITE, Cause.UNREACHABLE
NO_FAILURE = {ABSENT, NOT_IN_CLIP}  # a stream that rightly is not there

REMEDIES = {
    ABSENT: "give the clip a file with sound or picture, or take it out of the manifest",
    UNSUPPORTED: "re-encode it (ffmpeg -i IN -c:v libx264 -c:a aac OUT.mp4) and run again",
    TRUNCATED: "fetch the file again; if it really ends early, cut it cleanly (ffmpeg -i IN OUT.mp4)",
    UNDECODABLE: "fetch the file again, or re-encode what can be read (ffmpeg -i IN OUT.mp4)",
    TIMED_OUT: "raise timeout_s, or cut or re-encode the clip",
    TOO_LARGE: "raise max_pixels, max_seconds or memory_mb, or scale the clip down",
    MISSING_FILE: "correct the path in the manifest (paths are relative to it), or fetch the file",
    TOO_SHORT: "give a clip of at least 25 ms of sound",
    NOT_FINITE: "write the sound again from where it came; NaN and infinity are no sound",
    UNREACHABLE: "correct the address, or see that it may be read from here; --retry-quarantined tries it again",
    NOT_IN_CLIP: "give a start and duration in which the file has sound or picture",
}
# The machine is at fault, not the clip: no room, no rights, no more files or processes.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EAGAIN}

# Whole messages of FFmpeg, from their beginning: nothing that stands in a file can pass for one.
_CUT_SHORT = re.compile(
    r"stream \d+, offset 0x[0-9a-f]+: partial file|File ended prematurely|Truncating packet of size|Read error\b"
)
_DAMAGED = re.compile(
    r"0x[0-9a-f]{2} at pos \d+ \(0x[0-9a-f]+\) invalid as first byte of an EBML number\s*|CRC mismatch!\s*"
    r"|ff asf skip \d+ \(unknown stream\)\s*|Packet mismatch -?\d+ \d+ \d+\s*"
)
_CONCEALED = re.compile(r"corrupt decoded frame|concealing \d+ ")
_NO_CODEC = re.compile(
    r"No decoder|Decoder .*not found|Decoding requested, but no decoder|.*is not (implemented|supported)"
)
_NO_MEMORY = re.compile(
    r"Cannot allocate memory|.*bad_alloc|Picture size \d+x\d+ is invalid|.*: Cannot allocate memory"
)


class DecodeError(Exception):
    """A clip, or a stream that should be there, can't be decoded: the cause, what was seen (passwords of addresses
    redacted), what to do about it."""

    def __init__(self, cause: str, message: str, remedy: str | None = None):
        self.cause, self.message = Cause(cause), redacted(message)
        self.remedy = remedy or REMEDIES[self.cause]
        super().__init__(f"{cause}: {self.message}")


class MachineError(OSError):
    """Decoding fails for a reason that is not the clip's, and would fail for the next clip too."""


def machine_at_fault(error: OSError, *programs: str) -> bool:
    """Whether an error from decoding is the machine's; ``programs`` are the ones that have to be there."""
    return error.errno in _MACHINE or error.filename in programs


def cut_short(messages: Iterable[str]) -> str | None:
    """The first of FFmpeg's messages that says that the file ends early or lacks a piece."""
    return next((text.strip() for text in messages if _CUT_SHORT.match(text)), None)


def damaged_container(messages: Iterable[str]) -> str | None:
    """The first of FFmpeg's messages that says that the container is broken, and that a part was passed over."""
    return next((text.strip() for text in messages if _DAMAGED.fullmatch(text)), None)


def concealed(messages: Iterable[str]) -> bool:
    """Whether a decoder says that it made up what it could not decode."""
    return any(_CONCEALED.match(text) for text in messages)


def from_messages(messages: Sequence[str], what: str) -> DecodeError:
    """The cause behind FFmpeg's messages, with the first of them."""
    detail = messages[0].strip()[:300] if messages else "no message"
    for cause, pattern in ((TOO_LARGE, _NO_MEMORY), (TRUNCATED, _CUT_SHORT), (UNSUPPORTED, _NO_CODEC)):
        if any(pattern.match(text) for text in messages):
            return DecodeError(cause, f"{what}: {detail}")
    return DecodeError(UNDECODABLE, f"{what}: {detail}")
