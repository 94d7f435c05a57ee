"""Question answering with missing modalities: complete, without sound, without picture, at missing rates.

Every run answers every question three times: with what is there, without sound, without picture. Since an
answer depends on its own sample alone, accuracy at a missing rate follows from these and from which clips
lack the modality at that rate; the same clips for every method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch

from configs import Config, config_to_dict
from models.cavmae import MODALITIES, Modality
from shards.baselines import look_up, majority
from shards.checkpoint import file_sha256
from shards.errors import InputError
from shards.progress import Progress
from shards.questions import Question, load_questions
from shards.schema import DatasetInfo
from trainers.avqa.accuracy import scores
from trainers.avqa.clips import Clips, media_name
from trainers.avqa.items import Asked, QuestionItems
from trainers.avqa.masks import Draws, draw, lost, write_masks
from trainers.avqa.predict import QuestionPredictor, load_answerer
from trainers.avqa.results import Result, summarise, write_tables
from trainers.data import batches
from trainers.identity import git_commit
from trainers.kept import begin, keep, read_kept
from trainers.predict import describe, read_run
from trainers.run import local_place

ROOT = Path(__file__).resolve().parent.parent.parent
BLIND = {"question look-up": look_up, "majority of the kind": majority}
Rights = dict[Modality | None, np.ndarray]  # by what is missing: which answers are right, bool [Q]


class QuestionEvaluation(Config):
    """What is evaluated.

    Attributes:
        data: folder of the sequence features; None: the first run's.
        questions: questions.jsonl; None: the first run's.
        split: whose questions.
        rates: percent of the clips that lack a modality, besides 0 and 100.
        seed: of the masks.
        batch_size, loaders, resident: of the forward passes.
    """

    data: Path | None = None
    questions: Path | None = None
    split: str = "test"
    rates: tuple[int, ...] = (20, 40, 60, 80)
    seed: int = 0
    batch_size: int = pydantic.Field(default=64, ge=1)
    loaders: int = pydantic.Field(default=0, ge=0)
    resident: bool | None = None

    @pydantic.field_validator("rates")
    @classmethod
    def _percent(cls, rates: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [rate for rate in rates if not 0 <= rate <= 100]:
            raise ValueError(f"a missing rate is 0 to 100 percent, not {wrong[0]}")
        return tuple(sorted({0, *rates, 100}))


@dataclass(frozen=True)
class Test:
    """What all runs are asked.

    Attributes:
        asked: questions of the split, and those that can't be asked.
        left: by what is missing: questions of whose clip something is left, bool [Q].
        draws: which clips lack what at which rate.
    """

    asked: Asked
    left: Rights
    draws: Draws

    @classmethod
    def of(cls, config: QuestionEvaluation, questions: Sequence[Question], clips: Clips) -> Test:
        """The questions of the split, in order."""
        asked = Asked.of(questions, config.split, clips)
        left = {m: np.array([clips.left(q.clip, m) for q in asked.questions]) for m in (None, *MODALITIES)}
        return cls(asked, left, draw(config.seed, dict.fromkeys(q.clip for q in asked.questions)))

    def at(self, modality: Modality, rate: int) -> np.ndarray:
        """Which questions lack `modality` at a rate, bool [Q]."""
        return np.array([lost(self.draws[q.clip][modality], rate) for q in self.asked.questions])


def evaluate_questions(
    runs: Sequence[Path],
    config: QuestionEvaluation,
    out: Path,
    runs_folder: Path | None = None,
    stage: str | None = None,
    parent: Any = None,
) -> list[Result]:
    """Evaluate runs of `avqa`: results.csv, results.md, results.png, masks.csv in `out`, and all in MLflow.

    Where `out` holds the results of the same runs, data, config and code, those are returned at once.

    Args:
        runs: folders of finished runs.
        out: folder of the results.
        runs_folder: folder of the MLflow store; None: the one `out` is in.
        stage: place in a longer job, for the progress line.
        parent: the MLflow run of the command that this is part of.

    Raises:
        InputError: a run of another recipe, features of another extractor, no questions of the split.
    """
    config = _whole(config, runs[0])
    assert config.data is not None
    assert config.questions is not None
    made_of = _made_of(runs, config)
    if (kept := read_kept(out, made_of, Result)) is not None:
        return kept
    place = local_place()
    predictors = [load_answerer(read_run(folder), place.device) for folder in runs]
    questions = load_questions(config.questions)
    _refuse_twins(predictors)
    clips = {p.scale: p.clips(config.data, config.resident) for p in predictors}
    test = Test.of(config, questions, clips[predictors[0].scale])
    results = list(_blind(questions, test))
    total = sum(len(_judged(p)) for p in predictors) * len(test.asked.questions)
    with Progress("evaluate", total, "answers", stage=stage) as progress:
        for predictor in predictors:
            results += _results(predictor, clips[predictor.scale], test, config, place.device, progress)
    begin(out)
    write_tables(out, results, _notes(config, test))
    write_masks(out / "masks.csv", test.draws)
    _mirror(out, runs_folder or out.parent, config, results, parent)
    keep(out, made_of, results)
    return results


def _refuse_twins(predictors: Sequence[QuestionPredictor]) -> None:
    """Repetitions differ in their seed; other runs of one name would be averaged into it."""
    seen: dict[tuple, QuestionPredictor] = {}
    for p in predictors:
        name = (p.config.network, p.config.method, p.config.absent, p.config.seed)
        if (twin := seen.setdefault(name, p)) is not p:
            called = f"'{p.config.method}' on {p.config.network} with seed {p.config.seed}"
            message = f"is {called}, and so is {twin.run.folder.name}"
            raise InputError(message, file=p.run.folder, field="label", remedy="train one with label=NAME")


def _whole(config: QuestionEvaluation, run: Path) -> QuestionEvaluation:
    """The config with data and questions, the run's where it names none."""
    trained = load_answerer(read_run(run), torch.device("cpu")).config
    data, questions = config.data or trained.data, config.questions or trained.questions
    return config.model_copy(update={"data": data.absolute(), "questions": questions.absolute()})


def _made_of(runs: Sequence[Path], config: QuestionEvaluation) -> dict[str, Any]:
    """All that results depend on; a run's folder is named by its identity."""
    assert config.data is not None
    assert config.questions is not None
    dataset = DatasetInfo.load(config.data).fingerprint()
    load_questions(config.questions)  # refuses a file that is none, before its bytes are counted on
    return {
        "runs": [str(Path(folder).absolute()) for folder in runs],
        "config": config_to_dict(config),
        "dataset": dataset,
        "questions": file_sha256(config.questions),
        "commit": git_commit(ROOT),
    }


def _notes(config: QuestionEvaluation, test: Test) -> dict[str, Any]:
    """What the table says about what was asked."""
    return {
        "questions": len(test.asked.questions),
        "clips": len(test.draws),
        "split": config.split,
        "seed": config.seed,
        "unasked": len(test.asked.lost),
    }


def _judged(predictor: QuestionPredictor) -> list[Modality | None]:
    """What is taken away from the run: nothing, sound, picture; from a specialist its own modality alone."""
    whole: list[Modality | None] = [None, *MODALITIES]
    return [m for m in whole if predictor.sees(m)]


def _results(
    predictor: QuestionPredictor,
    clips: Clips,
    test: Test,
    config: QuestionEvaluation,
    device: torch.device,
    progress: Progress,
) -> Iterator[Result]:
    """All figures of one run."""
    right: Rights = {}
    for missing in _judged(predictor):
        right[missing] = _right(predictor, clips, test, missing, config, device)
        progress.advance(len(test.asked.questions), method=predictor.config.method)
    run = predictor.run
    says = {
        "method": predictor.config.method,
        "network": predictor.config.network,
        "seed": predictor.config.seed,
        "trained": predictor.trained,
        "parameters": predictor.parameters,
        "run": run.folder.name,
        **describe(run),
    }
    yield from _figures(test, right, config.rates, says)


def _figures(test: Test, right: Rights, rates: Sequence[int], says: dict[str, Any]) -> Iterator[Result]:
    """A run's figures from its answers: with everything, and by modality and missing rate."""
    questions = test.asked.questions
    if None in right:
        yield from _told(questions, right[None], test.left[None], "none", 0, says)
    for modality in (m for m in MODALITIES if m in right):
        for rate in rates:
            gone = test.at(modality, rate)
            whole = right.get(None, right[modality])  # a specialist never looks at the modality
            answers = np.where(gone, right[modality], whole)
            yield from _told(questions, answers, test.left[modality], modality, rate, says)


def _told(
    questions: Sequence[Question],
    right: np.ndarray,
    counted: np.ndarray,
    missing: str,
    rate: int,
    says: dict[str, Any],
) -> Iterator[Result]:
    for score in scores(questions, right, counted):
        yield Result(
            missing=missing,
            rate=rate,
            kind=score.kind,
            accuracy=score.accuracy,
            samples=score.samples,
            **says,
        )


@torch.inference_mode()
def _right(
    predictor: QuestionPredictor,
    clips: Clips,
    test: Test,
    missing: Modality | None,
    config: QuestionEvaluation,
    device: torch.device,
) -> np.ndarray:
    """Which answers are right with `missing` taken away, bool [Q]; False where nothing is left."""
    items = QuestionItems(clips, test.asked.questions, predictor.vocabulary, predictor.words, absent=missing)
    order = test.left[missing].nonzero()[0].tolist()
    out = np.zeros(len(items), dtype=bool)
    for batch in batches(items, order, config.batch_size, config.loaders, drop_last=False):
        there = batch.to(device)
        hits = predictor(there).argmax(dim=1) == there.label  # type: ignore[arg-type]
        out[batch.index.numpy()] = hits.cpu().numpy()
    return out


def _blind(questions: Sequence[Question], test: Test) -> Iterator[Result]:
    """The rows of the rules that neither hear nor see."""
    train = [q for q in questions if q.split == "train"]
    if not train:
        message = "the file has no train questions, which the question-only rows are learnt from"
        raise InputError(message, field="questions", remedy="give the file that the runs were trained on")
    asked = test.asked.questions
    for method, rule in BLIND.items():
        answers = zip(rule(train, asked), asked, strict=True)
        right = np.array([answer == question.answer for answer, question in answers])
        says: dict[str, Any] = {"method": method, "network": "", "seed": 0, "run": ""}
        says |= {"trained": 0, "parameters": 0, "epoch_seconds": 0.0, "peak_memory_mb": 0.0}
        for missing in ("none", *MODALITIES):
            left = test.left[None if missing == "none" else missing]  # type: ignore[index]
            yield from _told(asked, right, left, missing, 0 if missing == "none" else 100, says)


def _mirror(
    out: Path, runs: Path, config: QuestionEvaluation, results: Sequence[Result], parent: Any
) -> None:
    """MLflow: a parent run with tables and figure, and a child per method with its curves by missing rate."""
    from trainers.tracking import Store

    assert config.data is not None
    store, folder = Store(runs), out / "mlflow"
    experiment = media_name(config.data)
    with store.run(
        f"evaluate-{out.name}", experiment, config_to_dict(config), None, parent, folder=folder
    ) as top:
        for line in summarise(results):
            place = folder / line.name.replace(" ", "_")
            params = {"network": line.network, "method": line.method, "seeds": line.seeds}
            with store.run(line.name, experiment, params, None, top, folder=place) as run:
                for rate, metrics in line.curves().items():
                    run.log(rate, metrics)
                run.summary(line.metrics())
        top.note((out / "results.md").read_text(encoding="utf-8"))
        for path in sorted(out.glob("*.*")):
            if path.suffix in (".csv", ".md", ".png"):
                top.artifact(path)
