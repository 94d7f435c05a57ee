"""Why a stream is not there, or a clip was not ingested: codes that files may rely on, for ever."""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """As written in ``quarantine.jsonl`` (``error``) and in a sample's json (``audio.cause``). A value is
    never renamed nor reused; new ones may come."""

    ABSENT = "absent at source"
    UNSUPPORTED = "unsupported codec"
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"
    TIMED_OUT = "timed out"
    TOO_LARGE = "too large"
    MISSING_FILE = "missing file"
    TOO_SHORT = "too short"
    NOT_IN_CLIP = "not in the clip's time"
    WRONG_ARRAY = "wrong shape or type"
    NOT_FINITE = "not finite"
    ALL_ZERO = "all zeros"
    UNREACHABLE = "unreachable"
