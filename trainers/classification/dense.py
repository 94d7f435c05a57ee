"""The recipe `dense`: a fine-tuned backbone learns what each second and each place of ensembles holds.

A linear head reads who sounds in a step, and how loud, from the row of sound that sequence features have of it;
another reads who is seen in a cell from the cell's row of the picture. Both heads are thrown away: what stays is
that a row holds it. Only the train split's clips are learnt from, whatever else the targets name.

Shapes: B clips, T steps, C classes, P cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs import digest
from configs.backbone import load_backbone
from configs.steps import middles, pictures, sounds
from models.backbone import DENSE, Backbone
from models.batch import AVBatch
from models.sequence import SoundRows, band_mixture, picture_rows, pooled
from models.settings import MODALITIES
from shards.dense_targets import DenseTarget, classes_of, load_targets
from shards.errors import InputError
from shards.hashes import file_sha256
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from trainers.classification.config import DenseConfig
from trainers.classification.items import masked
from trainers.classification.stages import media_info
from trainers.data import Items, collate
from trainers.loop import Stage
from trainers.metrics import StepOutput, sum_and_count
from trainers.recipe import Fingerprints

MIDDLE_DB, SCALE_DB = -30.0, 10.0  # of levels, as the head sees them


@dataclass(frozen=True)
class DenseBatch(AVBatch):
    """B clips step by step: `audio` [B, T, F, 128], `visual` [B, T, 3, H, W], NaN where absent or where no target
    tells of it; `label` float32 [B, T, C], levels in dB, NaN where a class is silent.

    Attributes:
        cells: float32 [B, P, C], 1 where a class is seen.
    """

    ON_HOST: ClassVar[tuple[str, ...]] = ("present",)

    cells: Tensor


class DenseItems(Items):
    """The clips of one split that a target tells something of.

    Args:
        data: media shards of one split.
        targets: by clip.
        classes: C.
        backbone: whose input they become.
        steps: T, frames of a clip.
        side: of the grid of cells.
    """

    def __init__(
        self,
        data: ShardDataset,
        targets: Mapping[str, DenseTarget],
        classes: Sequence[str],
        backbone: Backbone,
        steps: int,
        side: int,
    ):
        self.data, self.targets, self.classes = data, targets, classes
        self.backbone, self.steps, self.side = backbone, steps, side
        told = np.array([_told(targets.get(clip)) for clip in data.ids]).reshape(-1, 2)
        self.positions = np.flatnonzero((data.present & told).any(axis=1)).tolist()
        sizes = backbone.net.config
        self._length, self._size = sizes.target_length, sizes.image_size
        blank = {"audio": (self._length, 128), "visual": (3, self._size, self._size)}
        self._blank = {modality: (steps, *shape) for modality, shape in blank.items()}

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def names(self) -> Sequence[str]:
        """The samples' keys."""
        return [self.data.keys[i] for i in self.positions]

    def batch(self, positions: Sequence[int]) -> DenseBatch:
        """The batch of these positions."""
        rows = [self[i] for i in positions]
        common = collate([row[:5] for row in rows])
        return DenseBatch(**vars(common), cells=torch.stack([row[5] for row in rows]))

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        sample = self.data[self.positions[i]]
        target, norm = self.targets[sample.meta.id], self.backbone.normalisation
        values: dict[str, Tensor | None] = {"audio": None, "visual": None}
        levels = np.full((self.steps, len(self.classes)), np.nan, np.float32)
        cells = np.zeros((self.side**2, len(self.classes)), np.float32)
        if "audio" in sample.arrays and target.seconds is not None:
            values["audio"] = sounds(sample, self.steps, self._length, norm)
            levels = target.levels(self.classes, middles(sample.meta, self.steps))
        if "frames" in sample.arrays and target.places is not None:
            values["visual"] = pictures(sample, self.steps, self._size, norm)
            cells = target.cells(self.classes, self.side).astype(np.float32)
        label, seen = torch.from_numpy(levels), torch.from_numpy(cells)
        return *masked(values, self._blank), label, torch.tensor(i), seen


def _told(target: DenseTarget | None) -> tuple[bool, bool]:
    """Whether a target tells of sound and of the picture."""
    return target is not None and target.seconds is not None, target is not None and target.places is not None


class DenseLoss(nn.Module):
    """Who sounds (binary cross-entropy per class), how loud (squared error of those that do, in units of 10 dB), and
    who is seen in which cell (binary cross-entropy), each summed over classes, by linear heads on the rows of sequence
    features.

    Args:
        backbone: what learns.
        classes: C.
        side: of the grid of cells.
        level: weight of the levels.
    """

    def __init__(self, backbone: Backbone, classes: int, side: int, level: float):
        super().__init__()
        self.rows, self.side, self.level = SoundRows(backbone.net, backbone.bands), side, level
        self.hear, self.see = (nn.Linear(backbone.net.config.dim, width) for width in (2 * classes, classes))

    def forward(self, batch: DenseBatch) -> StepOutput:
        """The loss of what each clip has and a target tells of."""
        parts: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        there = batch.present.all(dim=0).tolist()
        for column, (modality, part) in enumerate(zip(MODALITIES, (self._heard, self._seen), strict=True)):
            rows = slice(None) if there[column] else batch.present[:, column].nonzero().squeeze(1)
            values = getattr(batch, modality)[rows]
            if len(values):
                losses, found = part(values, batch, rows)
                parts.append(losses.sum())
                metrics |= found
        if not parts:
            raise ValueError("a batch of clips of which no target tells anything")
        return StepOutput(torch.stack(parts).sum() / len(batch), None, metrics)

    def _heard(self, fbank: Tensor, batch: DenseBatch, rows: slice | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        levels = batch.label[rows]  # [b, T, C]
        sounding = ~levels.isnan()
        out = self.hear(self.rows(fbank.flatten(0, 1))).float().view(*levels.shape[:2], 2, -1)
        logits, guess = out[:, :, 0], out[:, :, 1]
        wanted = ((levels - MIDDLE_DB) / SCALE_DB).nan_to_num()
        error = (guess - wanted).square() * sounding
        bce = F.binary_cross_entropy_with_logits(logits, sounding.float(), reduction="none")
        off = SCALE_DB * (guess - wanted).abs()[sounding]
        metrics = {
            "second_accuracy": sum_and_count(((logits > 0) == sounding).all(dim=-1).flatten()),
            "level_error": sum_and_count(off),
        }
        return (bce + self.level * error).sum(dim=-1).mean(dim=1), metrics

    def _seen(self, frames: Tensor, batch: DenseBatch, rows: slice | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        wanted = batch.cells[rows][:, None].expand(-1, frames.shape[1], -1, -1)  # [b, T, P, C]
        tokens = pooled(picture_rows(self.rows.net, frames.flatten(0, 1)), self.side)
        logits = self.see(tokens).float().view(wanted.shape)
        bce = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        right = ((logits > 0) == (wanted > 0)).all(dim=-1)
        return bce.sum(dim=(2, 3)).mean(dim=1), {"cell_accuracy": sum_and_count(right.flatten())}


def stages(config: DenseConfig) -> list[Stage]:
    """Dense training, one stage.

    Raises:
        InputError: backbone, data or targets missing or of another kind, or no train clip has a target.
    """
    info, targets = media_info(config.data), load_targets(config.targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = load_backbone(config.backbone)
        backbone = replace(backbone, bands=backbone.bands or band_mixture(backbone.net.config.dim))
        side = _side(config, backbone)
        train = ShardDataset(config.data, "train", info=info)
        learnt = train_targets(config, train, targets)
        classes = classes_of(learnt.values())
        objective = DenseLoss(backbone, len(classes), side, config.level)
    common = (classes, backbone, _steps(info, config), side)
    val = None
    if "val" in info.splits:
        val = DenseItems(ShardDataset(config.data, "val", info=info), targets, *common)
    return [
        Stage(
            "dense",
            objective,
            DenseItems(train, learnt, *common),
            val if val is not None and len(val) else None,
            weights=lambda: _weights(objective),
            load=lambda weights: _load(objective, weights),
            meta=backbone.meta(),
            unused_parameters=True,
        )
    ]


def train_targets(
    config: DenseConfig, train: ShardDataset, targets: Mapping[str, DenseTarget]
) -> dict[str, DenseTarget]:
    """The targets of train clips; no other is learnt from.

    Raises:
        InputError: there are none, or none that tells anything.
    """
    ids = set(train.ids)
    found = {clip: target for clip, target in targets.items() if clip in ids and any(_told(target))}
    if not classes_of(found.values()):
        message = f"names no clip of the train split of {config.data}, or nobody in them"
        raise InputError(message, file=config.targets, field="targets", remedy="give the targets of these clips")
    return found


def fingerprints(config: DenseConfig) -> Fingerprints:
    """Of the media shards with the targets, and of the backbone.

    Raises:
        InputError: one of them is missing or of another kind.
    """
    info, backbone = media_info(config.data), load_backbone(config.backbone)
    targets = load_targets(config.targets)
    train = ShardDataset(config.data, "train", info=info)
    learnt = train_targets(config, train, targets)
    _steps(info, config)
    _side(config, backbone)
    less = len(train) - len(learnt)
    notes = (f"{less} of {len(train)} train clips have no targets and are left out",) if less else ()
    return Fingerprints(digest([info.fingerprint(), file_sha256(config.targets)]), backbone.fingerprint, notes)


def _steps(info: DatasetInfo, config: DenseConfig) -> int:
    steps = info.preprocessing.get("frames")
    if not isinstance(steps, int):
        remedy = "ingest the clips again with this version"
        raise InputError(
            "dataset.json has no number of frames per clip", file=config.data, field="frames", remedy=remedy
        )
    return steps


def _side(config: DenseConfig, backbone: Backbone) -> int:
    own = math.isqrt(backbone.net.config.tokens["visual"])
    if config.side is not None and config.side > own:
        remedy = f"choose 1 to {own}, or side=null for all"
        raise InputError(f"{config.side} is beyond the network's grid of {own}", field="side", remedy=remedy)
    return config.side or own


def _weights(objective: DenseLoss) -> dict[str, Tensor]:
    return {_stored(name): x for name, x in objective.state_dict().items()}


def _load(objective: DenseLoss, weights: dict[str, Tensor]) -> None:
    objective.load_state_dict({name: weights[_stored(name)] for name in objective.state_dict()})


def _stored(name: str) -> str:
    """The network's weights under their own names, as `finetune` has them, the others behind `DENSE`."""
    own = name.removeprefix("rows.")
    return own.removeprefix("net.") if own.startswith("net.") else f"{DENSE}{own}"
