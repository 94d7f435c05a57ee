"""A study of question answering: from clips and questions to the table of missing modalities.

corpus with questions -> media shards -> sequence features by a backbone that solos taught -> for every
network, seed and row: a run -> evaluation of all of them on the same masks. Every step keeps what an earlier
call finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from configs import config_to_dict
from configs.cluster import ray_session
from trainers.avqa.config import AVQAConfig, QuestionEvaluation
from trainers.evaluate import evaluate
from trainers.identity import config_identity
from trainers.train import train
from tuning.question_data import QuestionData, check_data, make_sequences
from tuning.steps import Stages, config_at
from tuning.studies import Study


class QuestionStudyConfig(QuestionData):
    """All of a study of question answering: its data, and what is trained on them.

    Attributes:
        study: which kind it is.
        seeds: every row is trained once per seed.
        training: settings that all runs share, over the defaults of `avqa`.
        networks: by name of the network, settings over `training`; `seeds` there replaces the seeds.
        rows: by name in the tables, settings over those of the network; `label` there is another name.
        evaluate: settings over the defaults of `trainers.avqa.config.QuestionEvaluation`.
    """

    study: Literal["avqa"]
    seeds: tuple[int, ...] = pydantic.Field(default=(0,), min_length=1)
    training: dict[str, Any] = pydantic.Field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = pydantic.Field(min_length=1)
    rows: dict[str, dict[str, Any]] = pydantic.Field(min_length=1)
    evaluate: dict[str, Any] = pydantic.Field(default_factory=dict)

    def runs(self, **given: Any) -> Iterator[AVQAConfig]:
        """Every run's config: network by network, seed by seed, row by row.

        Raises:
            InputError: a setting that `avqa` has not, naming its place in the study.
        """
        for network, own in self.networks.items():
            seeds = own.get("seeds", self.seeds)
            shared = laid_over(self.training, {k: v for k, v in own.items() if k != "seeds"})
            for seed in seeds:
                for row, settings in self.rows.items():
                    values = laid_over({"network": network, "label": row, **shared}, settings)
                    yield config_at(
                        f"networks.{network} with rows.{row}", AVQAConfig, {**values, **given, "seed": seed}
                    )


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, mapping by mapping."""
    out = dict(below)
    for name, value in above.items():
        inner = out.get(name)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        out[name] = laid_over(inner, value) if both else value  # type: ignore[arg-type]
    return out


def check(config: QuestionStudyConfig) -> None:
    """Build every run's config, so that a typo costs no hour.

    Raises:
        InputError: a setting that is none; a source that is not there.
    """
    list(config.runs(data=".", questions="."))
    config_at("evaluate", QuestionEvaluation, config.evaluate)
    check_data(config)


def question_study(name: str, config: QuestionStudyConfig, data: Path, runs: Path) -> Path:
    """Run a study to its end; arguments, result and errors as `tuning.classification_study.classification_study`."""
    from trainers.tracking import Store

    check(config)
    runs = runs.absolute()
    out = runs / f"{name}-{config_identity(config)}"
    total = sum(1 for _ in config.runs(data=".", questions="."))
    stages = Stages(config.stages + total + 1)
    params = {"study": name, **config_to_dict(config.corpus)}
    with ray_session(), Store(runs).run(out.name, f"study-{name}", params, None, None, folder=out) as parent:
        features, questions = make_sequences(config, data, runs, stages, parent)
        trained = [
            train(run, runs, stages.next(), parent)
            for run in config.runs(data=features.absolute(), questions=questions.absolute())
        ]
        settings = config_at("evaluate", QuestionEvaluation, config.evaluate)
        evaluate(trained, settings, out, runs, stages.next(), parent)
        parent.note((out / "results.md").read_text(encoding="utf-8"))
    return out


STUDY = Study(QuestionStudyConfig, question_study)
