"""What dataset.json says of how clips became samples, written and read back as the config that does the same."""

from __future__ import annotations

from pathlib import Path

import pydantic

from models.fbank import FRAME_RATE, MEL_BINS, SAMPLE_RATE, WINDOW
from pipelines.settings import INGESTION_REVISION, NEWER, FeatureConfig, IngestConfig
from shards.errors import InputError
from shards.schema import DatasetInfo

_FRAMES = {
    "exact": "uniform frames",
    "approximate": "approximate: key frames near uniform moments",
}


def preprocessing(config: IngestConfig, revision: int = INGESTION_REVISION) -> dict[str, object]:
    """What dataset.json of media shards says of how clips became samples; the first `revision` is not spelled out."""
    return {
        **({"revision": revision} if revision > 1 else {}),
        "audio": "kaldi log-mel, htk_compat, hanning, mean removed, no dither",
        "sample_rate": SAMPLE_RATE,
        "frame_rate": FRAME_RATE,
        "window": WINDOW,
        "mel_bins": MEL_BINS,
        "frames": config.frames,
        "image_size": config.image_size,
        "visual": f"{_FRAMES[config.frame_mode]}, shorter side bicubic, centre crop",
        "wave": config.keep_wave,
        **{name: value for name, value in config.content().items() if name in NEWER},
    }


def recorded_ingestion(info: DatasetInfo, folder: Path) -> IngestConfig:
    """The config whose samples are those of a media dataset, in this process.

    Raises:
        InputError: dataset.json does not say how its clips were made; `folder` is the dataset's.
    """
    said = info.preprocessing
    modes = {text: mode for mode, text in _FRAMES.items()}
    try:
        return IngestConfig(
            frames=said["frames"],
            image_size=said["image_size"],
            frame_mode=modes[str(said["visual"]).partition(", shorter side")[0]],  # type: ignore[arg-type]
            keep_wave=said.get("wave", False),
            workers=0,
            **{name: said[name] for name in NEWER if name in said},
        )
    except (KeyError, pydantic.ValidationError) as error:
        message = f"does not say how its clips became samples: {error}"
        raise InputError(message, file=folder, field="preprocessing", remedy="ingest the clips again") from None


def recorded_extraction(info: DatasetInfo, folder: Path) -> FeatureConfig:
    """The config that features were made with, in this process.

    Raises:
        InputError: dataset.json does not say it; `folder` is the features'.
    """
    said = {name: value for name, value in info.preprocessing.items() if name in FeatureConfig.model_fields}
    try:
        return FeatureConfig.model_validate({**said, "splits": None, "workers": 0})
    except pydantic.ValidationError as error:
        message = f"does not say how the features were made: {error}"
        raise InputError(message, file=folder, field="preprocessing", remedy="extract them again") from None
