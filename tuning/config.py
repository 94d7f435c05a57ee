"""Configs of ``avmend sweep``: data, a recipe, a search space, and how it is searched."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from configs import PRESET_FOLDER, Config
from configs.presets import sweep_names
from pipelines.settings import FeatureConfig, IngestConfig
from shards.errors import InputError, nearest
from shards.schema import DatasetInfo
from trainers.config import TrainConfig
from trainers.recipe import Recipe
from trainers.recipes import RECIPES
from tuning.data import Corpus, build_recipe, find_recipe
from tuning.question_data import QuestionData, check_data
from tuning.space import Axis, Params

SWEEPS = PRESET_FOLDER / "sweeps"
Cost = Literal["trained", "epoch_seconds", "train_seconds", "peak_memory_mb"]


class Data(Config):
    """What the trials train on; made once, before them.

    Attributes:
        corpus: clips to make and ingest.
        ingest: how clips become media shards.
        media: folder of media shards that are there already, instead of `corpus`; for recipes of question
            answering that of sequence features, about which `settings.questions` asks.
        question_data: for recipes of question answering, instead of either: clips, their questions and features.
        before: setting of the recipe -> settings of the recipe whose run it names: `backbone: {recipe:
            finetune, ...}`. They are trained once, in this order; a later one that has an earlier one's
            setting gets it too.
        features: how the features of the trials' backbones are extracted, for every depth that they need.
    """

    corpus: Corpus | None = None
    ingest: IngestConfig = IngestConfig()
    media: Path | None = None
    question_data: QuestionData | None = None
    before: dict[str, dict[str, Any]] = pydantic.Field(default_factory=dict)
    features: FeatureConfig = FeatureConfig()

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> Data:
        if sum(source is not None for source in (self.corpus, self.media, self.question_data)) != 1:
            raise ValueError("give one of corpus (clips to make), media (shards that are there), question_data")
        return self


class Search(Config):
    """How the space is searched.

    Attributes:
        method: every point of the grid; random draws; or Optuna's TPE, which learns from what it has seen.
        trials: how many draws (random: each crossed with the grid axes) or trials (tpe).
        seed: of the draws.
        metric: what counts: a metric of the recipe's epochs, the mean over its stages of the last epoch's; of clips
            with several labels `val_mAP`. Of
            question answering also `val_accuracy_mean`: complete, without sound, without picture.
        mode: whether more or less of it is better.
        cost: with tpe, a second objective, to be small.
    """

    method: Literal["grid", "random", "tpe"] = "grid"
    trials: int = pydantic.Field(default=1, ge=1)
    seed: int = pydantic.Field(default=0, ge=0)
    metric: str = "val_accuracy"
    mode: Literal["max", "min"] = "max"
    cost: Cost | None = None


class EarlyStop(Config):
    """ASHA (Li et al., MLSys 2020): at rungs `grace`, `grace` * `reduction`, ... only the best go on.

    Attributes:
        grace: epochs, counted over all stages, that every trial gets.
        reduction: one in so many goes on.
    """

    grace: int = pydantic.Field(default=1, ge=1)
    reduction: float = pydantic.Field(default=3.0, gt=1)


class AnswerProtocol(Config):
    """What finished trials of `avqa` answer in the end; it chooses nothing.

    Attributes:
        split: whose questions.
        steps: also with so many steps of the diffusion, instead of those trained with.
        batch_size: of the forward passes.
    """

    split: str = "test"
    steps: tuple[Annotated[int, pydantic.Field(ge=1)], ...] = ()
    batch_size: int = pydantic.Field(default=64, ge=1)


class SweepConfig(Config):
    """All of a sweep.

    Attributes:
        recipe: what is trained, as in `avmend train`.
        settings: of the recipe, over its defaults, the same for every trial.
        space: dotted setting -> its axis; the seed is a setting like any other.
        data, search, early_stop, protocol: see there.
        gpus: GPUs per worker, where there are any; a share lets several trials use one.
        retries: how often a trial starts again, from its last epoch, after its process died.
    """

    recipe: str
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)
    space: dict[str, Axis] = pydantic.Field(min_length=1)
    data: Data
    search: Search = Search()
    early_stop: EarlyStop | None = None
    protocol: AnswerProtocol = AnswerProtocol()
    gpus: float = pydantic.Field(default=1.0, gt=0)
    retries: int = pydantic.Field(default=2, ge=0)

    def trial(self, params: Params, **given: Any) -> TrainConfig:
        """The recipe's config for one point of the space.

        A trial that says nothing of CPUs has one per worker, so that the sweep's width comes from the
        cluster alone.

        Args:
            given: settings that the sweep makes: data, questions, and the runs of `data.before`.

        Raises:
            InputError: an unknown recipe, or a setting that it has not.
        """
        settings = {"recipe": self.recipe, "cpus": 1, **self.settings, **given}
        try:
            return build_recipe("settings", _laid_over(settings, params))
        except InputError as error:
            raise _in_space(error, params) from None

    def total(self) -> int:
        """How many trials the search has."""
        cells = math.prod(len(axis.grid or "x") for axis in self.space.values())
        return cells if self.search.method == "grid" else cells * self.search.trials

    def kind(self) -> Recipe:
        """The recipe.

        Raises:
            InputError: there is no such recipe.
        """
        return find_recipe("recipe", self.recipe)

    def placeholders(self) -> dict[str, str]:
        """Stand-ins for what the sweep makes, to build a trial's config before it is there."""
        made = ("data", "questions") if self.data.question_data is not None else ("data",)
        return dict.fromkeys((*made, *self.data.before), ".")


def _laid_over(settings: dict[str, Any], params: Params) -> dict[str, Any]:
    """Settings with dotted ones put in their places."""
    out = {k: dict(v) if isinstance(v, dict) else v for k, v in settings.items()}
    for name, value in params.items():
        inner, *more = name.split(".")
        if more:
            held = out.get(inner)
            out[inner] = _laid_over(held if isinstance(held, dict) else {}, {".".join(more): value})
        else:
            out[inner] = value
    return out


def _in_space(error: InputError, params: Params) -> InputError:
    """The error of a trial's setting, said of the axis that it came from."""
    name, said = (error.field or "").removeprefix("settings."), error.message
    if name == "settings":  # of several together: "{...} does not fit: recovery_sizes: unknown size ..."
        said = said.rpartition(" does not fit: ")[2]
        name = next((axis for axis in params if said.startswith(f"{axis.partition('.')[0]}:")), name)
    axis = next((axis for axis in params if name == axis or name.startswith(f"{axis}.")), None)
    if axis is None:
        return error
    return InputError(said, field=f"space.{axis}", remedy=error.remedy)


def find_sweep(name: str) -> Path:
    """The file of a sweep: a path, or a preset's name.

    Raises:
        InputError: there is none.
    """
    for path in (Path(name), SWEEPS / f"{name}.yaml"):
        if path.is_file():
            return path.resolve()
    known = sweep_names()
    hint = nearest(name, known)
    raise InputError(f"no sweep '{name}'", remedy=f"{hint}give a file's path or one of: {', '.join(known)}")


def check(config: SweepConfig) -> None:
    """Build the config of every listed value and every end of a range, so that a typo costs no hour.

    Raises:
        InputError: as `SweepConfig.trial`; a search that does not go with the space; no such source.
    """
    config.kind()
    _check_data(config)
    for name, settings in config.data.before.items():
        _check_before(config, name, settings)
    for params in corners(config):
        config.trial(params, **config.placeholders())
    _check_search(config)
    _check_early_stop(config)
    if config.data.corpus is not None:
        config.data.corpus.check_source("data.corpus")
    if config.data.question_data is not None:
        check_data(config.data.question_data, "data.question_data.")


def _check_data(config: SweepConfig) -> None:
    """The kind of data that the recipe trains on."""
    asks = "questions" in config.kind().task.given
    if asks and config.data.corpus is not None:
        remedy = "give data.question_data: clips with questions, and how their features are made"
        raise InputError(f"{config.recipe} trains on questions", field="data.corpus", remedy=remedy)
    if not asks and config.data.question_data is not None:
        remedy = "give data.corpus, or a recipe of question answering"
        raise InputError(f"{config.recipe} asks no questions", field="data.question_data", remedy=remedy)


def check_inputs(config: SweepConfig) -> None:
    """Look at the data that are there already, before any is made and any trial begins.

    Raises:
        InputError: media or features missing, or of the wrong kind; no split that the trials are chosen by.
    """
    recipe, corpus, media = config.kind(), config.data.corpus, config.data.media
    asks = "questions" in recipe.task.given
    if media is not None:
        info = DatasetInfo.load(media)
        if (info.kind == "features") != asks:
            remedy = f"give the folder of {recipe.task.data}"
            raise InputError(f"these are {info.kind} shards", file=media, field="data.media", remedy=remedy)
        if not asks:
            check_validation(config, info.splits, media)
    if corpus is not None and corpus.kind == "manifest":
        from pipelines.manifest import stream_manifest

        source = Path(corpus.settings.model_dump()["source"])
        check_validation(config, sorted({clip.split for clip in stream_manifest(source)}), source)


def check_validation(config: SweepConfig, splits: Collection[str], source: Path) -> None:
    """Refuse data without a validation split where trials are chosen by a validation metric.

    Raises:
        InputError: names the split that is most like `val`.
    """
    if config.search.metric.startswith("val_") and "val" not in splits:
        remedy = f"{nearest('val', splits)}name the split `val` in the manifest, or set search.metric=loss"
        message = f"has no split 'val', and trials are chosen by {config.search.metric}"
        raise InputError(message, file=source, field="split", remedy=remedy)


def corners(config: SweepConfig) -> list[Params]:
    """A first point of the space, and those that differ from it in one axis: listed values, both ends."""
    first: Params = {name: axis.probes()[0] for name, axis in config.space.items()}
    others = ((name, value) for name, axis in config.space.items() for value in axis.probes()[1:])
    return [first, *({**first, name: value} for name, value in others)]


def _check_before(config: SweepConfig, name: str, settings: dict[str, Any]) -> None:
    fields = config.kind().config.model_fields
    if name not in fields:
        hint = nearest(name, fields)
        remedy = f"{hint}name a setting of {config.recipe} that takes a run's folder"
        raise InputError(f"{config.recipe} has no setting '{name}'", field="data.before", remedy=remedy)
    build_before(config.data, name, settings, {name: Path() for name in config.placeholders()})


def build_before(data: Data, name: str, settings: dict[str, Any], made: dict[str, Path]) -> TrainConfig:
    """The config of a run that the trials start from; `made` are data, questions and the runs before it.

    Raises:
        InputError: an unknown recipe, or a setting that it has not.
    """
    field = f"data.before.{name}"
    kind = RECIPES.get(str(settings.get("recipe", "finetune")))
    fields = kind.config.model_fields if kind is not None else {}
    earlier = itertools.takewhile(lambda n: n != name, data.before)
    there = [n for n in ("questions", *earlier) if n in made]
    given = {n: made[n] for n in there if n in fields and n not in settings}
    return build_recipe(field, {"recipe": "finetune", "data": made["data"], **given, **settings})


def _check_search(config: SweepConfig) -> None:
    search, space = config.search, config.space
    if search.cost is not None and search.method != "tpe":
        raise InputError("only tpe weighs a cost", field="search.cost", remedy="set search.method=tpe")
    for name, axis in space.items():
        if search.method == "grid" and axis.grid is None:
            remedy = "list its values as a grid, or set search.method to random or tpe"
            raise InputError("a grid search needs grids", field=f"space.{name}", remedy=remedy)
        if search.method == "tpe" and axis.grid is not None:
            remedy = "make it a choice or a range; what is the same for all belongs into settings"
            raise InputError("tpe takes no grids", field=f"space.{name}", remedy=remedy)
    if search.method == "tpe":
        _need_optuna()


def _need_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        remedy = "pip install 'avmend[optuna]', or set search.method=random"
        raise InputError("tpe needs Optuna", field="search.method", remedy=remedy) from None


def _check_early_stop(config: SweepConfig) -> None:
    """Trials stopped early are compared epoch by epoch, so they must have the same epochs to go."""
    for name in ("epochs", "cases"):
        if config.early_stop is not None and name in config.space:
            message = "its trials can't be compared epoch by epoch"
            remedy = f"leave early_stop out, or {name} out of the space"
            raise InputError(message, field=f"space.{name}", remedy=remedy)
