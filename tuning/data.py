"""The steps from clips to shards and backbones that studies and sweeps share, and recipes from settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pydantic

from configs import Config, config_hash
from pipelines.corpora.public.avdigits import build_avdigits, choose, find_recordings
from pipelines.corpora.synthetic.scenes import ScenesConfig, build_scenes
from pipelines.settings import IngestConfig
from shards.errors import InputError, nearest
from shards.progress import Progress
from trainers.config import TrainConfig
from trainers.recipe_configs import CONFIGS
from tuning.steps import Stages, config_at


class Corpus(Config):
    """The clips of a study or a sweep.

    Attributes:
        kind: `scenes` is drawn here; `avdigits` is built from its `source`; `manifest` is yours.
        clips: how many (scenes), or at most (avdigits).
        seed: of the drawing, or of the pairing.
        source: folder of AV-Digits' recordings, or the path of a manifest.
        split: which of AV-Digits' manifests.
    """

    kind: Literal["scenes", "avdigits", "manifest"] = "scenes"
    clips: int | None = pydantic.Field(default=None, ge=1)
    seed: int = 0
    source: Path | None = None
    split: Literal["official", "speakers"] = "official"

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Corpus:
        if self.kind == "scenes" and self.clips is None:
            raise ValueError("scenes needs clips: how many to draw")
        if self.kind != "scenes" and self.source is None:
            raise ValueError(f"{self.kind} needs source")
        return self

    def check_source(self, field: str) -> None:
        """Refuse a source that is not there; `field` is where the config holds this one.

        Raises:
            InputError: no such path.
        """
        if self.source is not None and not self.source.exists():
            remedy = "correct the path, or fetch the data"
            raise InputError("there is nothing here", file=self.source, field=f"{field}.source", remedy=remedy)


def make_shards(corpus: Corpus, settings: IngestConfig, data: Path, stages: Stages) -> Path:
    """The media shards of a corpus, in the folder of `data` that both configs name: two stages.

    Raises:
        InputError: no such source, or what ingestion refuses.
    """
    from pipelines.ingest import ingest  # here, for help without torch

    manifest = make_corpus(corpus, data, stages.next())
    shards = shards_folder(corpus, settings, data)
    ingest(manifest, shards, settings, stage=stages.next())
    return shards


def shards_folder(corpus: Config, settings: IngestConfig, data: Path) -> Path:
    """Where the media shards of a corpus are."""
    return data / f"shards-{config_hash(corpus)}-{config_hash(settings)}"


def corpus_folder(config: Corpus, data: Path) -> Path:
    """Where the clips of a corpus that is made are."""
    return data / f"{config.kind}-{config_hash(config)}"


def make_corpus(config: Corpus, data: Path, stage: str | None = None) -> Path:
    """The manifest of a corpus's clips, which are made if they are not there.

    Raises:
        InputError: no such source.
    """
    assert config.source is not None or config.kind == "scenes"
    out = corpus_folder(config, data)
    jobs = os.cpu_count() or 1
    if config.kind == "manifest":
        assert config.source is not None
        return config.source
    if config.kind == "avdigits":
        assert config.source is not None
        total = len(choose(find_recordings(config.source), config.clips, config.seed))
        with Progress("avdigits", total, stage=stage) as progress:
            manifests = build_avdigits(
                config.source, out, limit=config.clips, seed=config.seed, jobs=jobs, advance=progress.advance
            )
        return next(m for m in manifests if Path(m).stem == config.split)
    assert config.clips is not None
    with Progress("scenes", config.clips, stage=stage) as progress:
        return build_scenes(out, ScenesConfig(config.clips, config.seed), jobs=jobs, advance=progress.advance)


def build_recipe(field: str, settings: dict[str, Any], name: str = "") -> TrainConfig:
    """A recipe's config from the settings that a study or a sweep holds at `field`.

    Args:
        settings: of the recipe, over its defaults; `recipe` names it, else `name` does.

    Raises:
        InputError: an unknown recipe, or a setting that it has not.
    """
    settings = dict(settings)
    kind = settings.pop("recipe", name)
    return config_at(field, recipe_kind(field, kind), settings)


def recipe_kind(field: str, name: Any) -> type[TrainConfig]:
    """The config class of a recipe that `field` names.

    Raises:
        InputError: there is no such recipe.
    """
    if name not in CONFIGS:
        where = field if field == "recipe" else f"{field}.recipe"
        remedy = f"{nearest(name, CONFIGS)}set {where} to one of {', '.join(CONFIGS)}"
        raise InputError(f"unknown recipe '{name}'", field=field, remedy=remedy)
    return CONFIGS[name]
