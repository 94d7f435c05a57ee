"""The registry of recipes: the only place that names a task. It needs no torch until a recipe is trained."""

from __future__ import annotations

from typing import Any

from models.registry import Registry, deferred
from trainers.avqa import config as avqa_config
from trainers.avqa import results as avqa_results
from trainers.classification import config as classification_config
from trainers.classification import results as classification_results
from trainers.config import TrainConfig
from trainers.recipe import Recipe, Task, own_data, single_stage

CLASSIFICATION = Task(
    name="classification",
    data="media shards",
    given=("data",),
    evaluation=classification_config.EvaluateConfig,
    evaluate=deferred("trainers.classification.evaluate:prepare"),
    row=classification_results.Row,
    summarise=classification_results.summarise,
    experiment=lambda config: config.data.name,
)
QUESTIONS = Task(
    name="avqa",
    data="sequence features",
    given=("data", "questions"),
    evaluation=avqa_config.QuestionEvaluation,
    evaluate=deferred("trainers.avqa.evaluate:prepare"),
    row=avqa_results.Result,
    summarise=avqa_results.summarise,
    experiment=deferred("trainers.avqa.clips:experiment"),
    media=lambda run: run.data.parent.parent,  # <media>/features/<id>
    features=own_data,
    asks=True,
)
TASKS: Registry[Task] = Registry("task", {task.name: task for task in (CLASSIFICATION, QUESTIONS)})

FINETUNE = Recipe(
    name="finetune",
    config=classification_config.FinetuneConfig,
    task=CLASSIFICATION,
    revision=2,
    stages=deferred("trainers.classification.stages:finetune_stages"),
    stage_names=single_stage("finetune"),
    fingerprints=deferred("trainers.classification.stages:finetune_fingerprints"),
    base="start",
    load=deferred("trainers.classification.predict:load_finetuned"),
    label=lambda config: "cavmae" if config.imported else "finetune_noisy" if config.noisy else "finetune",
)
FUSE = Recipe(
    name="fuse",
    config=classification_config.FuseConfig,
    task=CLASSIFICATION,
    revision=2,
    stages=deferred("trainers.classification.fuse:fuse_stages"),
    stage_names=single_stage("fuse"),
    fingerprints=deferred("trainers.classification.fuse:fuse_fingerprints"),
    base="start",
    load=deferred("trainers.classification.predict:load_fused"),
    label=lambda config: config.label or config.method,
)


DENSE = Recipe(
    name="dense",
    config=classification_config.DenseConfig,
    task=CLASSIFICATION,
    revision=1,
    stages=deferred("trainers.classification.dense:stages"),
    stage_names=single_stage("dense"),
    fingerprints=deferred("trainers.classification.dense:fingerprints"),
    base="backbone",
)


def case_wise(name: str, config: type[classification_config.CaseConfig], revision: int = 2) -> Recipe:
    """A recipe of small modules beside a frozen backbone, one per case, on cached features."""
    return Recipe(
        name=name,
        config=config,
        task=CLASSIFICATION,
        revision=revision,
        stages=deferred("trainers.classification.stages:case_stages"),
        stage_names=lambda config: config.cases,
        fingerprints=deferred("trainers.classification.stages:case_fingerprints"),
        base="backbone",
        on_features=True,
        load=deferred("trainers.classification.predict:load_case_wise"),
        parts=("detector",),
        finish=deferred("trainers.classification.stages:make_detector"),
    )


def on_questions(
    name: str, config: type[avqa_config.QuestionConfig], kind: str = "recovery", revision: int = 3, **more: Any
) -> Recipe:
    """A recipe of one stage on sequence features and questions: a network (`answer`) or a method (`recovery`)."""
    return Recipe(
        name=name,
        config=config,
        task=QUESTIONS,
        revision=revision,
        stages=deferred(f"trainers.avqa.stages:{kind}_stages"),
        stage_names=single_stage(name),
        fingerprints=deferred(f"trainers.avqa.stages:{kind}_fingerprints"),
        **more,
    )


RECIPES: Registry[Recipe] = Registry(
    "recipe",
    {
        "finetune": FINETUNE,
        "dense": DENSE,
        "fuse": FUSE,
        "prompt": case_wise("prompt", classification_config.PromptConfig),
        "lora": case_wise("lora", classification_config.LoraConfig),
        "adapter": case_wise("adapter", classification_config.AdapterConfig),
        "avqa": on_questions(
            "avqa", avqa_config.AVQAConfig, "answer", 4, load=deferred("trainers.avqa.predict:load_answerer")
        ),
        "recovery": on_questions("recovery", avqa_config.AnyRecoveryConfig),
        "rmm": on_questions("rmm", avqa_config.RMMConfig),
        "avr": on_questions("avr", avqa_config.AVRConfig),
    },
)


def recipe_of(config: TrainConfig) -> Recipe:
    """The recipe that a config belongs to."""
    return RECIPES[config.recipe]
