"""The config that all recipes share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic

from configs import Config, config_to_dict
from configs.noise import Noise
from shards.store import url_of

LANES, SHUFFLE_BUFFER = 8, 512
MAY_BE_URLS = ("data", "features", "backbone", "start", "network_from", "recovery_from")


class TrainConfig(Config):
    """What all recipes share.

    Attributes:
        recipe: its name; each recipe's own class fixes it.
        data: folder of the media shards (dataset.json), or its URL (``s3://...``).
        stream: read the shards one after the other, those of a URL through a cache of limited size, instead of each
            clip where it lies, after fetching all of a URL; another order of clips.
        lanes: with `stream`, shards that are read side by side over all workers; best a multiple of `workers` times
            `loaders`.
        shuffle_buffer: with `stream`, clips within which the order is shuffled, over all lanes.
        seed: of initial weights, order, augmentation and noise.
        epochs: passes over the training split, of every stage.
        batch_size: samples per step.
        lr: highest learning rate; it rises over `warmup`, then follows a cosine to zero.
        weight_decay: of AdamW.
        warmup: share of all steps over which the learning rate rises from zero.
        clip: largest gradient norm.
        proportion: share of the training split that is trained on (a seeded subset): no batch, mixture, frame of
            another clip, bank, slot or detector takes anything of the rest. Labels, words, answers, class counts of
            `balanced` and the statistics of standardisation are the dataset's, of the whole split.
        workers: data-parallel workers (Ray Train); `batch_size` counts over all of them. 0: this process,
            without Ray.
        cpus: CPU cores per worker; None divides the cluster's.
        gpu: one GPU per worker; None means when there is one.
        precision: arithmetic of forward and backward; `auto` is bf16 on a GPU, float32 elsewhere.
        loaders: loader processes per worker.
        save_steps: leave a resumable state behind every so many steps, too; None: after every epoch alone.
        retries: how often Ray Train starts the workers again after one failed, from the last epoch on.
    """

    by_position: ClassVar[str] = "this recipe reads clips where they lie"
    """Why a recipe refuses `stream`; empty where it doesn't."""

    recipe: str
    data: Path
    stream: bool = False
    lanes: int = pydantic.Field(default=LANES, ge=1)
    shuffle_buffer: int = pydantic.Field(default=SHUFFLE_BUFFER, ge=1)
    seed: int = 0
    epochs: int = pydantic.Field(default=10, ge=1)
    batch_size: int = pydantic.Field(default=64, ge=1)
    lr: float = pydantic.Field(default=1e-3, gt=0)
    weight_decay: float = pydantic.Field(default=0.05, ge=0)
    warmup: float = pydantic.Field(default=0.1, ge=0, lt=1)
    clip: float = pydantic.Field(default=1.0, gt=0)
    proportion: float = pydantic.Field(default=1.0, gt=0, le=1)
    workers: int = pydantic.Field(default=1, ge=0)
    cpus: int | None = pydantic.Field(default=None, ge=1)
    gpu: bool | None = None
    precision: Literal["auto", "float32", "bf16"] = "auto"
    loaders: int = pydantic.Field(default=0, ge=0)
    save_steps: int | None = pydantic.Field(default=None, ge=1)
    retries: int = pydantic.Field(default=1, ge=0)
    noise: Noise = Noise()

    @pydantic.model_validator(mode="after")
    def _streamed_alone(self) -> TrainConfig:
        if not self.stream and (self.lanes, self.shuffle_buffer) != (LANES, SHUFFLE_BUFFER):
            raise ValueError("lanes and shuffle_buffer are of stream=true")
        if self.stream and self.by_position:
            raise ValueError(f"{self.by_position}; leave stream out: shards of a URL are then fetched whole")
        return self

    @pydantic.field_serializer(*MAY_BE_URLS, mode="wrap", when_used="json", check_fields=False)
    def _with_its_slashes(self, value: Any, handler: pydantic.SerializerFunctionWrapHandler) -> Any:
        if isinstance(value, tuple):
            return [url_of(path) or str(path) for path in value]
        return url_of(value) or str(value) if isinstance(value, Path) else handler(value)

    def resolved(self) -> dict[str, Any]:
        """The settings as plain values, with the sizes that presets stand for in their place."""
        return config_to_dict(self)
