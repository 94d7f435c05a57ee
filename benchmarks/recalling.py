"""What recalled features are worth: their content, the slots they come from, and whether answers need either.

    python -m benchmarks.recalling RUN [RUN ...] --targets data/ensembles/targets.jsonl

Every run (of `avmend train avqa` with a recovery method that fills in what is missing) is asked the questions of a
split with the sound taken away, then with the picture. In place of what its method recalled, the same network then gets

- the mean of the training data (zeros, as features are standardised),
- what was recalled for another question of the batch, which is of another clip,
- the real features, which no method can beat; and, of RMM + AVR, what RMM alone recalled.

Accuracy that stays when the content is another clip's comes from having met the missing case, not from recalling.
*Explained* is the share of the real features' variance that the recalled ones explain, 1 - error / variance, over
what the training data's mean leaves; below 0 they are farther off than the mean. *Linear* is what a ridge regression
explains that was fitted on the training clips, step by step, from what is there alone: so much can be recalled.

Of methods with slots also: how many are in use for a step (e to the entropy of the weights), and how much the most
addressed one tells about the scene: the mutual information of the slot and of whether a class sounds in that second
(or is in the picture), summed over classes, as a share of what there is to know; less what it is for the same slots
and another clip's scene, which is chance. Shapes: B questions, T steps, L slots, C classes, Q all questions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import report
from benchmarks.report import positive
from models.avqa.batch import AVQABatch
from models.avqa.contract import Recovered
from models.avqa.recovery.both import RMMAVR
from models.avqa.recovery.rmm import RMM
from models.batch import take_away
from models.modality import OTHER
from models.settings import MODALITIES, Modality
from shards.dense_targets import DenseTarget, classes_of, load_targets
from shards.errors import InputError
from shards.questions import load_questions
from shards.reader import ShardDataset
from trainers.avqa.clips import Clips
from trainers.avqa.items import QuestionItems
from trainers.avqa.predict import QuestionPredictor, load_answerer
from trainers.avqa.protocol import EvaluationProtocol
from trainers.data import batches
from trainers.runs import read_run

CPU = torch.device("cpu")
RIDGE = 1e-2  # over the number of steps; features have unit variance
RECALLED = "recalled"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recalling", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs")
    parser.add_argument("--targets", type=Path, required=True, help="targets.jsonl of the clips")
    parser.add_argument("--split", default="test", help="whose questions (default test)")
    parser.add_argument("--batch-size", type=positive, default=64)
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--name", default="recalling", help="of the files (default recalling)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, write JSON, markdown and figure."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    found = report.machine("cpu")
    try:
        targets = load_targets(args.targets)
        explained: dict[str, dict[Modality, float]] = {}
        rows = [row for run in args.runs for row in measured(run, targets, args, explained)]
    except InputError as error:
        print(error)
        return 2
    settings = {"split": args.split, "runs": [run.name for run in args.runs]}
    record = {"machine": found, "settings": settings, "rows": rows}
    report.save(args.out, args.name, "What recalled features are worth", _text(rows), record, lambda f: _draw(f, rows))
    return 0


def measured(
    folder: Path,
    targets: dict[str, DenseTarget],
    args: argparse.Namespace,
    explained: dict[str, dict[Modality, float]],
) -> Iterator[dict[str, Any]]:
    """A row per missing modality of one run.

    Args:
        explained: by dataset what ridge regressions explain; one that is not there is added.

    Raises:
        InputError: no such run, or its method leaves out what is missing.
    """
    predictor = load_answerer(read_run(folder), CPU)
    clips = predictor.clips(predictor.config.data)
    asked = EvaluationProtocol.of(load_questions(predictor.config.questions), args.split, clips, seed=0).asked.questions
    items = QuestionItems(clips, asked, predictor.vocabulary, predictor.words)
    whole = [i for i in range(len(asked)) if clips.present[items.numbers[i]].all()]
    config, dataset = predictor.config, clips.info.fingerprint()
    if dataset not in explained:
        explained[dataset] = _linear(predictor, clips)
    for missing in MODALITIES:
        found = _Found()
        for batch in batches(items, whole, args.batch_size, 0, drop_last=False):
            found.add(_ask(predictor, batch, missing, folder))  # type: ignore[arg-type]
        row: dict[str, Any] = {"method": config.method, "network": config.network, "seed": config.seed}
        row |= {"run": folder.name, "missing": missing, "questions": len(whole), **found.figures()}
        row["linear"] = explained[dataset][missing]
        if found.slots:
            classes, steps = classes_of(targets.values()), clips.spec.steps
            scenes = np.stack([_scene(targets[asked[i].clip], missing, steps, classes) for i in whole])
            row |= slot_figures(np.concatenate(found.slots), scenes)
        yield row


@torch.inference_mode()
def _linear(predictor: QuestionPredictor, clips: Clips) -> dict[Modality, float]:
    """Share of a modality's variance on the test clips that a ridge regression from the other one explains."""
    found = {}
    parts = {split: _steps(predictor, clips, split) for split in ("train", "test")}
    for missing in MODALITIES:
        x, y = parts["train"][OTHER[missing]], parts["train"][missing]
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        ridge = RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
        x, y = parts["test"][OTHER[missing]], parts["test"][missing]
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        found[missing] = 1 - float((x @ weights - y).square().mean() / y.square().mean())
    return found


def _steps(predictor: QuestionPredictor, clips: Clips, split: str) -> dict[Modality, Tensor]:
    """Standardised features of a split's complete clips, every step a row [N, ...]."""
    numbers = [clips.number[clip] for clip in ShardDataset(clips.folder, split).ids]
    numbers = [number for number in numbers if clips.present[number].all()]
    found: dict[Modality, Tensor] = {}
    for m in MODALITIES:
        mean, inverse = predictor.answerer.scale.tensors(m)
        found[m] = ((clips.features(m, numbers).float() - mean) * inverse).flatten(2).flatten(0, 1).double()
    return found


@dataclass(frozen=True)
class _Asked:
    """What comes of a batch: right answers by what stood in [B], its answers as recalled, errors, slots [B, T]."""

    right: dict[str, np.ndarray]
    answers: dict[str, np.ndarray]
    errors: dict[str, float]
    variance: float
    slots: np.ndarray | None
    in_use: np.ndarray | None


@torch.inference_mode()
def _ask(predictor: QuestionPredictor, batch: AVQABatch, missing: Modality, folder: Path) -> _Asked:
    answerer = predictor.answerer
    real = answerer.standardise(batch)
    less = take_away(real, missing)
    seen: Recovered = answerer.recovery(less.audio, less.visual, less.present, less.question)
    if not bool(seen.present.all()):
        message = f"its method {predictor.config.recovery} leaves out what is missing"
        raise InputError(message, file=folder, remedy="give runs of methods that fill it in")
    stands_in = dict(_stand_ins(answerer.recovery, seen, real, less, missing))
    answers, right = {}, {}
    for name, value in stands_in.items():
        features = {"audio": seen.audio, "visual": seen.visual, missing: value}
        logits, _ = answerer.network(features["audio"], features["visual"], seen.present, batch.question)  # type: ignore[misc]
        answers[name] = logits.argmax(dim=1).numpy()
        right[name] = answers[name] == batch.label.numpy()
    truth = stands_in["real"]
    errors = {name: float((value - truth).square().mean()) for name, value in stands_in.items()}
    rmm = next((part for part in answerer.recovery.modules() if isinstance(part, RMM)), None)
    weights = rmm.address(missing, getattr(less, OTHER[missing]), less.question) if rmm is not None else None
    slots = None if weights is None else weights.argmax(dim=-1).numpy()
    in_use = None if weights is None else torch.special.entr(weights).sum(dim=-1).exp().numpy()
    return _Asked(right, answers, errors, float(truth.square().mean()), slots, in_use)


def _stand_ins(
    recovery: torch.nn.Module, seen: Recovered, real: AVQABatch, less: AVQABatch, missing: Modality
) -> Iterator[tuple[str, Tensor]]:
    """What the network gets for the missing modality, by name."""
    recalled = getattr(seen, missing)
    yield RECALLED, recalled
    yield "the mean", torch.zeros_like(recalled)
    yield "another clip's", recalled.roll(len(recalled) // 2, dims=0)
    yield "real", getattr(real, missing).to(recalled.dtype)
    if isinstance(recovery, RMMAVR):
        yield "by RMM alone", getattr(recovery.rmm(less.audio, less.visual, less.present, less.question), missing)


class _Found:
    """Sums over batches."""

    def __init__(self) -> None:
        self.parts: list[_Asked] = []
        self.slots: list[np.ndarray] = []

    def add(self, part: _Asked) -> None:
        self.parts.append(part)
        if part.slots is not None:
            self.slots.append(part.slots)

    def figures(self) -> dict[str, Any]:
        """Accuracy by what stood in, share of answers that differ, share of variance explained, slots in use."""
        names = list(self.parts[0].right)
        answers = {n: np.concatenate([p.answers[n] for p in self.parts]) for n in names}
        weights = np.array([len(p.right[RECALLED]) for p in self.parts], dtype=float)

        def mean(values: Sequence[float]) -> float:
            return float(np.average(values, weights=weights))

        variance = mean([p.variance for p in self.parts])
        out: dict[str, Any] = {
            "accuracy": {n: 100 * float(np.concatenate([p.right[n] for p in self.parts]).mean()) for n in names},
            "differ": {n: 100 * float((answers[n] != answers[RECALLED]).mean()) for n in names if n != RECALLED},
            "explained": {
                n: 1 - mean([p.errors[n] for p in self.parts]) / variance
                for n in names
                if n not in ("real", "the mean")
            },
        }
        if self.slots:
            out["slots_in_use"] = float(np.concatenate([p.in_use.ravel() for p in self.parts]).mean())  # type: ignore[union-attr]
        return out


def _scene(target: DenseTarget, missing: Modality, steps: int, classes: Sequence[str]) -> np.ndarray:
    """Which classes there are of what is missing: they sound in a second, or are in the picture; bool [T, C]."""
    out = np.zeros((steps, len(classes)), dtype=bool)
    for step in range(steps):
        seconds = target.seconds or ()
        heard = seconds[step * len(seconds) // steps] if seconds else {}
        there = heard if missing == "audio" else {place.name for place in target.places or ()}
        out[step] = [name in there for name in classes]
    return out


def slot_figures(slots: np.ndarray, scenes: np.ndarray) -> dict[str, float]:
    """What the most addressed slots [Q, T] tell about scenes [Q, T, C]: `told`, the share of what there is to know;
    `told_by_chance`, the same of another clip's scene; `slots_addressed`, how many are some step's."""
    entropy = sum(_entropy(scenes[..., c].ravel()) for c in range(scenes.shape[-1]))
    other = np.roll(scenes, len(scenes) // 2, axis=0)
    told, chance = (
        sum(mutual_information(slots.ravel(), x[..., c].ravel()) for c in range(x.shape[-1])) / max(entropy, 1e-12)
        for x in (scenes, other)
    )
    return {"told": told, "told_by_chance": chance, "slots_addressed": float(len(np.unique(slots)))}


def mutual_information(slots: np.ndarray, there: np.ndarray) -> float:
    """Of a slot's number and a fact, both [N], in bits, by their frequencies."""
    kinds, codes = np.unique(slots, return_inverse=True)
    joint = np.zeros((len(kinds), 2))
    np.add.at(joint, (codes, there.astype(int)), 1)
    joint /= joint.sum()
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log2(joint[some] / expected[some])).sum())


def _entropy(there: np.ndarray) -> float:
    share = there.mean()
    return 0.0 if share in (0, 1) else float(-share * np.log2(share) - (1 - share) * np.log2(1 - share))


def _text(rows: list[dict[str, Any]]) -> str:
    ways = list(dict.fromkeys(name for row in rows for name in row["accuracy"]))
    columns = ["method", "seed", "missing", *ways, "explained", "linear", "slots in use", "told", "by chance"]
    cells = []
    for row in rows:
        shown = [f"{row['accuracy'][way]:.1f}" if way in row["accuracy"] else "" for way in ways]
        slots = [f"{row[k]:.2f}" if k in row else "" for k in ("slots_in_use", "told", "told_by_chance")]
        explained = f"{row['explained'][RECALLED]:.2f}"
        cells.append(
            [
                f"{row['network']} {row['method']}",
                row["seed"],
                row["missing"],
                *shown,
                explained,
                f"{row['linear']:.2f}",
                *slots,
            ]
        )
    return (
        f"Accuracy in percent on {rows[0]['questions']} questions, by what the network gets for what is missing. "
        "*Explained*: share of the real features' variance that the recalled ones explain; *linear*: a ridge "
        "regression. *Told*: share of who sounds in a second (or is in the picture) that the most addressed slot "
        "tells.\n\n" + report.table(columns, cells)
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    ways = list(dict.fromkeys(name for row in rows for name in row["accuracy"]))
    for axes, missing in zip(figure.subplots(1, 2, sharey=True), MODALITIES, strict=True):
        of = [row for row in rows if row["missing"] == missing]
        methods = list(dict.fromkeys(row["method"] for row in of))
        for number, way in enumerate(ways):
            aside = 0.15 * (number - (len(ways) - 1) / 2)
            seeds = [[r["accuracy"].get(way, np.nan) for r in of if r["method"] == method] for method in methods]
            at = np.arange(len(methods)) + aside
            axes.plot(at, [np.mean(values) for values in seeds], "_", markersize=12, color=f"C{number}", label=way)
            for x, values in zip(at, seeds, strict=True):
                axes.plot([x] * len(values), values, ".", markersize=4, alpha=0.5, color=f"C{number}")
        axes.set_xticks(np.arange(len(methods)), [method.replace(", ", ",\n") for method in methods])
        axes.set_title(f"{missing} missing")
        axes.grid(axis="y", alpha=0.3)
        axes.label_outer()
    figure.supylabel("accuracy in percent: a dot a seed, a line their mean", fontsize="medium")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(ways), frameon=False, fontsize="small")


if __name__ == "__main__":
    raise SystemExit(main())
