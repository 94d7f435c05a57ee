"""What each prompt level learns beside a frozen network of the published structure: gradients at step one, and figures.

    python -m benchmarks.prompt_levels --media SHARDS --work DIR     # shards of avmend ingest

A small CAV-MAE without any fusion of ours is tuned on the clean clips, written as a released file (its names, a
`module.` prefix) and taken in by `avmend import cavmae`. Prompts of either level and of both then train on its cached
tokens, one set per case, and answer the test clips' tokens of that case. `opened` is the fusion that fine-tuning starts
with (its output projection zero), in which attention-level prompts get no gradient while the network is frozen.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.report import positive
from configs.backbone import load_backbone
from models.backbone import Backbone
from models.batch import AVBatch
from models.cavmae import CAVMAE
from models.conditions import NOISY_CASES, Case
from models.inputs import Normalisation
from models.prompts import DualPrompts
from models.settings import BackboneConfig
from pipelines.features import extract
from pipelines.settings import FeatureConfig
from shards.atomic import write_text
from shards.checkpoint import has_checkpoint, save_checkpoint
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from trainers.classification.config import FinetuneConfig, PromptConfig
from trainers.classification.items import FeatureItems
from trainers.classification.objective import CaseLoss
from trainers.classification.stages import case_stages, finetune_stages
from trainers.classification.targets import TargetForm
from trainers.data import batches
from trainers.imports.command_line import import_parser
from trainers.imports.kinds import KINDS
from trainers.loop import Rank, Stage, local_rank, train_stage
from trainers.metrics import MeanMetrics, RankedClips, StepOutput
from trainers.tables import MEAN_AP

LEVELS: dict[str, dict[str, Any]] = {
    "input": {"attention_level": False},
    "attention": {"input_level": False},
    "both": {},
}
BATCH = 64


def quiet(stage: str, epoch: int, metrics: dict[str, float]) -> None:
    """No report."""


def released_file(args: argparse.Namespace, work: Path) -> Path:
    """A network of the published structure, tuned on the clean clips, as a released file."""
    info, path = DatasetInfo.load(args.media), work / "released.pth"
    if path.exists():
        return path
    sizes = BackboneConfig(
        dim=args.dim, heads=2, depth=2, target_length=args.frames, image_size=args.side, fusion="prompts"
    )
    torch.manual_seed(0)
    fresh = Backbone(CAVMAE(sizes, len(info.labels)), info.labels, Normalisation())
    save_checkpoint(work / "fresh" / "finetune", fresh.net.state_dict(), fresh.meta())
    config = FinetuneConfig(
        data=args.media, start=work / "fresh", epochs=args.backbone_epochs, batch_size=32, lr=2e-3, workers=0
    )
    (stage,) = finetune_stages(config)
    train_stage(stage, config, local_rank(args.threads, False), work / "tuned", quiet)
    state = {f"module.{name}": x for name, x in stage.weights().items() if not name.startswith("fusion_")}
    torch.save(state, path)
    return path


def taken_in(args: argparse.Namespace, work: Path, loss: str) -> Path:
    """The run of ``avmend import cavmae``."""
    labels = work / "classes.csv"
    labels.write_text("".join(f'"{label}"\n' for label in DatasetInfo.load(args.media).labels))
    words = [str(released_file(args, work)), "--labels", str(labels), "--loss", loss, "--heads", "2"]
    made = KINDS["cavmae"].run(
        import_parser().parse(["cavmae", *words, "--alone", "own", "--runs", str(work), "--data", str(args.media)])
    )
    return Path(str(made))


def opened(backbone: Path, work: Path) -> Path:
    """The same network with the fusion that fine-tuning starts with."""
    found = load_backbone(backbone)
    if has_checkpoint(work / "opened" / "finetune"):
        return work / "opened"
    torch.manual_seed(0)
    net = CAVMAE(replace(found.net.config, fusion="residual"), found.net.classes)
    own = {name: x for name, x in found.net.state_dict().items() if not name.startswith("fusion_")}
    net.load_state_dict({**net.state_dict(), **own})
    save_checkpoint(work / "opened" / "finetune", net.state_dict(), replace(found, net=net).meta())
    return work / "opened"


def stage_of(config: PromptConfig) -> Stage:
    """Of its one case."""
    (stage,) = case_stages(config)
    return stage


def gradients(stage: Stage) -> dict[str, float]:
    """Root mean square of the loss's gradient at step one, by level."""
    objective = stage.objective
    assert isinstance(objective, CaseLoss)
    prompts = objective.tuned.module
    assert isinstance(prompts, DualPrompts)
    objective(stage.train.batch(range(min(BATCH, len(stage.train))))).loss.backward()
    levels = {"input": prompts.input_tokens, "attention": prompts.attention_tokens}
    return {name: _size(list(level.parameters())) for name, level in levels.items() if len(level)}


def _size(parameters: Sequence[torch.nn.Parameter]) -> float:
    grads = [p.grad for p in parameters if p.grad is not None]
    return float(torch.cat([g.flatten() for g in grads]).square().mean().sqrt()) if grads else 0.0


@torch.no_grad()
def figure(objective: CaseLoss, features: Path, case: str, labels: tuple[str, ...]) -> float:
    """Accuracy, or mAP, of a case's test clips in percent."""
    form = TargetForm(several=objective.loss == "bce")
    items = FeatureItems(ShardDataset(features, "test"), labels, case, form=form)
    running, ranked = MeanMetrics(torch.device("cpu")), RankedClips()
    objective.eval()
    for batch in batches(items, range(len(items)), BATCH, 0, drop_last=False):
        output = objective(batch)
        running.add(batch, output)
        ranked.add(batch, output)
    found = {**running.means(Rank())[0], **ranked.means(Rank())}
    return 100 * found[MEAN_AP if objective.loss == "bce" else "accuracy"]


def measured(args: argparse.Namespace, backbone: Path, features: Path, work: Path) -> Iterator[dict[str, Any]]:
    """A row per level, case and seed; `none` is the untouched network. What was measured before is read."""
    for case in args.cases:
        for level in ("none", *LEVELS):
            for seed in range(args.repeats if level in LEVELS else 1):
                folder = work / f"{level}-{case}-{seed}"
                done = folder / "row.json"
                if not done.exists():
                    row = {"level": level, "case": case, "seed": seed}
                    row |= _row(args, backbone, features, folder, level, case, seed)
                    write_text(done, json.dumps(row) + "\n")
                yield json.loads(done.read_text())


def _row(
    args: argparse.Namespace, backbone: Path, features: Path, folder: Path, level: str, case: Case, seed: int
) -> dict[str, Any]:
    config = PromptConfig(
        data=args.media, backbone=backbone, features=features, cases=(case,), seed=seed, workers=0,
        length=args.length, epochs=args.epochs, lr=args.lr, batch_size=BATCH, **LEVELS.get(level, {}),
    )  # fmt: skip
    stage, labels = stage_of(config), load_backbone(backbone).labels
    assert isinstance(stage.objective, CaseLoss)
    folder.mkdir(parents=True, exist_ok=True)
    if level not in LEVELS:
        return {"figure": figure(Untouched(stage.objective), features, case, labels)}
    first = gradients(stage)
    stage.objective.zero_grad(set_to_none=True)
    train_stage(stage, config, local_rank(args.threads, False), folder, quiet)
    return {"figure": figure(stage.objective, features, case, labels), "gradient": first}


class Untouched(CaseLoss):
    """The loss of the network without prompts."""

    def __init__(self, objective: CaseLoss):
        super().__init__(objective.tuned, objective.depth, objective.loss)

    def forward(self, batch: AVBatch) -> StepOutput:
        logits = self.tuned.backbone(batch.audio, batch.visual, batch.present, self.depth).float()
        return StepOutput(logits.new_zeros(()), logits)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    args.media, work = args.media.absolute(), args.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    found = report.machine("cpu")
    several = any(len(meta.labels) > 1 for meta in ShardDataset(args.media, "train").metas)
    backbone = taken_in(args, work, "bce" if several else "ce")
    features = extract(args.media, backbone, FeatureConfig(draws=args.draws, workers=0))
    zero = opened(backbone, work)
    other = extract(args.media, zero, FeatureConfig(draws=1, workers=0, splits=("train",)))
    config = PromptConfig(data=args.media, backbone=zero, features=other, cases=("noisy_audio",), length=args.length)
    before = gradients(stage_of(config))
    rows = list(measured(args, backbone, features, work))
    name = MEAN_AP if several else "accuracy"
    text = _text(rows, before, name, args)
    settings = {
        k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k not in ("out", "media", "work")
    }
    record = {"machine": found, "settings": settings, "metric": name, "opened": before, "rows": rows}
    report.save(
        args.out,
        "prompt-levels",
        "Prompt levels beside a frozen public network",
        text,
        record,
        lambda f: _draw(f, rows, name, args.cases),
    )
    return 0 if has_checkpoint(backbone / "finetune") else 1


def _text(rows: Sequence[dict[str, Any]], before: dict[str, float], name: str, args: argparse.Namespace) -> str:
    body = []
    for level in ("none", *LEVELS):
        mine = [row for row in rows if row["level"] == level]
        first = [row["gradient"] for row in mine if "gradient" in row]
        cells = [
            f"{statistics.fmean(g[k] for g in first):.1e}" if first and k in first[0] else ""
            for k in ("input", "attention")
        ]
        body.append([level, *cells, *(_cell([r["figure"] for r in mine if r["case"] == case]) for case in args.cases)])
    opening = ["both, opened", *(f"{before[k]:.1e}" for k in ("input", "attention")), *([""] * len(args.cases))]
    head = ["level", "gradient, input", "gradient, attention", *(case.replace("_", " ") for case in args.cases)]
    return (
        f"Gradient: root mean square at step one. {name} in percent on the test clips' tokens, mean ± half width of "
        f"the 95 % interval over {args.repeats} seeds; {args.length} tokens, {args.epochs} epochs.\n\n"
        + report.table(head, [*body, opening])
    )


def _cell(values: Sequence[float]) -> str:
    from tuning.report.intervals import of_values

    mean, half = of_values(values)
    return f"{mean:.1f}" if len(values) < 2 else f"{mean:.1f} ± {half:.1f}"


def _draw(page: Any, rows: Sequence[dict[str, Any]], name: str, cases: Sequence[str]) -> None:
    axes, levels = page.subplots(), ("none", *LEVELS)
    for i, level in enumerate(levels):
        means = [
            statistics.fmean(r["figure"] for r in rows if (r["level"], r["case"]) == (level, case)) for case in cases
        ]
        axes.bar([k + (i - 1.5) * 0.2 for k in range(len(cases))], means, 0.19, label=level)
    axes.set_xticks(range(len(cases)), [case.replace("_", " ") for case in cases])
    axes.set_ylabel(f"{name}, %")
    axes.legend()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.prompt_levels", description=__doc__)
    parser.add_argument("--media", type=Path, required=True, help="media shards with splits train and test")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs; what is finished there is kept")
    parser.add_argument("--dim", type=positive, default=64)
    parser.add_argument("--frames", type=positive, default=128, help="fbank frames of a clip")
    parser.add_argument("--side", type=positive, default=64, help="pixels of a picture")
    parser.add_argument("--backbone-epochs", type=positive, default=25)
    parser.add_argument("--epochs", type=positive, default=6)
    parser.add_argument("--length", type=positive, default=8)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--draws", type=positive, default=2)
    parser.add_argument("--cases", nargs="+", choices=NOISY_CASES, default=NOISY_CASES, help="default: all three")
    parser.add_argument("--repeats", type=positive, default=3, help="seeds (default 3)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
