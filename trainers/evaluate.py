"""``avmend evaluate RUN ...``: conditions x methods on the test split, every method on the same ruined input.

Runs that differ in their seed alone are repetitions; the table gives mean and standard deviation over them.
Runs of `avqa` answer questions; `trainers.avqa.evaluate` evaluates them. It is one command for whoever has
runs, whatever they are of; conditions, settings and table are those of the task.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from configs import config_to_dict, load_config
from configs.cluster import lasting
from models.cavmae import MODALITIES
from models.conditions import CONDITIONS, Condition
from shards.atomic import stamps
from shards.command import command
from shards.errors import InputError
from shards.progress import Progress
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, SampleMeta
from trainers.avqa.config import QuestionConfig
from trainers.command_line import evaluate_parser
from trainers.data import MediaItems, batches
from trainers.evaluation_cache import begin, keep, read_kept
from trainers.evaluation_config import EvaluateConfig, QuestionEvaluation
from trainers.identity import git_commit
from trainers.predict import Predictor, describe, load_predictor, read_run, tell_apart
from trainers.recipes import input_spec
from trainers.results import Row, summarise, write_tables
from trainers.run import local_place

ROOT = Path(__file__).resolve().parent.parent


def evaluate(
    runs: Sequence[Path],
    config: EvaluateConfig,
    out: Path,
    runs_folder: Path | None = None,
    stage: str | None = None,
    parent=None,
) -> list[Row]:
    """Evaluate runs and write results.csv, results.md, results.png, draws.csv to `out`, and to MLflow.

    Where `out` holds the results of the same runs, data, config and code, those are returned at once.

    Args:
        runs: folders of finished runs.
        out: folder of the results.
        runs_folder: folder of the MLflow store; None: the one `out` is in.
        stage: place in a longer job, for the progress line.
        parent: the MLflow run of the command that this is part of.

    Raises:
        InputError: a run that is none, a checkpoint of another backbone, labels that a model does not know.
    """
    info = DatasetInfo.load(config.data)
    made_of = _made_of(runs, config, info)
    if (kept := read_kept(out, made_of, Row)) is not None:
        return kept
    place = local_place()
    data = ShardDataset(config.data, config.split, info=info)
    found = tell_apart([read_run(folder) for folder in runs])
    predictors = [load_predictor(run, place.device) for run in found]
    rows: list[Row] = []
    total = len(predictors) * len(config.conditions) * len(data)
    with Progress("evaluate", total, "samples", stage=stage) as progress:
        for predictor in predictors:
            for condition in _conditions(config):
                rows += _rows(predictor, condition, data, config, place.device, progress)
    if not rows:
        message = f"no sample of '{config.split}' has anything left under {', '.join(config.conditions)}"
        raise InputError(message, file=config.data, field="conditions", remedy="evaluate other conditions")
    begin(out)
    write_tables(out, rows)
    write_draws(out / "draws.csv", rows_drawn(predictors, data, config))
    _mirror(out, runs_folder or out.parent, config, rows, parent)
    keep(out, made_of, rows)
    return rows


def _made_of(runs: Sequence[Path], config: EvaluateConfig, info: DatasetInfo) -> dict[str, Any]:
    """All that results depend on; a run's folder is named by its identity."""
    return {
        "runs": [str(Path(folder).absolute()) for folder in runs],
        "config": config_to_dict(config),
        "dataset": info.fingerprint(),
        "commit": git_commit(ROOT),
    }


def rows_drawn(
    predictors: Sequence[Predictor], data: ShardDataset, config: EvaluateConfig
) -> Iterator[tuple[int, str, str, str, str]]:
    """What every sample met, once per seed: (seed, condition, id, audio, visual); see `write_draws`."""
    for predictor in {p.run.config.seed: p for p in predictors}.values():
        for condition in _conditions(config):
            items = items_under(predictor, condition, data, config)
            for i, meta in enumerate(data.metas):
                yield predictor.run.config.seed, condition.name, meta.id, *items.corruption(i)


def write_draws(path: Path, drawn: Iterator[tuple[int, str, str, str, str]]) -> None:
    """The masks and noise of an evaluation, one line per seed, condition and sample."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "condition", "id", "audio", "visual"])
        writer.writerows(drawn)


def _mirror(out: Path, runs: Path, config: EvaluateConfig, rows: list[Row], parent) -> None:
    """MLflow: a parent run with table and figure, and a child per method with its accuracy by condition."""
    from trainers.tracking import Store

    store, folder = Store(runs), out / "mlflow"
    with store.run(
        f"evaluate-{out.name}", config.data.name, config_to_dict(config), None, parent, folder=folder
    ) as top:
        for line in summarise(rows):
            name = f"{line.method} {line.selection}".strip()
            place = folder / name.replace(" ", "_").replace("=", "")
            params = {"method": line.method, "selection": line.selection, "seeds": line.seeds}
            with store.run(name, config.data.name, params, None, top, folder=place) as run:
                run.summary(line.metrics())
        top.note((out / "results.md").read_text(encoding="utf-8"))
        for path in (out / "results.csv", out / "results.md", out / "results.png", out / "draws.csv"):
            top.artifact(path)


def _conditions(config: EvaluateConfig) -> list[Condition]:
    return [CONDITIONS[c] for c in config.conditions]


def items_under(predictor: Predictor, condition: Condition, data: ShardDataset, config: EvaluateConfig) -> MediaItems:
    """The samples of `data` as a run meets them under a condition."""
    trained = predictor.run.config
    noise = (config.noise or trained.noise).build()
    backbone = predictor.backbone
    return MediaItems(data, backbone.labels, input_spec(backbone), (condition.name,), noise, trained.seed)


@torch.inference_mode()
def _rows(
    predictor: Predictor,
    condition: Condition,
    data: ShardDataset,
    config: EvaluateConfig,
    device: torch.device,
    progress: Progress,
) -> list[Row]:
    items = items_under(predictor, condition, data, config)
    keep = [i for i, meta in enumerate(data.metas) if testable(meta, condition)]
    right: dict[str, int] = {}
    for batch in batches(items, keep, config.batch_size, config.loaders, drop_last=False):
        batch = batch.to(device)
        for selection, logits in predictor.predict(batch, condition).items():
            hits = int((logits.argmax(dim=1) == batch.label).sum())
            right[selection] = right.get(selection, 0) + hits
        progress.advance(len(batch), method=predictor.run.method)
    progress.advance(len(data) - len(keep))
    run, cost = predictor.run, describe(predictor.run)
    return [
        Row(
            method=run.method,
            selection=selection,
            seed=run.config.seed,
            condition=condition.name,
            accuracy=hits / len(keep),
            samples=len(keep),
            trained=predictor.trained,
            parameters=predictor.parameters,
            run=run.folder.name,
            **cost,
        )
        for selection, hits in right.items()
    ]


def testable(meta: SampleMeta, condition: Condition) -> bool:
    """Something of the sample is left under the condition (a silent clip has nothing without its picture)."""
    return any(getattr(meta, m).present and m not in condition.missing for m in MODALITIES)


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = evaluate_parser().parse(argv)
    data = [f"data={args.data.absolute()}"] if args.data is not None else []
    out = lasting(args.out, "--out")
    before = stamps([out / "results.md"])
    _evaluate_kind(args.runs, [*data, *args.set], out)
    print((out / "results.md").read_text())
    if before == stamps([out / "results.md"]):
        print(f"already finished: {out}")
    return 0


def _evaluate_kind(runs: Sequence[Path], overrides: Sequence[str], out: Path) -> None:
    """Evaluate as the runs' recipe has it."""
    from trainers.avqa.evaluate import evaluate_questions

    answers = {isinstance(read_run(folder).config, QuestionConfig) for folder in runs}
    if len(answers) > 1:
        remedy = "evaluate runs of 'avqa' and of the other recipes apart"
        raise InputError("some of these runs answer questions, others classify", field="runs", remedy=remedy)
    if answers.pop():
        evaluate_questions(runs, load_config(QuestionEvaluation, None, overrides), out)
    else:
        evaluate(runs, load_config(EvaluateConfig, None, overrides), out)


if __name__ == "__main__":
    raise SystemExit(main())
