"""Config of ``avmend serve``; also the arguments of the application that ``serve deploy`` builds."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from configs import Config


class ServeConfig(Config):
    """Finished runs as a service.

    Attributes:
        runs: folders or addresses of finished runs; every one answers every request.
        data: the runs' shards or features, if they were moved.
        backbone: `finetune` or `dense` run behind the features of questions.
        weights: folder of public weights behind the features of questions.
        examples: folder of a few clips for the page; ``None``: three that are drawn when the service starts.
        token_file: file with the token that requests must send, mode 600; ``None``: AVMEND_SERVE_TOKEN, and
            without that requests from this machine alone are answered.
        replicas: processes that decode and answer.
        max_replicas: as many when there is much to do; ``None``: always `replicas`.
        cpus: of each replica.
        gpu: a GPU for each replica.
        decoders: clips that a replica decodes at a time, each in a process of its own.
        batch_size: clips that go through the networks together, at most.
        batch_wait_ms: milliseconds that the first clip of a batch waits for others.
        max_mb: MiB of one request.
        max_seconds: of a clip's sound.
        max_pixels: of one source frame.
        timeout_s: seconds that decoding one clip may take.
        memory_mb: MiB that decoding one clip may take; 0: no limit.
        max_requests: that are read or answered at a time; what is more is refused (status 429).
        upload_s: seconds that sending a request may take.
        request_s: seconds after which a request is given up (status 503).
        tries: replicas that may die under a request before it is given up.
    """

    runs: tuple[Path, ...] = Field(min_length=1)
    data: Path | None = None
    backbone: Path | None = None
    weights: Path | None = None
    examples: Path | None = None
    token_file: Path | None = None
    replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = Field(default=None, ge=1)
    cpus: float = Field(default=1.0, ge=0)
    gpu: bool = False
    decoders: int = Field(default=2, ge=1)
    batch_size: int = Field(default=16, ge=1)
    batch_wait_ms: float = Field(default=5.0, ge=0)
    max_mb: float = Field(default=64.0, gt=0)
    max_seconds: float = Field(default=120.0, gt=0)
    max_pixels: int = Field(default=40_000_000, ge=1)
    timeout_s: float = Field(default=20.0, gt=0)
    memory_mb: int = Field(default=4096, ge=0)
    max_requests: int = Field(default=32, ge=1)
    upload_s: float = Field(default=60.0, gt=0)
    request_s: float = Field(default=120.0, gt=0)
    tries: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> ServeConfig:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas={self.max_replicas} is below replicas={self.replicas}")
        return self

    @property
    def max_bytes(self) -> int:
        """Of one request."""
        return int(self.max_mb * (1 << 20))

    def limits(self) -> dict[str, float]:
        """What decoding one clip may take, as fields of `IngestConfig`."""
        return {name: getattr(self, name) for name in ("max_seconds", "max_pixels", "timeout_s", "memory_mb")}
