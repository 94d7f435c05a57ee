"""Config of ``avmend ingest``."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from configs import Config

# What may differ between two runs over one folder: how it is done, not what comes out.
EXECUTION = {"timeout_s", "memory_mb", "max_failures", "workers", "worker_tries"}


class IngestConfig(Config):
    """How clips become media shards.

    Attributes:
        frames: uniform frames per clip.
        image_size: pixels, height and width of a frame after scaling and centre crop.
        samples_per_shard: clips planned into one shard; a shard is the unit of work and of resuming.
        keep_wave: also store the 16 kHz waveform (other audio front ends and noise at an SNR need it).
        labels: fixed label vocabulary; empty: the train split's labels, sorted.
        max_pixels: of one source frame; larger clips are quarantined.
        max_seconds: of sound; longer clips are quarantined (give them a start and duration).
        timeout_s: seconds that decoding one clip may take.
        memory_mb: MiB that decoding one clip may take; 0: no limit.
        max_failures: stop the run once more clips than this are quarantined; ``None``: never.
        workers: Ray tasks at a time; ``None``: one per CPU; 0: none, in this process without Ray.
        worker_tries: how often a shard is tried again after its worker process died.
    """

    frames: int = Field(default=10, ge=1)
    image_size: int = Field(default=224, ge=8)
    samples_per_shard: int = Field(default=64, ge=1)
    keep_wave: bool = False
    labels: tuple[str, ...] = ()
    max_pixels: int = Field(default=40_000_000, ge=1)
    max_seconds: float = Field(default=600.0, gt=0)
    timeout_s: float = Field(default=30.0, gt=0)
    memory_mb: int = Field(default=4096, ge=0)
    max_failures: int | None = Field(default=None, ge=0)
    workers: int | None = Field(default=None, ge=0)
    worker_tries: int = Field(default=2, ge=0)

    def content(self) -> dict[str, Any]:
        """The fields that decide what the shards hold; a resumed run must have the same."""
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in EXECUTION}
