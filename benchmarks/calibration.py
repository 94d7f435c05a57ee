"""Confidence before and after temperature scaling, per condition and per severity of noise, on scenes and AV-Digits.

    python -m benchmarks.calibration --work DIR --avdigits ../shared/data/avdigits
    python -m benchmarks.calibration --work DIR               # scenes alone
    python -m benchmarks.calibration --work DIR --clips 1200 --epochs 16 --lr 3e-3   # hours; the default is a look

Small networks, three seeds: fine-tuning on clean data, on noisy data, and prompts with their detector. Temperatures are
fitted to the validation split: one for each thing that can be observed (what `avmend calibrate` does), and, to compare
with, one for each true condition, which nobody knows of a clip. All figures are of the test split.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import report
from benchmarks.report import positive
from configs import load_config
from configs.noise import Noise
from pipelines.corpora.registry import CORPORA
from pipelines.features import extract
from pipelines.ingest import ingest
from pipelines.settings import FeatureConfig, IngestConfig
from shards.errors import InputError
from shards.progress import Progress
from trainers.answers import Answers
from trainers.calibrate import fit_groups
from trainers.calibration import Calibration
from trainers.classification.config import EvaluateConfig
from trainers.confidence import expected_calibration_error, fit_temperature, probabilities
from trainers.confidence_rows import NONE, TEMPERATURE, ConfidenceRow, confidence_rows
from trainers.judged import Judged, judged
from trainers.recipe import FinishedRun
from trainers.recipes import RECIPES
from trainers.runs import read_run
from trainers.train import train

SEVERITIES = (1, 2, 3, 4, 5)
NOISY = ("noisy_audio", "noisy_visual", "noisy_both")
NET = ["backbone.dim=64", "backbone.heads=2", "backbone.mlp_ratio=2", "backbone.depth=2", "backbone.joint_depth=1"]
NET += ["backbone.image_size=48", "augment.frequency_mask=12", "augment.time_mask=8"]
LENGTHS = {"scenes": 208, "avdigits": 96}
SHOWN = {NONE: "before", TEMPERATURE: "after"}
Parts = list[tuple[FinishedRun, str, Mapping[str, Answers]]]


def main(argv: list[str] | None = None) -> int:
    """Train what is not there, measure, write JSON, CSV, Markdown and figure."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    found = report.machine("cpu")
    sources = {"scenes": None, **({"avdigits": args.avdigits} if args.avdigits else {})}
    conditions, severities = [], []
    try:
        for corpus, source in sources.items():
            media = _media(corpus, source, args)
            for seed in args.seeds:
                runs = _runs(media, args.work / corpus / "runs", LENGTHS[corpus], seed, args)
                first, second = measure(runs, corpus, seed)
                conditions += first
                severities += second
    except InputError as error:
        print(error)
        return 2
    settings = {name: str(value) for name, value in vars(args).items() if name not in ("out", "work", "avdigits")}
    record = {"machine": found, "settings": settings, "conditions": conditions, "severities": severities}
    line = _line(conditions)
    text = _text(args, conditions, severities)
    report.save_folder(
        args.out,
        "calibration",
        "Calibration before and after",
        text,
        record,
        lambda fig: _draw(fig, conditions),
        conditions,
        line,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="clips, shards and runs; also to go on")
    parser.add_argument("--avdigits", type=Path, metavar="DIR", help="AV-Digits' source files (default: leave it out)")
    parser.add_argument("--clips", type=positive, default=400, help="clips of either corpus (default 400)")
    parser.add_argument("--epochs", type=positive, default=7, help="of fine-tuning (default 7)")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate of fine-tuning (default 1e-3)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default 0 1 2")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser


def _media(corpus: str, source: Path | None, args: argparse.Namespace) -> Path:
    """Media shards of a corpus, made in this process."""
    place, kind = args.work / corpus, CORPORA[corpus]
    clips = {"limit": args.clips, "source": source} if source else {"clips": args.clips}
    config = kind.config.model_validate(clips)

    def progress(total: int) -> Progress:
        return Progress(f"clips of {corpus}", total, "clips")

    manifests = kind.build(config, place / "clips", progress).manifests
    manifest = manifests["official"] if "official" in manifests else next(iter(manifests.values()))
    ingest(manifest, place / "media", IngestConfig(frames=1, image_size=48, workers=0))
    return place / "media"


def _runs(media: Path, runs: Path, length: int, seed: int, args: argparse.Namespace) -> list[Path]:
    quick = [f"data={media}", f"seed={seed}", "workers=0", f"cpus={args.threads}", "batch_size=16"]
    net = [*quick, *NET, f"backbone.target_length={length}", f"epochs={args.epochs}", f"lr={args.lr}"]

    def trained(recipe: str, *more: str) -> Path:
        return train(load_config(RECIPES[recipe].config, None, list(more)), runs)

    clean = trained("finetune", *net)
    noisy = trained("finetune", *net, "noisy=true")
    extract(media, clean, FeatureConfig(depth=0, draws=2, workers=0))
    prompts = trained("prompt", *quick, f"backbone={clean}", "length=4", "deep=true", "missing=0.2", "epochs=3")
    return [clean, noisy, prompts]


def measure(folders: Sequence[Path], corpus: str, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows by condition, and by severity of the noisy ones."""
    fitted = _asked(folders, EvaluateConfig(split="val"))
    calibrations = dict(_calibrations(fitted))
    tested = _asked(folders, EvaluateConfig())
    rows = _rows(tested, calibrations)
    oracle, floors = _oracle(fitted, tested), _floors(tested, calibrations)
    about = {"corpus": corpus, "seed": seed}
    conditions = []
    for before, after in zip(rows[::2], rows[1::2], strict=True):
        key = (before.run, before.selection, before.condition)
        more = {"ece_by_true_condition": oracle[key], "ece_floor": floors[key]}
        conditions.append({**about, **_pair(before, after), **more})
    severities = []
    for severity in SEVERITIES:
        noise = _noise(folders, severity)
        parts = _asked(folders, EvaluateConfig(conditions=("complete", *NOISY), noise=noise))
        harsh = [row for row in _rows(parts, calibrations) if row.condition != "complete"]
        pairs = zip(harsh[::2], harsh[1::2], strict=True)
        severities += [{**about, "severity": severity, **_pair(before, after)} for before, after in pairs]
    return conditions, severities


def _noise(folders: Sequence[Path], severity: int) -> Noise:
    return read_run(folders[0]).config.noise.model_copy(update={"alone": severity, "both": severity})


def _asked(folders: Sequence[Path], config: EvaluateConfig) -> Parts:
    runs = [read_run(folder) for folder in folders]
    evaluation = runs[0].recipe.task.evaluate(runs, config)
    return list(evaluation.answers(lambda *counts, **labels: None))


def _calibrations(parts: Parts) -> Iterator[tuple[str, Calibration]]:
    for name in dict.fromkeys(run.folder.name for run, _, _ in parts):
        own = [answers for run, _, answers in parts if run.folder.name == name]
        yield name, Calibration(weights="", inputs={}, groups=fit_groups(own))


def _rows(parts: Parts, calibrations: Mapping[str, Calibration]) -> list[ConfidenceRow]:
    """Before and after in turn."""
    out: list[Judged] = []
    for run, condition, by_selection in parts:
        for selection, answers in by_selection.items():
            name = (run.method, selection, run.config.seed, condition, run.folder.name)
            out += judged(name, answers, calibrations[run.folder.name])
    return confidence_rows(out)


def _oracle(fitted: Parts, tested: Parts) -> dict[tuple[str, str, str], float]:
    """Calibration error with a temperature of the true condition's own, by run, selection and condition."""
    temperatures = {
        (run.folder.name, selection, condition): fit_temperature(answers.logits, answers.label)
        for run, condition, by_selection in fitted
        for selection, answers in by_selection.items()
    }
    out = {}
    for run, condition, by_selection in tested:
        for selection, answers in by_selection.items():
            key = (run.folder.name, selection, condition)
            confidence = probabilities(answers.logits, temperatures[key]).max(axis=1)
            out[key] = expected_calibration_error(confidence, answers.right)
    return out


def _floors(tested: Parts, calibrations: Mapping[str, Calibration]) -> dict[tuple[str, str, str], float]:
    """The calibration error that a perfectly calibrated method with the same confidences would show on as many samples:
    the mean over 200 draws of which answers are right."""
    out, rng = {}, np.random.default_rng(0)
    for run, condition, by_selection in tested:
        for selection, answers in by_selection.items():
            temperatures = calibrations[run.folder.name].temperatures(selection, answers.observed)
            sure = probabilities(answers.logits, temperatures).max(axis=1)
            drawn = [expected_calibration_error(sure, rng.random(len(sure)) < sure) for _ in range(200)]
            out[run.folder.name, selection, condition] = statistics.fmean(drawn)
    return out


def _pair(before: ConfidenceRow, after: ConfidenceRow) -> dict[str, Any]:
    assert (before.scaling, after.scaling) == (NONE, TEMPERATURE)
    assert before.accuracy == after.accuracy
    row: dict[str, Any] = {"method": before.name, "condition": before.condition, "samples": before.samples}
    row["accuracy"] = before.accuracy
    for name in ("ece", "nll", "aurc", "confidence", "change", "raised"):
        row |= {f"{name}_before": getattr(before, name), f"{name}_after": getattr(after, name)}
    return row


def _grouped(rows: Sequence[dict[str, Any]], *names: str) -> dict[tuple, list[dict[str, Any]]]:
    out: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        out.setdefault(tuple(row[name] for name in names), []).append(row)
    return out


def _spread(rows: Sequence[dict[str, Any]], name: str) -> str:
    values = [100 * row[name] for row in rows]
    sd = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{sd}"


def _text(args: argparse.Namespace, conditions: list[dict[str, Any]], severities: list[dict[str, Any]]) -> str:
    parts = [
        f"{args.clips} clips a corpus, {args.epochs} epochs, seeds {', '.join(map(str, args.seeds))}; percent, mean ± "
        "standard deviation over seeds. ECE: expected calibration error, 15 bins of equal width, on the test split. "
        "*after*: temperatures fitted to the validation split by what can be observed of a clip. *true condition*: "
        "fitted to each condition by itself, which takes an oracle. *floor*: what perfect calibration shows on so few "
        "clips. *NLL*: -log p of the right answer, times 100. *change*: of the mean confidence against the same clips "
        "when complete, points."
    ]
    columns = [
        "method",
        "condition",
        "accuracy",
        "ECE before",
        "after",
        "true condition",
        "floor",
        "NLL before",
        "after",
    ]
    columns += ["confidence before", "after", "change before", "after"]
    names = ["accuracy", "ece_before", "ece_after", "ece_by_true_condition", "ece_floor", "nll_before", "nll_after"]
    names += ["confidence_before", "confidence_after", "change_before", "change_after"]
    for (corpus,), own in _grouped(conditions, "corpus").items():
        cells = [
            [method, condition.replace("_", " "), *(_spread(rows, name) for name in names)]
            for (method, condition), rows in _grouped(own, "method", "condition").items()
        ]
        samples = sorted({row["samples"] for row in own})
        parts.append(f"## {corpus}, {samples[-1]} test clips\n\n" + report.table(columns, cells))
    parts.append(
        "## Change of mean confidence by severity of noise, points, before → after\n\n" + _severities(severities)
    )
    return "\n\n".join(parts)


def _severities(rows: list[dict[str, Any]]) -> str:
    cells = []
    for (corpus, method, condition), own in _grouped(rows, "corpus", "method", "condition").items():
        by = _grouped(own, "severity")
        shown = [f"{_mean(by[s,], 'change_before'):+.1f} → {_mean(by[s,], 'change_after'):+.1f}" for s in SEVERITIES]
        cells.append([corpus, method, condition.replace("_", " "), *shown])
    return report.table(["corpus", "method", "condition", *(f"severity {s}" for s in SEVERITIES)], cells)


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return 100 * statistics.fmean(row[name] for row in rows)


def _line(rows: list[dict[str, Any]]) -> list[str]:
    before, after, floor = (_mean(rows, f"ece_{when}") for when in ("before", "after", "floor"))
    said = f"{before:.1f} before, {after:.1f} after, {floor:.1f} if perfect"
    return ["ECE over all methods and conditions, %", said]


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    groups = _grouped(rows, "corpus")
    figure.set_size_inches(10, 4.6 * len(groups))
    for axes, ((corpus,), own) in zip(figure.subplots(len(groups), squeeze=False).flat, groups.items(), strict=True):
        conditions = list(dict.fromkeys(row["condition"] for row in own))
        methods = list(dict.fromkeys(row["method"] for row in own))
        for place, method in enumerate(methods):
            by = _grouped([row for row in own if row["method"] == method], "condition")
            at = [i + (place - (len(methods) - 1) / 2) * 0.14 for i in range(len(conditions))]
            before, after = ([_mean(by[c,], f"ece_{when}") for c in conditions] for when in ("before", "after"))
            axes.vlines(at, before, after, color=f"C{place}", alpha=0.5)
            axes.plot(at, before, "o", color=f"C{place}", markerfacecolor="none")
            axes.plot(at, after, "o", color=f"C{place}", label=method)
        axes.set_xticks(range(len(conditions)), [c.replace("_", "\n") for c in conditions])
        axes.set(ylabel="ECE, %", title=f"{corpus}: hollow before, filled after", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=3, fontsize=8, frameon=False)


if __name__ == "__main__":
    raise SystemExit(main())
