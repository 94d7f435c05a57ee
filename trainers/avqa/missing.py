"""Missing modality in training: the seeded table of what each clip lacks, drawn as the masks of an evaluation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from models.settings import MODALITIES, Modality
from shards.errors import InputError
from trainers.avqa.clips import Clips
from trainers.avqa.config import TrainMissing
from trainers.avqa.masks import draw, lacking

TABLE_FILE = "missing.csv"


@dataclass(frozen=True)
class TrainTable:
    """What each training clip is made to lack. Clips that have one modality alone at their source keep it.

    Attributes:
        lacks: by clip; of every clip that can be asked about in training.
    """

    lacks: Mapping[str, tuple[Modality, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: TrainMissing, asked: Iterable[str], clips: Clips) -> TrainTable:
        """The table of the clips that are asked about; empty where nothing is taken away."""
        if not config.taken:
            return cls()
        asked = sorted(set(asked))
        whole = [clip for clip in asked if clips.present[clips.number[clip]].all()]
        drawn = lacking(draw(config.seed, whole, apart=not config.both), config.rates, config.balanced)
        return cls({clip: drawn.get(clip, ()) for clip in asked})

    def __bool__(self) -> bool:
        return bool(self.lacks)

    def left(self, clips: Clips, absent: Modality | None = None) -> set[str]:
        """The clips of which something is left, besides `absent`.

        Raises:
            InputError: of none.
        """
        found = {clip for clip, of in self.lacks.items() if clips.left(clip, absent, *of)}
        if not found:
            message = "of no training clip anything is left: nothing could train"
            raise InputError(message, file=clips.folder, field="train_missing", remedy="lower its rates")
        return found

    @property
    def said(self) -> str:
        """In a line."""
        gone = [f"{sum(of == (m,) for of in self.lacks.values())} lack {m}" for m in MODALITIES]
        if both := sum(len(of) == len(MODALITIES) for of in self.lacks.values()):
            gone.append(f"{both} both, and are left out")
        return f"of {len(self.lacks)} training clips {', '.join(gone)}, as {TABLE_FILE} of the run says"

    def text(self) -> str:
        """As CSV, a line per clip: whether it is made to lack either, 0 or 1."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["clip", *(f"{m}_missing" for m in MODALITIES)])
        writer.writerows([clip, *(int(m in of) for m in MODALITIES)] for clip, of in self.lacks.items())
        return out.getvalue()


NO_TABLE = TrainTable()
