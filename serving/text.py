"""Predictions as text for people and as records for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.settings import MODALITIES, Modality
from serving.prediction import Prediction
from shards.schema import StreamInfo

SAID = {"audio": "sound", "visual": "picture"}


def clip_block(found: Sequence[Prediction], top: int) -> str:
    """A clip and what is there of it, then a line per run."""
    first = found[0]
    asked = f"  {first.question}" if first.question else ""
    width = max(len(p.run) for p in found)
    lines = [f"{first.clip}  {presence(first.streams)}{asked}".rstrip()]
    return "\n".join([*lines, *(f"  {p.run:<{width}}  {_said(p, top)}" for p in found)])


def presence(streams: Mapping[Modality, StreamInfo]) -> str:
    """What is there of a clip, such as ``sound 2.0 s, no picture (truncated)``."""
    return ", ".join(_stream(m, streams[m]) for m in MODALITIES if m in streams)


def _stream(modality: Modality, info: StreamInfo) -> str:
    if not info.present:
        return f"no {SAID[modality]} ({info.cause})"
    return SAID[modality] + (f" {info.duration:.1f} s" if info.duration else "")


def _said(p: Prediction, top: int) -> str:
    if p.failure is not None:
        return f"failed: {p.failure}\n    remedy: {p.failure.remedy}"
    answers = ", ".join(f"{answer} {100 * share:.1f} %" for answer, share in p.ranked(top))
    abstains = "abstains: " if p.abstains else ""
    scaled = f"  [calibrated: {p.calibrated}]" if p.calibrated else ""
    return "".join([f"{abstains}{answers}{_module(p)}{scaled}", *(f"\n    note: {note}" for note in p.notes)])


def _module(p: Prediction) -> str:
    """Which module answered, and what the detector took for ruined."""
    if p.ruined is None:
        return ""
    ruined = " and ".join(SAID[m] for m in p.ruined)
    return f"  [{p.selection}: {p.case}; {f'ruined: {ruined}' if ruined else 'nothing ruined'}]"


def clip_record(clip: str, question: str | None, found: Sequence[Prediction]) -> dict[str, Any]:
    """A clip with what every run answers, as json values."""
    streams = {m: info.model_dump(mode="json", exclude_none=True) for m, info in found[0].streams.items()}
    asked = {} if question is None else {"question": question}
    return {"clip": clip, **asked, "streams": streams, "runs": [p.as_dict() for p in found]}
