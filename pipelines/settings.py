"""Configs of ``avmend ingest`` and ``avmend features``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from configs import Config
from configs.noise import Noise
from shards.errors import nearest

# What may differ between two runs over one folder: how it is done, not what comes out.
EXECUTION = {"timeout_s", "memory_mb", "max_megabytes", "max_failures", "workers", "worker_tries", "gpu"}
EXECUTION |= {"fetch"}


# Rises when the same file becomes another sample. 1: sound and picture each from their own zero; 2: one clock.
INGESTION_REVISION = 2

NEWER = {"decoder", "decoder_fallback", "channel", "pixels"}  # than the first datasets

Partial = Literal["quarantine", "keep"]
TOKENS = "tokens"
AUDIO_ENCODERS, VISUAL_ENCODERS = ("vggish", "cavmae"), ("resnet18", "clip", "cavmae")
OF_TOKENS = {"depth", "draws", "eval_draws", "noise", "seed"}
OF_SEQUENCES = {"extractor", "pca", "side"}


class FetchConfig(Config):
    """How clips at addresses are fetched.

    Attributes:
        at_once: files that all workers together fetch from one source (a host, a bucket) at a time; ``None``: eight
            for each shard that is being made.
        per_second: requests to one source that all workers together begin in a second; ``None``: any number.
        tries: of a request that fails in a way that may pass, with growing pauses, or those that the source asks for
            (Retry-After).
    """

    at_once: int | None = Field(default=None, ge=1)
    per_second: float | None = Field(default=None, gt=0)
    tries: int = Field(default=7, ge=1)


class IngestConfig(Config):
    """How clips become media shards.

    Attributes:
        frames: uniform frames per clip.
        frame_mode: "exact", or "approximate": several times faster, from key frames alone, which lie seconds
            away from the exact ones in most files. The samples' json has the times of the frames taken.
        decoder: "pyav", by FFmpeg's libraries; "decord", which must be installed and refuses turned, cropped, deep
            and AV1 pictures; "ffmpeg", the program, which is slower.
        decoder_fallback: let PyAV decode what decord refuses.
        channel: of sound with several: "mean", mixed as ffmpeg does; "first", as CAV-MAE's loader takes; "loudest".
            Where a mean cancels, the loudest is taken, and the sample's json says so.
        pixels: "square", pictures are scaled to square pixels before they are cropped; "stored", as they are.
        image_size: pixels, height and width of a frame after scaling and centre crop.
        samples_per_shard: clips planned into one shard; a shard is the unit of work and of resuming.
        keep_wave: also store the 16 kHz waveform (other audio front ends and noise at an SNR need it).
        partial: a clip of which one stream is there and fails: "quarantine" puts the whole clip there, for
            the file to be fetched again; "keep" ingests the other stream and notes the failure as the cause
            for which this one is absent. May be changed for what is tried again, and for rows that are added.
        labels: fixed label vocabulary; empty: the train split's labels, sorted.
        max_pixels: of one source frame; larger clips are quarantined.
        max_seconds: of sound; longer clips are quarantined (give them a start and duration).
        timeout_s: seconds that decoding one clip may take.
        memory_mb: MiB that decoding one clip may take; 0: no limit.
        max_megabytes: MiB of a file that is fetched from an address; larger ones are quarantined.
        fetch: how files are fetched from addresses.
        max_failures: stop the run once more clips than this failed, in whole or in part; ``None``: never.
        workers: Ray tasks at a time; ``None``: two per CPU; 0: none, in this process without Ray.
        worker_tries: how often a shard is tried again after its worker process died.
    """

    frames: int = Field(default=10, ge=1)
    frame_mode: Literal["exact", "approximate"] = "exact"
    decoder: Literal["pyav", "decord", "ffmpeg"] = "pyav"
    decoder_fallback: bool = False
    channel: Literal["mean", "first", "loudest"] = "mean"
    pixels: Literal["square", "stored"] = "square"
    image_size: int = Field(default=224, ge=8)
    samples_per_shard: int = Field(default=64, ge=1)
    keep_wave: bool = False
    partial: Partial = "quarantine"
    labels: tuple[str, ...] = ()
    max_pixels: int = Field(default=40_000_000, ge=1)
    max_seconds: float = Field(default=600.0, gt=0)
    timeout_s: float = Field(default=30.0, gt=0)
    memory_mb: int = Field(default=4096, ge=0)
    max_megabytes: int = Field(default=1024, ge=1)
    fetch: FetchConfig = FetchConfig()
    max_failures: int | None = Field(default=None, ge=0)
    workers: int | None = Field(default=None, ge=0)
    worker_tries: int = Field(default=2, ge=0)

    def content(self) -> dict[str, Any]:
        """The fields that decide what the shards hold; a resumed run must have the same.

        Fields that older versions did not have are left out where they say what those did.
        """
        values = self.model_dump(mode="json")
        usual = {name for name in NEWER if values[name] == type(self).model_fields[name].default}
        return {k: v for k, v in values.items() if k not in EXECUTION | {"partial"} | usual}


class FeatureConfig(Config):
    """How media shards become feature shards of frozen networks.

    Attributes:
        extractor: ``tokens`` of a backbone's encoders, for training to go on from; or sequence features, one
            row per time step, for question answering: an encoder of sound and one of pictures as
            ``vggish+resnet18`` (``cavmae`` is ``cavmae+cavmae``).
        depth: encoder blocks that the tokens have passed; 0: patch embeddings alone.
        draws: noisy draws per training sample and severity kind (one ruined, both ruined).
        eval_draws: the same for the samples of all other splits.
        noise: kinds and severities.
        seed: of the noise. Depth, draws, noise and seed are of tokens alone.
        pca: post-processing of VGGish embeddings as in AudioSet's release.
        side: of the grid of places that a frame's map is averaged to; None: the network's own.
        batch_size: inputs per forward pass; it bounds the memory.
        splits: which ones to extract; ``None``: all.
        workers: Ray actors; ``None``: one per CPU (per GPU where those are used); 0: none, in this process
            without Ray.
        gpu: one GPU per actor; ``None``: when there is one. CPU and GPU round differently: keep to one of
            them within a folder.
        worker_tries: how often a shard is tried again after its actor's process died.
    """

    extractor: str = TOKENS
    depth: int = Field(default=0, ge=0)
    draws: int = Field(default=4, ge=1)
    eval_draws: int = Field(default=1, ge=1)
    noise: Noise = Noise()
    seed: int = 0
    pca: bool = False
    side: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=1)
    splits: tuple[str, ...] | None = Field(default=None, min_length=1)
    workers: int | None = Field(default=None, ge=0)
    gpu: bool | None = None
    worker_tries: int = Field(default=2, ge=0)

    @field_validator("extractor")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != TOKENS:
            encoders(name)
        return name

    @model_validator(mode="after")
    def _fits(self) -> FeatureConfig:
        foreign = OF_SEQUENCES if self.extractor == TOKENS else OF_TOKENS
        fields = type(self).model_fields
        wrong = sorted(n for n in foreign - {"extractor"} if getattr(self, n) != fields[n].default)
        if wrong:
            raise ValueError(f"{wrong[0]} is no setting of the extractor {self.extractor}")
        if self.pca and encoders(self.extractor)[0] != "vggish":
            raise ValueError(f"pca is of vggish, not of the extractor {self.extractor}")
        return self

    @property
    def needs_backbone(self) -> bool:
        """The features are of a `finetune` run's network."""
        return self.extractor == TOKENS or "cavmae" in encoders(self.extractor)

    def content(self) -> dict[str, Any]:
        """The fields that decide what the shards hold; a resumed run must have the same."""
        foreign = OF_SEQUENCES if self.extractor == TOKENS else OF_TOKENS
        values = self.model_dump(mode="json")
        return {k: v for k, v in values.items() if k not in EXECUTION | foreign}


class IngestAndExtractConfig(IngestConfig):
    """How clips become media shards, and these feature shards.

    Attributes:
        features: of each media shard as soon as it is whole; ``None``: none, unless ``--backbone`` or ``--weights``
            names networks. Where ``features.workers`` is not given, it is as ``workers``.
    """

    features: FeatureConfig | None = None

    def media(self) -> IngestConfig:
        """The ingestion's part."""
        return IngestConfig.model_validate(self.model_dump(exclude={"features"}))


def encoders(extractor: str) -> tuple[str, str]:
    """Names of the encoders of sound and of pictures.

    Raises:
        ValueError: not a known pair; names the nearest.
    """
    audio, _, visual = extractor.partition("+")
    visual = visual or audio
    if audio in AUDIO_ENCODERS and visual in VISUAL_ENCODERS:
        return audio, visual
    known = [TOKENS, "cavmae", *(f"{a}+{v}" for a in AUDIO_ENCODERS for v in VISUAL_ENCODERS if a != v)]
    hint = nearest(extractor, known)
    raise ValueError(f"{hint}choose from: {', '.join(known)}")
