"""Config of ``avmend audit``: how clips are measured, and from which value on something is flagged."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from configs import Config

MEASURING = ("frames", "image_size", "max_pixels", "max_seconds")


class AuditConfig(Config):
    """How a corpus is audited. Measuring, which takes the time, depends on the first few fields alone: the same
    command with other thresholds measures nothing anew.

    Attributes:
        frames: uniform frames per clip of a manifest (shards have theirs).
        image_size: pixels of such a frame, height and width.
        clips_per_part: clips of a manifest measured in one piece; a piece is the unit of work and of resuming.
        max_pixels: of one source frame; larger clips are flagged as failed.
        max_seconds: of sound; longer clips are flagged as failed.
        timeout_s: seconds that decoding one clip may take.
        memory_mb: MiB that decoding one clip may take; 0: no limit.
        workers: Ray tasks at a time; ``None``: two per CPU; 0: none, in this process without Ray.
        worker_tries: how often a part is tried again after its worker process died.
        silence_db: dB re full scale; silent: what 2 % of the log-mel frames exceed is below.
        steady: nepers (1 is 4.3 dB of power); constant_audio: loud mel bins deviate less over time. Steady white
            noise has 0.7.
        clipped: share of samples; clipped: more lie on the plateau at the peak.
        cancelled_db: dB; cancelled_stereo: the mix is so much weaker than its channels (uncorrelated ones: 3).
        short_s: seconds; short_audio, short_visual: the stream is shorter.
        length_s: seconds; length_differs: sound and picture differ by more.
        offset_s: seconds; clock_offset: the streams begin further apart.
        black: levels of 255; black: what 1 % of a frame exceeds is below, in all frames.
        flat: levels of 255; constant_visual: brightness within a frame deviates less, in all frames, and they
            are alike.
        frozen: levels of 255; frozen: no frame differs more from the one before.
        blurred: 0 (sharp) to 1; blurred: the measure is higher.
        agreement: -1 to 1; low_agreement: the estimate is lower. ``None``: no clip is flagged by it.
        near_audio: correlation; duplicate_audio: the sounds' is at least this.
        near_visual: the same for pictures of the same extent.
        near_crop: the same for pictures of which one is a crop of the other.
        both_audio, both_visual: what is enough for sound and picture where it holds for both.
        supported_audio: what is enough for the sound where the pictures are the same without cropping.
        supported_visual: what is enough for the pictures where the sounds are the same by themselves.
        tables: sorted orders of the hashes in which neighbours are compared; more find more.
        neighbours: on either side, in each order.
        distance: bits in which hashes may differ for their clips to be compared.
        candidates: nearest clips, at most, that a clip is compared with, by sound and by picture each.
        seed: of the orders.
        examples: clips shown in audit.html per flag.
    """

    frames: int = Field(default=10, ge=1)
    image_size: int = Field(default=224, ge=32)
    clips_per_part: int = Field(default=128, ge=1)
    max_pixels: int = Field(default=40_000_000, ge=1)
    max_seconds: float = Field(default=600.0, gt=0)
    timeout_s: float = Field(default=30.0, gt=0)
    memory_mb: int = Field(default=4096, ge=0)
    workers: int | None = Field(default=None, ge=0)
    worker_tries: int = Field(default=2, ge=0)
    silence_db: float = -60.0
    steady: float = Field(default=0.25, ge=0)
    clipped: float = Field(default=0.005, ge=0)
    cancelled_db: float = Field(default=10.0, ge=0)
    short_s: float = Field(default=0.3, ge=0)
    length_s: float = Field(default=0.5, ge=0)
    offset_s: float = Field(default=0.1, ge=0)
    black: float = Field(default=20.0, ge=0)
    flat: float = Field(default=2.0, ge=0)
    frozen: float = Field(default=3.0, ge=0)
    blurred: float = Field(default=0.32, ge=0)
    agreement: float | None = Field(default=None, ge=-1, le=1)
    near_audio: float = Field(default=0.965, ge=-1, le=1)
    near_visual: float = Field(default=0.98, ge=-1, le=1)
    near_crop: float = Field(default=0.985, ge=-1, le=1)
    both_audio: float = Field(default=0.85, ge=-1, le=1)
    both_visual: float = Field(default=0.94, ge=-1, le=1)
    supported_audio: float = Field(default=0.45, ge=-1, le=1)
    supported_visual: float = Field(default=0.9, ge=-1, le=1)
    tables: int = Field(default=24, ge=1)
    neighbours: int = Field(default=8, ge=1)
    distance: int = Field(default=8, ge=0, le=64)
    candidates: int = Field(default=6, ge=1)
    seed: int = 0
    examples: int = Field(default=8, ge=0)

    def measuring(self) -> dict[str, Any]:
        """The fields that decide what is measured; with others, parts are measured anew."""
        return {name: getattr(self, name) for name in MEASURING}
