"""The steps from clips to shards and backbones that studies and sweeps share, and recipes from settings."""

from __future__ import annotations

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
from pydantic_core import InitErrorDetails

from configs import Config, config_hash, digest
from pipelines.corpora.corpus import Corpus as CorpusRecord
from pipelines.corpora.corpus import CorpusConfig, StartProgress, Summary
from pipelines.corpora.options import field_names
from pipelines.corpora.registry import corpora
from pipelines.settings import IngestConfig
from shards.errors import InputError, nearest
from shards.progress import Progress
from trainers.config import TrainConfig
from trainers.recipe import Recipe
from trainers.recipes import RECIPES
from tuning.steps import Stages, config_at


class Corpus(Config):
    """The clips of a study or a sweep: a registered corpus with its settings beside its name, or your manifest.

    Attributes:
        kind: name of a corpus (`avmend corpus --help` lists them), or `manifest`.
        split: which of its ways to split the clips; None: the usual one.
        settings: the corpus's own; in files they stand beside `kind`.
    """

    kind: str = "scenes"
    split: str | None = None
    settings: pydantic.SerializeAsAny[CorpusConfig]

    @pydantic.model_validator(mode="before")
    @classmethod
    def _settings_by_name(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "settings" in values:
            return values
        kind = values.get("kind", cls.model_fields["kind"].default)
        known = kinds()
        _one_of("kind", kind, known)
        names = field_names(known[kind].config)
        outer = {"kind", "split"} - {*names}  # a corpus may have a setting `split` of its own
        split = values.get("split") if "split" in outer else None
        if split is not None:
            _one_of("split", split, known[kind].splits)
        own = {name: value for name, value in values.items() if name not in outer}
        for name in own:
            _one_of(name, name, names)
        return {"kind": kind, "split": split, "settings": known[kind].config.model_validate(own)}

    @pydantic.model_serializer(mode="plain")
    def _beside_the_name(self) -> dict[str, Any]:
        return {"kind": self.kind, "split": self.split, **self.settings.content()}

    @property
    def record(self) -> CorpusRecord[Any]:
        """The registered corpus."""
        return kinds()[self.kind]

    def check_source(self, field: str) -> None:
        """Refuse a source that is not there; `field` is where the config holds this one.

        Raises:
            InputError: no such path.
        """
        for name in ("source", "questions"):
            path = getattr(self.settings, name, None)
            if isinstance(path, Path) and not path.exists():
                remedy = "correct the path, or fetch the data"
                raise InputError("there is nothing here", file=path, field=f"{field}.{name}", remedy=remedy)


class Files(NamedTuple):
    """What a corpus is on disk; None: it has none.

    Attributes:
        manifest, questions: of the clips.
        targets: dense ones, of all clips.
    """

    manifest: Path
    questions: Path | None = None
    targets: Path | None = None


class ManifestConfig(CorpusConfig):
    """Clips of your own."""

    source: Path
    """Path of the manifest."""
    questions: Path | None = None
    """Path of the questions about them."""


def kinds() -> dict[str, CorpusRecord[Any]]:
    """The corpora that studies may name: the registered ones, and `manifest`."""
    return {**corpora(), "manifest": CorpusRecord(ManifestConfig, _own_files, asks=True)}


def _own_files(config: ManifestConfig, out: Path, progress: StartProgress) -> Summary:
    questions = {} if config.questions is None else {"default": config.questions}
    return Summary(0, {"default": config.source}, questions)


def _one_of(field: str, value: Any, names: Collection[str]) -> None:
    """Refuse a value that is none of `names`, in the way of pydantic's Literal."""
    if not isinstance(value, str) or value not in names:
        expected = " or ".join(f"'{name}'" for name in names)
        error = InitErrorDetails(type="literal_error", loc=(field,), input=value, ctx={"expected": expected})
        raise pydantic.ValidationError.from_exception_data("Corpus", [error])


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
    return folder_of_shards(config_hash(corpus), settings, data)


def folder_of_shards(clips: str, settings: IngestConfig, data: Path) -> Path:
    """Where the media shards of some clips are: the settings count that decide what shards hold, no others."""
    return data / f"shards-{clips}-{digest({**settings.content(), 'partial': settings.partial})}"


def corpus_folder(config: Corpus, data: Path) -> Path:
    """Where the clips of a corpus that is made are."""
    return data / f"{config.kind}-{config_hash(config)}"


def make_corpus(config: Corpus, data: Path, stage: str | None = None) -> Path:
    """The manifest of a corpus's clips, which are made if they are not there.

    Raises:
        InputError: no such source; the clips' media are not here.
    """
    return make_files(config, data, stage).manifest


def make_files(config: Corpus, data: Path, stage: str | None = None) -> Files:
    """The files of a corpus, which are made if they are not there.

    Raises:
        InputError: no such source; the clips' media are not here.
    """
    out = corpus_folder(config, data)
    progress = functools.partial(Progress, config.kind, stage=stage)
    summary = config.record.build(config.settings, out, progress)
    split = config.split or config.record.splits[0]
    if split not in summary.manifests:
        message = f"the corpus {config.kind} has no manifest: it was made without media"
        raise InputError(message, field="corpus", remedy="give the folder of its videos, as videos=FOLDER")
    return Files(summary.manifests[split], summary.questions.get(split), summary.targets)


def build_recipe(field: str, settings: dict[str, Any], name: str = "") -> TrainConfig:
    """A recipe's config from the settings that a study or a sweep holds at `field`.

    Args:
        settings: of the recipe, over its defaults; `recipe` names it, else `name` does.

    Raises:
        InputError: an unknown recipe, or a setting that it has not.
    """
    settings = dict(settings)
    kind = settings.pop("recipe", name)
    return config_at(field, find_recipe(field, kind).config, settings)


def find_recipe(field: str, name: Any) -> Recipe:
    """The recipe that `field` names.

    Raises:
        InputError: there is no such recipe.
    """
    if name not in RECIPES:
        hint = nearest(str(name), RECIPES)
        where = field if field == "recipe" else f"{field}.recipe"
        remedy = f"{hint}set {where} to one of {', '.join(RECIPES)}"
        raise InputError(f"unknown recipe '{name}'", field=field, remedy=remedy)
    return RECIPES[name]
