"""Configs of ``avmend study``: of classification, and of question answering."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Literal, NamedTuple

import pydantic

from configs import Config
from pipelines.settings import FeatureConfig, IngestConfig
from shards.errors import nearest
from trainers.avqa.config import AVQAConfig
from trainers.config import TrainConfig
from tuning.data import Corpus, build_recipe
from tuning.question_data import QuestionData
from tuning.steps import config_at


class ClassificationStudyConfig(Config):
    """All of a study of classification.

    Attributes:
        study: which kind it is.
        corpus, ingest, features: data.
        seeds: every recipe is trained once per seed.
        recipes: by name, each a recipe's settings over its defaults; `recipe` names it where the name does
            not. The first is a `finetune`: the backbone of all others, and where a noisy one starts.
        evaluate: settings over the defaults of `trainers.classification.config.EvaluateConfig`.
    """

    study: Literal["classification"] = "classification"
    corpus: Corpus
    ingest: IngestConfig = IngestConfig()
    features: FeatureConfig = FeatureConfig()
    seeds: tuple[int, ...] = pydantic.Field(default=(0,), min_length=1)
    recipes: dict[str, dict[str, Any]] = pydantic.Field(min_length=1)
    evaluate: dict[str, Any] = pydantic.Field(default_factory=dict)

    def recipe(self, name: str, **more: Any) -> TrainConfig:
        """The config of one recipe.

        Raises:
            InputError: an unknown recipe, or a setting that it has not.
        """
        return build_recipe(f"recipes.{name}", {**self.recipes[name], **more}, name)


RunName = tuple[str, int, int | None, str]  # network, seed, training rate, row


class StudyRun(NamedTuple):
    """One training of a study.

    Attributes:
        config: of the run; `network_from` is left to be set where it starts from another one.
        name: network, seed, training rate and row of the study.
        start: name of the run that it starts from, if any.
    """

    config: AVQAConfig
    name: RunName
    start: RunName | None = None


class QuestionStudyConfig(QuestionData):
    """All of a study of question answering: its data, and what is trained on them.

    Attributes:
        study: which kind it is.
        seeds: every row is trained once per seed.
        training: settings that all runs share, over the defaults of `avqa`.
        networks: by name of the network, settings over `training`; `seeds` there replaces the seeds.
        train_rates: percent of the training clips that lack a modality, half of them the sound, half the picture
            (`train_missing`, balanced); every row is trained at each. None given: as the rows say.
        rows: by name in the tables, settings over those of the network; `label` there is another name, `start` the
            row from whose run, of the same network, seed and rate, this one's network starts (`network_from`).
        evaluate: settings over the defaults of `trainers.avqa.config.QuestionEvaluation`.
    """

    study: Literal["avqa"]
    seeds: tuple[int, ...] = pydantic.Field(default=(0,), min_length=1)
    training: dict[str, Any] = pydantic.Field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = pydantic.Field(min_length=1)
    rows: dict[str, dict[str, Any]] = pydantic.Field(min_length=1)
    train_rates: tuple[int, ...] = ()
    evaluate: dict[str, Any] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("train_rates")
    @classmethod
    def _halves(cls, rates: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [rate for rate in rates if rate % 2 or not 0 <= rate <= 100]:
            raise ValueError(f"a rate is even, as half of the clips lack either modality, and 0 to 100, not {wrong[0]}")
        return rates

    @pydantic.model_validator(mode="after")
    def _starts_are_rows(self) -> QuestionStudyConfig:
        for name, settings in self.rows.items():
            start = settings.get("start")
            if start is not None and (start not in self.rows or "start" in self.rows[start]):
                others = [row for row, own in self.rows.items() if "start" not in own]
                hint = nearest(str(start), others)
                raise ValueError(f"rows.{name}.start: no row '{start}' to start from; {hint}known: {', '.join(others)}")
        return self

    def runs(self, **given: Any) -> Iterator[StudyRun]:
        """Every run: network by network, seed by seed, rate by rate, row by row.

        Raises:
            InputError: a setting that `avqa` has not, naming its place in the study.
        """
        for network, own in self.networks.items():
            seeds = own.get("seeds", self.seeds)
            shared = laid_over(self.training, {k: v for k, v in own.items() if k != "seeds"})
            for seed, rate, (row, settings) in product(seeds, self.train_rates or (None,), self.rows.items()):
                settings = dict(settings)
                start = settings.pop("start", None)
                values = laid_over({"network": network, "label": row, **shared}, settings)
                if rate is not None:
                    values = laid_over(values, {"train_missing": half_of_each(rate)})
                where = f"networks.{network} with rows.{row}"
                config = config_at(where, AVQAConfig, {**values, **given, "seed": seed})
                of = (network, seed, rate)
                yield StudyRun(config, (*of, row), None if start is None else (*of, start))


def half_of_each(rate: int) -> dict[str, Any]:
    """`train_missing` where `rate` percent of the clips lack a modality, half of them either."""
    return {"audio": rate // 2, "visual": rate // 2, "balanced": True}


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, mapping by mapping."""
    out = dict(below)
    for name, value in above.items():
        inner = out.get(name)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        out[name] = laid_over(inner, value) if both else value  # type: ignore[arg-type]
    return out
