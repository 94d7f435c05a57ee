"""What every layout of published features has as its config."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from configs import Config
from pipelines.settings import Partial

EXECUTION = {"workers", "worker_tries"}  # how it is done, not what comes out


class ImportConfig(Config):
    """How a folder of features becomes sequence shards.

    Attributes:
        rows: time steps of a clip. All of them are kept; training takes some (`steps`).
        length: of a file with another number of rows: "exact" refuses it; "fit" cuts it, or repeats its last row, as
            the published loaders do.
        dtype: of the shards. "float32" keeps every bit, in twice the bytes.
        zeros: "absent", an array of nothing but zeros is a clip whose extraction failed, and counts as no file;
            "keep", it is features like any other, as in the published loaders.
        partial: a clip of which one modality's file is missing or wrong: "quarantine" leaves the whole clip out, for
            the file to be mended; "keep" imports the other modality and notes why this one is absent.
        unasked: clips that no question is about: "leave" them out, or "keep" them in a split of that name.
        seconds: of the clip that a row stands for.
        samples_per_shard: clips planned into one shard; a shard is the unit of work and of resuming.
        workers: Ray tasks at a time; None: two per CPU; 0: none, in this process without Ray.
        worker_tries: how often a shard is tried again after its worker process died.
    """

    rows: int | None = Field(default=None, ge=1)
    length: Literal["exact", "fit"] = "exact"
    dtype: Literal["float16", "float32"] = "float16"
    zeros: Literal["absent", "keep"] = "absent"
    partial: Partial = "quarantine"
    unasked: Literal["leave", "keep"] = "leave"
    seconds: float = Field(default=1.0, gt=0)
    samples_per_shard: int = Field(default=16, ge=1)
    workers: int | None = Field(default=None, ge=0)
    worker_tries: int = Field(default=2, ge=0)

    def content(self) -> dict[str, Any]:
        """The fields that decide what the shards hold; a resumed import must have the same."""
        return self.model_dump(mode="json", exclude=EXECUTION)
