"""A study of question answering: from clips and questions to the table of missing modalities.

corpus with questions -> media shards -> sequence features by a backbone that solos taught -> for every
network, seed and row: a run -> evaluation of all of them on the same masks. Every step keeps what an earlier
call finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs import config_to_dict
from configs.cluster import ray_session
from shards.store import Place, PlaceT
from trainers.avqa.config import QuestionEvaluation
from trainers.evaluate import evaluate
from trainers.identity import config_identity
from tuning.question_data import check_data, make_sequences
from tuning.several import train_several
from tuning.steps import Stages, config_at, open_study
from tuning.study_config import QuestionStudyConfig, RunName, StudyRun


def check(config: QuestionStudyConfig) -> None:
    """Build every run's config, so that a typo costs no hour.

    Raises:
        InputError: a setting that is none; a source that is not there.
    """
    list(config.runs(data=".", questions="."))
    config_at("evaluate", QuestionEvaluation, config.evaluate)
    check_data(config)


def question_study(name: str, config: QuestionStudyConfig, data: Path, runs: PlaceT) -> PlaceT:
    """Run a study to its end; arguments, result and errors as `tuning.classification_study.classification_study`."""
    check(config)
    runs = runs.absolute()
    out = runs / f"{name}-{config_identity(config)}"
    stages = Stages(config.stages + 3)
    params = {"study": name, **config_to_dict(config.corpus)}
    with open_study(name, out, params, ray_session()) as (here, parent):
        features, questions = make_sequences(config, data, runs, stages, parent)
        trained = _train_all(config, runs, stages, parent, data=features.absolute(), questions=questions.absolute())
        settings = config_at("evaluate", QuestionEvaluation, config.evaluate)
        evaluate(trained, settings, here, runs, stages.next(), parent)
        parent.note((here / "results.md").read_text(encoding="utf-8"))
    return out


def _train_all(config: QuestionStudyConfig, runs: Place, stages: Stages, parent: Any, **given: Path) -> list[Place]:
    """The folders of all runs in the study's order: first those that start from nothing, then those that start from
    one of them."""
    planned = list(config.runs(**given))
    first = [run for run in planned if run.start is None]
    folders = dict(zip([run.name for run in first], _train(first, {}, runs, stages, parent), strict=True))
    second = [run for run in planned if run.start is not None]
    folders |= zip([run.name for run in second], _train(second, folders, runs, stages, parent), strict=True)
    return [folders[run.name] for run in planned]


def _train(
    planned: Sequence[StudyRun], folders: Mapping[RunName, Place], runs: Place, stages: Stages, parent: Any
) -> list[Place]:
    starts = {name: Path(str(where)) for name, where in folders.items()}
    configs = [
        run.config if run.start is None else run.config.model_copy(update={"network_from": starts[run.start]})
        for run in planned
    ]
    return train_several(configs, runs, stages.next(), parent)
