"""Question answering with missing modalities: complete, without sound, without picture, at missing rates.

What is asked and how it is judged is in `trainers.avqa.protocol`; here runs, results and their keeping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs import config_to_dict
from models.cavmae import Modality
from shards.checkpoint import file_sha256
from shards.errors import InputError
from shards.progress import Progress
from shards.questions import load_questions
from shards.schema import DatasetInfo, canonical_json
from trainers.avqa.clips import Clips, media_name
from trainers.avqa.masks import write_masks
from trainers.avqa.predict import QuestionPredictor, load_answerer
from trainers.avqa.protocol import EvaluationProtocol, blind_results, judged, results_of, right_answers
from trainers.avqa.results import Result, summarise, write_tables
from trainers.evaluation_cache import begin, keep, read_kept
from trainers.evaluation_config import QuestionEvaluation
from trainers.identity import git_commit
from trainers.predict import read_run
from trainers.run import local_place

ROOT = Path(__file__).resolve().parent.parent.parent


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
    device = local_place().device
    predictors = [load_answerer(read_run(folder), device) for folder in runs]
    questions = load_questions(config.questions)
    _refuse_twins(predictors)
    clips = Clips(config.data, config.resident)
    for p in predictors:
        p.check(clips)
    protocol = EvaluationProtocol.of(questions, config.split, clips, config.seed)
    results = list(blind_results(questions, protocol))
    total = sum(len(judged(p)) for p in predictors) * len(protocol.asked.questions)
    with Progress("evaluate", total, "answers", stage=stage) as progress:
        for p in predictors:
            answer = _Answers(p, clips, protocol, config, device, progress)
            results += results_of(p, protocol, config.rates, answer)
    begin(out)
    write_tables(out, results, _notes(config, protocol))
    write_masks(out / "masks.csv", protocol.draws)
    place = out / "mlflow" / sha256(canonical_json(made_of).encode()).hexdigest()[:12]
    _mirror(out, place, runs_folder or out.parent, config, results, parent)
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


def _notes(config: QuestionEvaluation, protocol: EvaluationProtocol) -> dict[str, Any]:
    """What the table says about what was asked."""
    return {
        "questions": len(protocol.asked.questions),
        "clips": len(protocol.draws),
        "split": config.split,
        "seed": config.seed,
        "unasked": len(protocol.asked.lost),
    }


@dataclass(frozen=True)
class _Answers:
    """A run at the protocol, with progress told."""

    predictor: QuestionPredictor
    clips: Clips
    protocol: EvaluationProtocol
    config: QuestionEvaluation
    device: torch.device
    progress: Progress

    def __call__(self, missing: Modality | None) -> np.ndarray:
        size, loaders = self.config.batch_size, self.config.loaders
        out = right_answers(self.predictor, self.clips, self.protocol, missing, size, loaders, self.device)
        self.progress.advance(len(out), method=self.predictor.config.method)
        return out


def _mirror(
    out: Path, folder: Path, runs: Path, config: QuestionEvaluation, results: Sequence[Result], parent: Any
) -> None:
    """MLflow: a parent run with tables and figure, and a child per method with its curves by missing rate."""
    from trainers.tracking import Store

    assert config.data is not None
    store, experiment = Store(runs), media_name(config.data)
    with store.run(f"evaluate-{out.name}", experiment, config_to_dict(config), None, parent, folder=folder) as top:
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
