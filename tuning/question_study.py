"""A study of question answering: from clips and questions to the table of missing modalities.

corpus with questions -> media shards -> sequence features by a backbone that solos taught -> for every
network, seed and row: a run -> evaluation of all of them on the same masks. Every step keeps what an earlier
call finished.
"""

from __future__ import annotations

from pathlib import Path

from configs import config_to_dict
from configs.cluster import ray_session
from trainers.avqa.config import QuestionEvaluation
from trainers.evaluate import evaluate
from trainers.identity import config_identity
from tuning.question_data import check_data, make_sequences
from tuning.several import train_several
from tuning.steps import Stages, config_at
from tuning.study_config import QuestionStudyConfig


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
    stages = Stages(config.stages + 2)
    params = {"study": name, **config_to_dict(config.corpus)}
    with ray_session(), Store(runs).run(out.name, f"study-{name}", params, None, None, folder=out) as parent:
        features, questions = make_sequences(config, data, runs, stages, parent)
        configs = list(config.runs(data=features.absolute(), questions=questions.absolute()))
        trained = train_several(configs, runs, stages.next(), parent)
        settings = config_at("evaluate", QuestionEvaluation, config.evaluate)
        evaluate(trained, settings, out, runs, stages.next(), parent)
        parent.note((out / "results.md").read_text(encoding="utf-8"))
    return out
