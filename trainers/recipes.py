"""The registry of recipes: the only place that names a task."""

from __future__ import annotations

from typing import Any

from trainers.avqa import config as avqa_config
from trainers.avqa import evaluate as avqa_evaluate
from trainers.avqa import predict as avqa_predict
from trainers.avqa import results as avqa_results
from trainers.avqa import stages as avqa_stages
from trainers.avqa.clips import media_name
from trainers.classification import config as classification_config
from trainers.classification import evaluate as classification_evaluate
from trainers.classification import predict as classification_predict
from trainers.classification import results as classification_results
from trainers.classification import stages as classification_stages
from trainers.config import TrainConfig
from trainers.recipe import Recipe, Task, single_stage

CLASSIFICATION = Task(
    name="classification",
    data="media shards",
    given=("data",),
    evaluation=classification_evaluate.EvaluateConfig,
    evaluate=classification_evaluate.prepare,
    row=classification_results.Row,
    summarise=classification_results.summarise,
    experiment=lambda config: config.data.name,
)
QUESTIONS = Task(
    name="avqa",
    data="sequence features",
    given=("data", "questions"),
    evaluation=avqa_evaluate.QuestionEvaluation,
    evaluate=avqa_evaluate.prepare,
    row=avqa_results.Result,
    summarise=avqa_results.summarise,
    experiment=lambda config: media_name(config.data),
)
TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, QUESTIONS)}


def _case_wise(config: type[classification_config.CaseConfig], name: str) -> Recipe:
    return Recipe(
        name=name,
        config=config,
        task=CLASSIFICATION,
        revision=1,
        stages=classification_stages.case_stages,
        stage_names=lambda config: config.cases,
        fingerprints=classification_stages.case_fingerprints,
        base="backbone",
        on_features=True,
        load=classification_predict.load_case_wise,
        parts=("detector",),
        finish=classification_stages.make_detector,
    )


def _question(config: type[avqa_config.QuestionConfig], name: str, **more: Any) -> Recipe:
    return Recipe(
        name=name,
        config=config,
        task=QUESTIONS,
        revision=1,
        stages=avqa_stages.question_stages,
        stage_names=single_stage(name),
        fingerprints=avqa_stages.question_fingerprints,
        **more,
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="finetune",
            config=classification_config.FinetuneConfig,
            task=CLASSIFICATION,
            revision=1,
            stages=classification_stages.finetune_stages,
            stage_names=single_stage("finetune"),
            fingerprints=classification_stages.finetune_fingerprints,
            base="start",
            load=classification_predict.load_finetuned,
            label=lambda config: "finetune_noisy" if config.noisy else "finetune",
        ),
        _case_wise(classification_config.PromptConfig, "prompt"),
        _case_wise(classification_config.LoraConfig, "lora"),
        _case_wise(classification_config.AdapterConfig, "adapter"),
        _question(avqa_config.AVQAConfig, "avqa", load=avqa_predict.load_answerer),
        _question(avqa_config.RMMConfig, "rmm"),
        _question(avqa_config.AVRConfig, "avr"),
    )
}


def recipe_of(config: TrainConfig) -> Recipe:
    """The recipe that a config belongs to."""
    return RECIPES[config.recipe]
