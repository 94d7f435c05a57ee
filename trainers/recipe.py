"""What the commands know of a recipe and of its task, as two frozen records; the registry is `trainers.recipes`.

A task is what a family of recipes shares: how finished runs are evaluated and tabulated. A recipe is one way of
training: its config, its stages, what they start from. Neither record knows Ray or MLflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from configs import Config
from shards.errors import InputError
from shards.store import Place, url_of
from shards.stored_folder import is_stored, place_of
from trainers.config import TrainConfig
from trainers.journal import parts_seconds, training_cost

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from models.settings import Modality
    from shards.reader import Sample
    from trainers.answers import Answers
    from trainers.classification.items import InputSpec
    from trainers.loop import Stage


NO_DATA = Path("-")  # of imported runs that were given no clips


@dataclass(frozen=True)
class Fingerprints:
    """What a run depends on besides its config: the content, never the place, of all that it reads.

    Attributes:
        data: sha256 of the shards' dataset.json, with the questions' where there are any.
        start: sha256 of the weights that it starts from, None where it starts fresh.
        notes: what the user should know before training begins.
        files: by name, text that goes into the run's folder: what was drawn of these.
    """

    data: str
    start: str | None
    notes: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FinishedRun:
    """A run as its folder describes it.

    Attributes:
        name: the recipe's, as folders and tables have it ("finetune_noisy").
        differs: settings that distinguish it from the other runs of a table.
        imported: nothing of it was trained here.
    """

    folder: Path
    recipe: Recipe
    config: TrainConfig
    name: str
    differs: str = ""
    imported: bool = False

    @property
    def method(self) -> str:
        """Its name in tables: the recipe's, the insertion depth if not 0, and what distinguishes it."""
        depth = getattr(self.config, "depth", 0)
        name = f"{self.name} k={depth}" if depth else self.name
        return f"{name} {self.differs}" if self.differs else name

    @property
    def place(self) -> Place:
        """Where it is: its folder, or the address that its folder is a copy of."""
        return place_of(self.folder)

    def locate(self, wanted: Path) -> Path:
        """A run that its config names: where it was, or, after a move of all runs, beside this one's folder."""
        if url_of(wanted) or wanted.exists():
            return wanted
        moved = self.place.absolute().parent / wanted.name
        there = moved.exists() if isinstance(moved, Path) else is_stored(moved)
        return Path(str(moved)) if there else wanted

    @property
    def data(self) -> Path:
        """Folder of the shards that it was trained on, wherever it is now.

        Raises:
            InputError: it was imported, and given none.
        """
        if not self.has_data:
            remedy = "name the folder of the shards with --data, or import it again with --data"
            raise InputError("was imported, and has no clips of its own", file=self.folder, field="data", remedy=remedy)
        return self.locate(self.config.data)

    @property
    def has_data(self) -> bool:
        """Not of imported runs that were given no clips."""
        return self.config.data != NO_DATA

    def cost(self) -> dict[str, float]:
        """Mean seconds per epoch, seconds in all and peak MiB over its stages, as its logs have them.

        Raises:
            InputError: there are no logs.
        """
        if self.imported:
            return {"epoch_seconds": 0.0, "train_seconds": 0.0, "peak_memory_mb": 0.0}
        cost = training_cost(self.folder, self.recipe.stage_names(self.config))
        return {**cost, "train_seconds": cost["train_seconds"] + parts_seconds(self.folder, self.recipe.parts)}


def first_data(runs: Sequence[FinishedRun]) -> Path:
    """The data of the first of them that has any.

    Raises:
        InputError: none has.
    """
    return next((run for run in runs if run.has_data), runs[0]).data


class ResultLine(Protocol):
    """One line of a results table: a method over its seeds."""

    @property
    def name(self) -> str: ...

    @property
    def params(self) -> dict[str, Any]: ...

    def metrics(self) -> dict[str, float]: ...

    def curves(self) -> dict[int, dict[str, float]]: ...


class Evaluation(Protocol):
    """An evaluation that is about to begin: its inputs are checked, nothing is computed yet.

    Attributes:
        config: with the data that the runs name filled in.
        inputs: all that the results depend on, as plain values; equal inputs give equal rows.
        experiment: of MLflow: the media dataset's name.
        total: answers that the methods give, for the progress line.
    """

    @property
    def config(self) -> Config: ...

    @property
    def inputs(self) -> dict[str, Any]: ...

    @property
    def experiment(self) -> str: ...

    @property
    def total(self) -> int: ...

    def rows(self, advance: Callable[..., None]) -> list[Any]:
        """Every figure, a dataclass instance each; `advance(count, method=...)` as answers come."""
        ...

    def answers(self, advance: Callable[..., None]) -> Iterator[tuple[FinishedRun, str, Mapping[str, Answers]]]:
        """Every run's answers under every condition, by way of choosing the module."""
        ...

    def write(self, out: Path, rows: Sequence[Any]) -> None:
        """results.csv, results.md, results.png, and which sample lost or met what."""
        ...


@dataclass(frozen=True)
class ClipAnswer:
    """What a run makes of one clip, without knowing what happened to it.

    Attributes:
        logits: float32 [C] on the CPU, by way of choosing the module; "" where there is none to choose.
        selection: the way that needs no oracle, whose logits are the answer.
        case: of the module that gave it ("" where there is one for all).
        ruined: modalities that are there and that the detector takes for ruined; None: the run has no detector.
        notes: what the user should know, such as words of a question that the run has never met.
        several: a clip may have several answers: each one's probability is the sigmoid of its own logit.
        observed: what can be told of the clip, by which a calibration is chosen; see
            `models.conditions.observed_condition`.
    """

    logits: Mapping[str, Tensor]
    selection: str = ""
    case: str = ""
    ruined: tuple[Modality, ...] | None = None
    notes: tuple[str, ...] = ()
    several: bool = False
    observed: str = "complete"

    @property
    def chosen(self) -> Tensor:
        """The logits that are the answer, float32 [C]."""
        return self.logits[self.selection]


class LoadedRun(Protocol):
    """A finished run that clips can be shown to: what `Recipe.load` gives.

    Attributes:
        run: where it comes from.
        answers: in the order of the logits: labels, or the answers to questions.
        modalities: those that it looks at.
        extractor: fingerprint of the networks whose features it takes; None: it takes media.
        spec: how it looks at media; None: it takes features.
    """

    @property
    def run(self) -> FinishedRun: ...

    @property
    def answers(self) -> tuple[str, ...]: ...

    @property
    def modalities(self) -> tuple[Modality, ...]: ...

    @property
    def extractor(self) -> str | None: ...

    @property
    def spec(self) -> InputSpec | None: ...

    def ask(self, samples: Sequence[Sample], questions: Sequence[str] = ()) -> list[ClipAnswer]:
        """An answer per sample, which has something of `modalities`.

        Args:
            samples: as media shards hold them; of a task with `features`, as feature shards do.
            questions: one per sample, of a task that `asks`.
        """
        ...


def own_data(run: FinishedRun) -> Path:
    """The folder of the shards that a run was trained on."""
    return run.data


@dataclass(frozen=True)
class Task:
    """What recipes of one kind share.

    Attributes:
        name: in presets and messages.
        data: what kind of dataset `data` names, in words.
        given: settings that data preparation fills in for every run.
        evaluation: config of an evaluation.
        evaluate: finished runs and such a config to an evaluation.
        row: dataclass of a line of results.csv.
        summarise: rows to the lines of the table, over seeds.
        experiment: a run's config to its MLflow experiment.
        media: a run's folder of media shards, whose dataset.json says how clips become samples.
        features: its folder of features, whose dataset.json says how samples become those; None: it takes samples.
        asks: every clip comes with a question.
    """

    name: str
    data: str
    given: tuple[str, ...]
    evaluation: type[Config]
    evaluate: Callable[[Sequence[FinishedRun], Any], Evaluation]
    row: type
    summarise: Callable[[Sequence[Any]], Sequence[ResultLine]]
    experiment: Callable[[Any], str]
    media: Callable[[FinishedRun], Path] = own_data
    features: Callable[[FinishedRun], Path] | None = None
    asks: bool = False


def no_parts(config: Any, folder: Path) -> None:
    """Nothing follows the stages."""


@dataclass(frozen=True)
class Recipe:
    """One way of training.

    Attributes:
        name: in commands, presets and folders.
        config: its config class.
        task: what it is evaluated for.
        revision: rises when what the recipe computes from the same inputs changes; part of a run's identity.
        stages: config to what is trained, in order.
        stage_names: of a config, without loading anything.
        fingerprints: of all that a config reads; refuses what training would refuse later.
        base: the setting that names the run it starts from or stands on, None where there is none.
        on_features: trains on token features of the `base` run's backbone, at the config's depth.
        load: a finished run ready to be asked, a `LoadedRun`; None where the run answers nothing by itself.
        label: the name of a config's runs in folders and tables.
        parts: checkpoints that follow the stages.
        finish: makes those parts, given the run's folder; on rank 0 alone.
    """

    name: str
    config: type[TrainConfig]
    task: Task
    revision: int
    stages: Callable[[Any], list[Stage]]
    stage_names: Callable[[Any], tuple[str, ...]]
    fingerprints: Callable[[Any], Fingerprints]
    base: str | None = None
    on_features: bool = False
    load: Callable[[FinishedRun, torch.device], Any] | None = None
    label: Callable[[Any], str] | None = None
    parts: tuple[str, ...] = ()
    finish: Callable[[Any, Path], None] = no_parts

    def run_name(self, config: TrainConfig) -> str:
        """What folders, tables and MLflow call a config's runs."""
        return self.name if self.label is None else self.label(config)

    def checkpoints(self, config: TrainConfig) -> tuple[str, ...]:
        """Names of all checkpoints that a finished run holds."""
        return (*self.stage_names(config), *self.parts)


def single_stage(name: str) -> Callable[[Any], tuple[str, ...]]:
    """The stage names of a recipe that has one stage of its own name."""
    return lambda config: (name,)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested settings."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
