"""The work of one task: decode a shard's clips, write the shard, keep its result beside it. No Ray here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from models.fbank import FRAME_RATE, SAMPLE_RATE, WINDOW, log_mel
from pipelines.causes import NO_FAILURE, TOO_SHORT, DecodeError
from pipelines.decode import Decoded, Request, lost
from pipelines.decoder_process import Decoder
from pipelines.manifest import Clip
from pipelines.plan import ShardPlan
from pipelines.resume import Ledger, make_shard, read_ledger, write_ledger
from pipelines.running_stats import Moments, add, audio_moments, visual_moments
from pipelines.settings import IngestConfig
from pipelines.sources import Source, sources
from pipelines.throttle import Turns
from shards.causes import Cause
from shards.errors import InputError
from shards.redaction import redacted
from shards.schema import MODALITIES, Frozen, SampleMeta, count_absent
from shards.store import Place
from shards.writer import Member, Record

QUARANTINE_FILE = "quarantine.jsonl"


class Quarantined(Frozen):
    """One clip that was not ingested, as in quarantine.jsonl; ``error`` is a stable code."""

    id: str
    path: str
    stage: str
    error: Cause
    message: str
    remedy: str


class ShardResult(Ledger):
    """What one task leaves behind, and all that dataset.json needs of it (the shard's ledger)."""

    quarantined: tuple[Quarantined, ...]
    audio: Moments = Moments()
    visual: Moments = Moments()

    def without_clips(self) -> Ledger:
        """What a split of dataset.json needs of it."""
        return Ledger(digest=self.digest, shard=self.shard, present=self.present, absent=self.absent)

    @property
    def halves(self) -> int:
        """Clips that are there with one stream while the other failed."""
        return sum(n for causes in self.absent.values() for cause, n in causes.items() if cause not in NO_FAILURE)


def check_budget(failures: int, config: IngestConfig, quarantined: Sequence[Quarantined]) -> None:
    """End a run that is failing wholesale.

    Raises:
        InputError: more ``failures`` than ``max_failures``; it names the last one.
    """
    if config.max_failures is not None and failures > config.max_failures:
        last = quarantined[-1] if quarantined else None
        example = f"; for example '{last.id}': {last.error}: {last.message}" if last else ""
        message = f"{failures} clips failed, more than max_failures={config.max_failures}{example}"
        raise InputError(message, field="max_failures", remedy="correct the clips, or raise max_failures")


def ingest_shard(plan: ShardPlan, config: IngestConfig, out: Place, turns: Turns | None = None) -> ShardResult:
    """Decode the clips of a shard, write ``out/media/<name>.tar`` and then its ledger.

    Args:
        turns: at the sources of clips that are at addresses, shared by all workers of a run.

    Raises:
        OSError: the shard can't be written. A bad clip raises nothing: it is quarantined.
        InputError: more of them than ``max_failures`` in this shard alone; a store refuses or can't be reached.
    """
    if (done := read_ledger(ShardResult, out, plan.name, plan.digest)) is not None:
        return done
    work = _Work(plan, config, turns)
    shard = make_shard(out / "media" / f"{plan.name}.tar", work.records(), out)
    result = ShardResult(
        digest=plan.digest,
        shard=shard,
        present=work.present,
        absent=count_absent(work.metas),
        quarantined=tuple(work.quarantined),
        audio=add(work.audio),
        visual=add(work.visual),
    )
    return write_ledger(result, out, plan.name)


@dataclass
class _Work:
    """The clips of one shard on their way; what was counted meanwhile."""

    plan: ShardPlan
    config: IngestConfig
    turns: Turns | None = None
    present: dict[str, int] = field(default_factory=lambda: {"audio": 0, "visual": 0})
    metas: list[SampleMeta] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    audio: list[Moments] = field(default_factory=list)
    visual: list[Moments] = field(default_factory=list)
    failed: int = 0  # clips that lost one stream

    def records(self) -> Iterator[Record]:
        """The clips that can be decoded, as the writer takes them; the others are quarantined."""
        decoder = process_decoder(self.config.memory_mb)
        for source in sources(self.plan.clips, self.config.max_megabytes, self.config.fetch, self.turns):
            clip = source.clip
            try:
                decoded = decoder.decode(self._request(source))
            except DecodeError as error:
                self._quarantine(clip, "decode", source.told(error))
                continue
            try:
                decoded = long_enough(decoded, self.plan.partial)
            except DecodeError as error:
                self._quarantine(clip, "log-mel", error)
                continue
            members = self._members(clip, decoded)
            self.metas.append(members["json"])  # type: ignore[arg-type]
            self.failed += any(getattr(decoded, f"{m}_info").cause not in {None, *NO_FAILURE} for m in MODALITIES)
            check_budget(len(self.quarantined) + self.failed, self.config, self.quarantined)
            yield clip.key, members

    def _request(self, source: Source) -> Request:
        """Raises DecodeError: the clip's files could not be fetched."""
        lost = source.lost(self.plan.partial == "keep")
        return replace(request_for(source.here, self.config, self.plan.partial), lost=lost)

    def _members(self, clip: Clip, decoded: Decoded) -> dict[str, Member]:
        arrays = sample_arrays(decoded, self.config.keep_wave)
        statistics = self.plan.split == "train"
        if "audio" in arrays:
            self.present["audio"] += 1
            if statistics:
                self.audio.append(audio_moments(arrays["audio"]))
        if "frames" in arrays:
            self.present["visual"] += 1
            if statistics:
                self.visual.append(visual_moments(arrays["frames"]))
        return {"json": sample_meta(clip, decoded), **{f"{name}.npy": array for name, array in arrays.items()}}

    def _quarantine(self, clip: Clip, stage: str, error: DecodeError) -> None:
        path = clip.path or ";".join(filter(None, (clip.audio_path, clip.image_path)))
        self.quarantined.append(
            Quarantined(
                id=clip.id,
                path=redacted(path),
                stage=stage,
                error=error.cause,
                message=error.message,
                remedy=error.remedy,
            )
        )
        check_budget(len(self.quarantined) + self.failed, self.config, self.quarantined)


def long_enough(decoded: Decoded, partial: str) -> Decoded:
    """The clip, without a sound that is shorter than one log-mel window.

    Raises:
        DecodeError: the sound is too short, and nothing else is there or ``partial`` is "quarantine".
    """
    if decoded.audio is None or len(decoded.audio) >= WINDOW:
        return decoded
    if partial == "quarantine" or decoded.frames is None:
        raise DecodeError(TOO_SHORT, f"{len(decoded.audio) / SAMPLE_RATE * 1000:.1f} ms of sound")
    return replace(decoded, audio=None, audio_info=lost(TOO_SHORT))


def sample_arrays(decoded: Decoded, keep_wave: bool) -> dict[str, np.ndarray]:
    """What a sample holds of a clip, of the streams that are there: ``audio`` float16 [frames, 128], ``wave`` int16
    [samples] on request, ``frames`` uint8 [N, size, size, 3]."""
    arrays: dict[str, np.ndarray] = {}
    if decoded.audio is not None:
        arrays["audio"] = log_mel(decoded.audio)
        if keep_wave:
            arrays["wave"] = decoded.audio
    if decoded.frames is not None:
        arrays["frames"] = decoded.frames
    return arrays


def request_for(clip: Clip, config: IngestConfig, partial: str) -> Request:
    """What to decode of a clip, and how; ``partial``: "keep" or "quarantine"."""
    return Request(
        path=_absolute(clip.path),
        audio_path=_absolute(clip.audio_path),
        image_path=_absolute(clip.image_path),
        start=clip.start,
        duration=clip.duration,
        frames=config.frames,
        size=config.image_size,
        max_pixels=config.max_pixels,
        max_seconds=config.max_seconds,
        timeout_s=config.timeout_s,
        key_frames=config.frame_mode == "approximate",
        keep=partial == "keep",
        decoder=config.decoder,
        decoder_fallback=config.decoder_fallback,
        channel=config.channel,
        square_pixels=config.pixels == "square",
    )


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None


def sample_meta(clip: Clip, decoded: Decoded) -> SampleMeta:
    """A decoded clip's json."""
    return SampleMeta(
        key=clip.key,
        id=clip.id,
        labels=clip.labels,
        split=clip.split,
        group=clip.group,
        duration=decoded.duration,
        audio=decoded.audio_info,
        visual=decoded.visual_info,
        source_sha256=decoded.sha256,
        sample_rate=SAMPLE_RATE,
        frame_rate=FRAME_RATE,
        frame_times=decoded.frame_times,
        offset=decoded.offset,
    )


_decoders: dict[int, Decoder] = {}


def process_decoder(memory_mb: int) -> Decoder:
    """The process's decoder, shared by all shards it works on."""
    if memory_mb not in _decoders:
        _decoders[memory_mb] = Decoder(memory_mb)
    return _decoders[memory_mb]
