"""What is audited, in parts: media shards as they are, or a manifest whose clips are decoded for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from models.fbank import WINDOW, log_mel
from pipelines.audit.clip import AuditClip
from pipelines.audit.settings import AuditConfig
from pipelines.audit.streams import LOUDEST_LOSS, NO_FACTS, StreamFacts, stream_facts
from pipelines.causes import NO_FAILURE, TOO_SHORT, DecodeError
from pipelines.decode import lost
from pipelines.manifest import JSON_LINES, TABLES, Clip, read_manifest
from pipelines.plan import make_plan
from pipelines.settings import IngestConfig
from pipelines.shard_job import process_decoder, request_for, sample_meta
from pipelines.sources import sources
from shards.brought import brought
from shards.causes import Cause
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DATASET_FILE, DatasetInfo, SampleMeta, ShardInfo, SplitInfo, StreamInfo, canonical_json
from shards.store import Place, place

MEASURES = 2  # raise it with whatever changes what is measured: then old parts are measured anew


@dataclass(frozen=True)
class Part:
    """Clips that are measured in one piece, and a digest of all that their measures depend on."""

    name: str
    digest: str
    size: int
    folder: Place | None = None
    split: str = ""
    shard: ShardInfo | None = None
    clips: tuple[Clip, ...] = ()

    def read(self, config: AuditConfig) -> Iterator[tuple[AuditClip, str | None]]:
        """The clips, one at a time, each with the cause of its failure if it has one.

        Raises:
            InputError: a damaged shard.
            MachineError: the machine can't decode.
        """
        return _of_shard(self) if self.shard is not None else _of_rows(self.clips, config)


def plan_parts(source: str | Place, config: AuditConfig) -> list[Part]:
    """Parts of a dataset (its media shards), or of a manifest, folder or URL, in their order.

    Raises:
        InputError: neither; a dataset of features; a wrong manifest.
    """
    source = place(source).absolute()
    if not is_manifest(source):
        return _shard_parts(source.parent if source.name == DATASET_FILE else source)
    clips = read_manifest(source)
    settings = config.measuring()
    return [
        Part(plan.name, _digest(settings, plan.digest), len(plan.clips), clips=plan.clips)
        for plan in make_plan(clips, config.clips_per_part, source.parent)
    ]


def is_manifest(source: Place) -> bool:
    """Whether it names a manifest, not a dataset."""
    if isinstance(source, Path):
        return not source.is_dir() and source.name != DATASET_FILE
    return source.suffix.lower() in (*TABLES, *JSON_LINES)


def _shard_parts(folder: Place) -> list[Part]:
    info = DatasetInfo.load(folder)
    if info.kind != "media":
        remedy = "give the folder of the media shards, as made by 'avmend ingest'"
        raise InputError(f"holds {info.kind}, not media", file=folder, remedy=remedy)
    return [
        Part(Path(shard.name).stem, _digest(shard.sha256), shard.samples, folder, split, shard)
        for split, found in info.splits.items()
        for shard in found.shards
    ]


def _digest(*of: object) -> str:
    return hashlib.sha256(canonical_json([MEASURES, *of]).encode()).hexdigest()


def _of_shard(part: Part) -> Iterator[tuple[AuditClip, str | None]]:
    """One shard's samples; no other shard's index is in memory."""
    assert part.folder is not None
    assert part.shard is not None
    alone = SplitInfo(samples=part.shard.samples, present={}, shards=(part.shard,))
    info = DatasetInfo(kind="media", preprocessing={}, labels=(), splits={part.split: alone})
    with brought(part.folder, part.shard) as here:
        data = ShardDataset(here, part.split, info=info)
        for i in range(len(data)):
            sample = data[i]
            arrays, meta = sample.arrays, sample.meta
            fbank, frames, wave = (arrays.get(name) for name in ("audio", "frames", "wave"))
            yield AuditClip(meta, fbank, frames, wave, recorded_facts(meta)), None


def recorded_facts(meta: SampleMeta) -> StreamFacts:
    """What a sample's json says of its file, where it has the fields: the streams' ``offset``, and whether the
    mean of its channels cancelled itself (``audio.channel``)."""
    cancelled = "cancelled" in (getattr(meta.audio, "channel", None) or "")
    return StreamFacts(getattr(meta, "offset", None), LOUDEST_LOSS if cancelled else None)


def _of_rows(clips: tuple[Clip, ...], config: AuditConfig) -> Iterator[tuple[AuditClip, str | None]]:
    limits = {name: getattr(config, name) for name in ("frames", "image_size", "max_pixels", "max_seconds")}
    wanted = IngestConfig(**limits, timeout_s=config.timeout_s, memory_mb=config.memory_mb)
    decoder = process_decoder(config.memory_mb)
    for source in sources(clips, wanted.max_megabytes):
        clip, request = source.clip, request_for(source.here, wanted, "keep")
        try:
            decoded = decoder.decode(replace(request, lost=source.lost(keep=True)))
        except DecodeError as error:
            yield AuditClip(_undecoded(clip, error.cause), None, None), str(source.told(error))
            continue
        if decoded.audio is not None and len(decoded.audio) < WINDOW:
            decoded = replace(decoded, audio=None, audio_info=lost(TOO_SHORT))
        fbank = log_mel(decoded.audio) if decoded.audio is not None else None
        path = request.path or request.audio_path
        facts = NO_FACTS
        if path and fbank is not None:
            facts = stream_facts(path, request.span, max_seconds=config.max_seconds, timeout=config.timeout_s)
        meta = sample_meta(clip, decoded)
        if (offset := recorded_facts(meta).offset) is not None:
            facts = replace(facts, offset=offset)
        causes = [f"{m}: {i.cause}" for m, i in (("audio", meta.audio), ("visual", meta.visual)) if _failed(i)]
        yield AuditClip(meta, fbank, decoded.frames, decoded.audio, facts), "; ".join(causes) or None


def _failed(info: StreamInfo) -> bool:
    return info.cause not in {None, *NO_FAILURE}


def _undecoded(clip: Clip, cause: Cause) -> SampleMeta:
    gone = StreamInfo(present=False, cause=cause)
    return SampleMeta(
        key=clip.key,
        id=clip.id,
        labels=clip.labels,
        split=clip.split,
        group=clip.group,
        duration=0.0,
        audio=gone,
        visual=gone,
        source_sha256="",
    )
