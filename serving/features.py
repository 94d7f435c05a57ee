"""Features of single clips by the networks behind a run: found again by what the run records of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from configs.backbone import has_backbone
from models.settings import MODALITIES
from pipelines.extractors import build_extractor
from pipelines.feature_shard import Extractor, features_of, reproducible
from pipelines.preprocessing import recorded_extraction
from pipelines.settings import FeatureConfig
from shards.errors import InputError
from shards.reader import Sample
from shards.schema import DATASET_FILE, DatasetInfo
from shards.store import place, size_of
from trainers.recipe import FinishedRun


@dataclass(frozen=True)
class FeatureMaker:
    """Media samples to feature samples, with the arithmetic of ``avmend features``.

    Attributes:
        extractor: the networks.
        config: what the features were made with.
        backbone: the `finetune` or `dense` run whose networks these are; None: they are public.
    """

    extractor: Extractor
    config: FeatureConfig
    backbone: Path | None = None

    def __call__(self, sample: Sample) -> Sample:
        """The sample's features, of what it has of sound and picture: ``audio`` and ``visual`` float16 [T, ...].

        Raises:
            InputError: features that float16 can't hold.
        """
        having = [m for m in MODALITIES if getattr(sample.meta, m).present]
        with reproducible(), torch.inference_mode():
            size = self.config.batch_size
            made: dict[str, np.ndarray] = {m: features_of(self.extractor, m, [sample], size)[0] for m in having}
        return Sample(sample.meta, made)


def feature_maker(
    run: FinishedRun,
    features: Path,
    media: Path,
    fingerprint: str,
    device: torch.device,
    backbone: Path | None = None,
    weights: Path | None = None,
) -> FeatureMaker:
    """The networks that made a run's features.

    Args:
        features, media: folders whose dataset.json say how they were made.
        fingerprint: of the networks, as the run records it.
        backbone: a `finetune` or `dense` run; None: the one beside `run` that has the fingerprint.
        weights: folder of public weights.

    Raises:
        InputError: networks that are not here or are others; names ``--backbone`` or ``--weights``.
    """
    config = recorded_extraction(DatasetInfo.load(features), features)
    info = DatasetInfo.load(media)
    if not config.needs_backbone and weights is None:
        remedy = "give --weights (weights=), the folder of public weights that the features were made with"
        message = f"answers from features of {config.extractor}, whose weights no run records"
        raise InputError(message, file=run.folder, field="weights", remedy=remedy)
    candidates = [backbone] if backbone or not config.needs_backbone else list(_backbones(run))
    for candidate in candidates:
        extractor = build_extractor(config, info, candidate, weights)
        if extractor.fingerprint == fingerprint:
            extractor.to(str(device))
            return FeatureMaker(extractor, config, candidate)
    option = "backbone" if config.needs_backbone else "weights"
    tried = (
        f"{backbone or weights} made others" if backbone or weights else "no finetune or dense run beside it made them"
    )
    message = f"answers from features of other networks: {config.extractor} of fingerprint {fingerprint[:12]}; {tried}"
    remedy = f"give --{option} ({option}=), with which its features were extracted"
    raise InputError(message, file=run.folder, field=option, remedy=remedy)


def imported_layout(features: Path) -> str | None:
    """The layout of published files that a folder's features were imported from; None: from none, or not there."""
    if size_of(place(features) / DATASET_FILE) is None:
        return None
    return DatasetInfo.load(features).preprocessing.get("layout")


def refuse_imported(run: FinishedRun, features: Path) -> None:
    """Refuse a run on features that were imported: nothing here makes such features of a clip.

    Raises:
        InputError: so.
    """
    if (layout := imported_layout(features)) is not None:
        message = f"answers from imported features (layout {layout}), which nothing here makes of clips"
        remedy = (
            "ask a run that was trained on features of 'avmend features'; 'avmend evaluate' asks about imported ones"
        )
        raise InputError(message, file=run.folder, field="data", remedy=remedy)


def _backbones(run: FinishedRun) -> Iterator[Path]:
    """Finished runs beside a run that hold a backbone."""
    for folder in sorted(run.folder.absolute().parent.iterdir()):
        if has_backbone(folder):
            yield folder
