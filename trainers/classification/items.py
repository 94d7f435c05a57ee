"""Clips as training and evaluation items: media with noise drawn on the fly, and cached features; NaN where absent.

An item never depends on its neighbours or on the order it is read in: noise, frame and case come from (seed, epoch,
key).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from models.batch import AVBatch
from models.conditions import CASES, CONDITIONS, Condition, condition_named, variant
from models.corruptions.apply import Files, corrupt
from models.inputs import Normalisation
from models.noise import drawn_kind, generator, ruin
from models.settings import MODALITIES, Modality, NoiseConfig
from shards.errors import InputError
from shards.reader import Choose, Sample, ShardDataset
from shards.streaming import StreamDataset
from trainers.classification.mixup import mixed_sound, partner
from trainers.classification.resident import ResidentTokens
from trainers.classification.targets import ONE_LABEL, TargetForm, Targets
from trainers.data import Item, Items, Split, subset


@dataclass(frozen=True)
class InputSpec:
    """What a backbone takes: fbank frames, picture side in pixels, normalisation."""

    target_length: int
    image_size: int
    normalisation: Normalisation

    @property
    def blank(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one sample's inputs by modality."""
        return {"audio": (self.target_length, 128), "visual": (3, self.image_size, self.image_size)}

    def inputs(self, sample: Sample, missing: Sequence[Modality] = ()) -> dict[str, Tensor | None]:
        """Normalised inputs of one sample by modality, None where it is absent or in `missing`.

        Args:
            sample: ``audio`` float16 [frames, 128], ``frames`` one picture, uint8 [S, S, 3].
        """
        values: dict[str, Tensor | None] = {"audio": None, "visual": None}
        if "audio" in sample.arrays and "audio" not in missing:
            values["audio"] = self.normalisation.fbank(sample.arrays["audio"], self.target_length)
        if "frames" in sample.arrays and "visual" not in missing:
            values["visual"] = self.normalisation.picture(sample.arrays["frames"][None], 0, self.image_size)
        return values


def middle_frame(frames: int) -> int:
    """The one of a clip's frames that is looked at outside training."""
    return frames // 2


def masked(values: Mapping[str, Tensor | None], blank: Mapping[str, tuple[int, ...]]) -> tuple[Tensor, Tensor, Tensor]:
    """The mask at the loader's edge: sound and picture, NaN of the shape in `blank` where there is none, and
    which are there, bool [2]."""
    present = torch.tensor([values[m] is not None for m in MODALITIES])
    audio, visual = (x if (x := values[m]) is not None else torch.full(blank[m], float("nan")) for m in MODALITIES)
    return audio, visual, present


class LabelledItems(Items):
    """What both datasets of clips share: the labels."""

    def __init__(self, data: Split, vocabulary: Sequence[str], seed: int, form: TargetForm = ONE_LABEL):
        self.data, self.seed = data, seed
        self.targets = Targets(data, vocabulary, form)
        self.keys = data.keys

    def __len__(self) -> int:
        return len(self.data)

    @property
    def names(self) -> Sequence[str]:
        """The samples' keys."""
        return self.keys

    @property
    def stream(self) -> StreamDataset:
        """What is read through."""
        assert isinstance(self.data, StreamDataset)
        return self.data

    @property
    def shards(self) -> ShardDataset:
        """What is read by position."""
        assert isinstance(self.data, ShardDataset)
        return self.data

    def __getitem__(self, i: int) -> Item:
        return self.item(i, self.shards.rows(i % len(self), self.choose(i)))

    def _item(self, i: int, values: dict[str, Tensor | None], blank: dict[str, tuple[int, ...]]) -> Item:
        return *masked(values, blank), self._target(i), torch.tensor(i)

    def _target(self, i: int) -> Tensor:
        return self.targets[i]


class MediaItems(LabelledItems):
    """Samples of media shards as normalised inputs under a condition.

    Args:
        data: media shards of one split.
        vocabulary: the model's labels.
        spec: the model's input.
        conditions: one is drawn per sample and epoch (one alone: always that); names as `condition_named` takes them.
        noise: kinds and severities.
        seed: of noise, condition and frame.
        random_frame: any frame of the clip (training) instead of the middle one.
        form: of the targets.
        mixup: share of samples that are mixed with another one, see `trainers.classification.mixup`.
        proportion: share of the samples that is trained on, see `trainers.data.subset`; others are not mixed in.
        grain: largest noise added to the spectrogram.
        files: what corruptions mix in.

    Attributes:
        frame: the picture that is looked at, of all clips that have as many; None: as above.
    """

    frame: int | None = None
    members = ("audio.npy", "frames.npy")

    def __init__(
        self,
        data: Split,
        vocabulary: Sequence[str],
        spec: InputSpec,
        conditions: Sequence[str] = ("complete",),
        noise: NoiseConfig | None = None,
        seed: int = 0,
        random_frame: bool = False,
        form: TargetForm = ONE_LABEL,
        mixup: float = 0.0,
        grain: float = 0.0,
        files: Files | None = None,
        proportion: float = 1.0,
    ):
        super().__init__(data, vocabulary, seed, form)
        self.mixup, self.grain, self.proportion = mixup, grain, proportion
        self.spec, self.conditions, self.noise = (
            spec,
            [condition_named(c) for c in conditions],
            noise or NoiseConfig(),
        )
        self.random_frame, self.files = random_frame, files
        self._blank = spec.blank
        self._black = spec.normalisation.black

    def _key(self, i: int) -> str:
        """What a sample's draws depend on: its key, and how often it came before in the epoch."""
        times, at = divmod(i, len(self))
        return f"{self.keys[at]} again {times}" if times else self.keys[at]

    def condition(self, key: str) -> Condition:
        """The condition of a sample in this epoch."""
        if len(self.conditions) == 1:
            return self.conditions[0]
        return self.conditions[int(generator("condition", self.seed, self.epoch, key).integers(len(self.conditions)))]

    def choose(self, i: int) -> Choose:
        """All of the sound, and one picture."""
        key = self._key(i)
        return lambda name, shape: self._frame(key, shape[0]) if name == "frames" else None

    def item(self, i: int, sample: Sample) -> Item:
        """The item of a sample, of which `choose` chose."""
        return self._item(i, self._values(i, sample), self._blank)

    def corruption(self, i: int) -> tuple[str, str]:
        """What happens to each modality of a sample: "clean", a noise kind, "missing", or "absent" at
        source."""
        present, key = self.data.present[i], self.keys[i]
        condition = self.condition(key)
        severity = condition.severity(self.noise)

        def one(modality: Modality) -> str:
            if not present[MODALITIES.index(modality)]:
                return "absent"
            if modality in condition.missing:
                return "missing"
            if modality not in condition.noisy:
                return "clean"
            if condition.corruption is not None:
                return f"{condition.corruption.kind} {condition.level}"
            return drawn_kind(modality, severity, self.noise, self.seed, key, self.epoch)

        return one("audio"), one("visual")

    def _values(self, i: int, sample: Sample) -> dict[str, Tensor | None]:
        key = self._key(i)
        condition = self.condition(key)
        if condition.corruption is not None:
            return self.spec.inputs(self._corrupted(i, sample, condition), condition.missing)
        values = self._clean(i, sample, condition)
        for modality in condition.noisy:
            if (x := values[modality]) is not None:
                severity = condition.severity(self.noise)
                values[modality], _ = ruin(
                    x, modality, severity, self.noise, self.seed, key, self.epoch, floor=self._black
                )
        return values

    def _target(self, i: int) -> Tensor:
        mixed, at = self._partner(i), i % len(self)
        return self.targets[at] if mixed is None else self.targets.mixture(at, *mixed)

    def _partner(self, i: int) -> tuple[int, float] | None:
        """The sample that one is mixed with in this epoch, and the one's own share; others than of the same modalities
        are not mixed: nothing stands in for what is absent."""
        if not self.mixup:
            return None
        found = partner(self.seed, self.epoch, self._key(i), self.mixup, len(self._by_hash))
        if found is None:
            return None
        other = int(self._by_hash[found[0]])
        alike = (self.data.present[i % len(self)] == self.data.present[other]).all()
        return (other, found[1]) if alike else None

    @cached_property
    def _by_hash(self) -> np.ndarray:
        """Positions that may be mixed in, in an order that does not depend on the shards."""
        used = subset(self.ids, self.seed, self.proportion)
        return used[np.argsort(self.ids[used], kind="stable")]

    def _clean(self, i: int, sample: Sample, condition: Condition) -> dict[str, Tensor | None]:
        """Normalised inputs, of mixtures those of the mixture, before noise of the condition."""
        values = self.spec.inputs(sample, condition.missing)
        if (mixed := self._partner(i)) is not None:
            other, share = mixed
            theirs = self.shards.rows(other, self.choose(other))
            if (picture := self.spec.inputs(theirs, condition.missing)["visual"]) is not None:
                assert values["visual"] is not None
                values["visual"] = share * values["visual"] + (1 - share) * picture
            if values["audio"] is not None:
                sound = mixed_sound(sample.arrays["wave"], theirs.arrays["wave"], share)
                values["audio"] = self.spec.normalisation.fbank(sound, self.spec.target_length)
        if self.grain and (audio := values["audio"]) is not None:
            rng = generator("grain", self.seed, self.epoch, self._key(i))
            values["audio"] = audio + torch.from_numpy(
                (self.grain * rng.random() * rng.random(tuple(audio.shape))).astype(np.float32)
            )
        return values

    def frames(self, i: int) -> int:
        """Pictures that a sample has, at least one: without any it is looked at once."""
        return len(self.shards.view(i, "frames")) if self.data.present[i, MODALITIES.index("visual")] else 1

    def _corrupted(self, i: int, sample: Sample, condition: Condition) -> Sample:
        assert condition.corruption is not None
        assert self.files is not None
        if condition.corruption.sound is not None and "audio" in sample.arrays and "wave" not in sample.arrays:
            raise self.data.bad(i, "has no array 'wave', which the corruption of its sound starts from")
        key = (self.seed, self.keys[i], self.epoch)
        return Sample(sample.meta, corrupt(sample.arrays, condition.corruption, condition.level, self.files, *key))

    def _frame(self, key: str, frames: int) -> int:
        if self.frame is not None:
            return self.frame
        if not self.random_frame:
            return middle_frame(frames)
        return int(generator("frame", self.seed, self.epoch, key).integers(frames))


class FeatureItems(LabelledItems):
    """Samples of feature shards under one case; the noise draw changes with the epoch.

    Args:
        data: feature shards of one split.
        case: one of `CASES`.
        missing: share of samples with both modalities from which the case's ruined one is taken away
            altogether.
        form: of the targets.
    """

    members = ("audio.npy", "visual.npy")

    def __init__(
        self,
        data: Split,
        vocabulary: Sequence[str],
        case: str,
        seed: int = 0,
        missing: float = 0.0,
        form: TargetForm = ONE_LABEL,
    ):
        super().__init__(data, vocabulary, seed, form)
        assert case in CASES
        assert data.info.backbone is not None
        self.condition, self.missing = CONDITIONS[case], missing
        self._resident: ResidentTokens | None = None
        self._blank: dict[str, tuple[int, ...]] = {m: self._shape(m) for m in MODALITIES}
        if self.condition.noisy and data.info.backbone.variants == ("clean",):
            remedy = "extract the features again with draws of at least 1"
            raise InputError(f"hold no noisy draws for {case}", file=data.folder, field="draws", remedy=remedy)

    def make_resident(self, device: torch.device | None) -> None:
        """Hold all tokens on a device from now on; None: read them from disk again."""
        self._resident = None if device is None else ResidentTokens(self.shards, self._blank, device)

    def gathered(self, parts: Sequence[Sequence[int]]) -> Iterator[AVBatch] | None:
        """Batches from the tokens that are resident on a device; None where none are."""
        return None if self._resident is None else self._gather(self._resident, parts)

    def _gather(self, resident: ResidentTokens, parts: Sequence[Sequence[int]]) -> Iterator[AVBatch]:
        for positions in parts:
            rows = [self._rows(i, *resident.stored[i].tolist()) for i in positions]
            index = torch.tensor(positions)
            batch = AVBatch(*resident.gather(positions, rows), self.targets.batch(positions), index)
            yield batch.to(resident.device)

    def _rows(self, i: int, *stored: int) -> dict[str, int]:
        """The variant of each modality that a sample has in this epoch, of as many as are stored."""
        gone = self._taken_away(self.keys[i]) if all(stored) else None  # never both
        counts = zip(MODALITIES, stored, strict=True)
        return {m: self._row(m, count) for m, count in counts if count and m != gone}

    def choose(self, i: int) -> Choose:
        """One of the stored variants of each modality."""
        return lambda modality, shape: self._row(modality, shape[0])

    def item(self, i: int, sample: Sample) -> Item:
        """The item of a sample, of which `choose` chose."""
        arrays = sample.arrays
        gone = self._taken_away(self.keys[i]) if len(arrays) == 2 else None  # never both
        values: dict[str, Tensor | None] = {"audio": None, "visual": None}
        for modality, array in arrays.items():
            if modality != gone:
                values[modality] = torch.from_numpy(array).float()
        return self._item(i, values, self._blank)

    def _shape(self, modality: Modality) -> tuple[int, ...]:
        """[N, D] of a modality's tokens: of the first sample that has it (of any shape where none has)."""
        having = np.flatnonzero(self.data.present[:, MODALITIES.index(modality)])
        return self.data[int(having[0])].arrays[modality].shape[1:] if len(having) else (1, 1)

    def _row(self, modality, variants: int) -> int:
        """Which of the stored variants this epoch takes."""
        draws = (variants - 1) // 2  # evaluation splits hold fewer draws than the training split
        name = variant(self.condition, modality, self.epoch % max(draws, 1))
        kind, _, draw = name.partition("-")
        return 0 if kind == "clean" else 1 + int(draw) + (draws if kind == "both" else 0)

    def _taken_away(self, key: str) -> str | None:
        noisy = self.condition.noisy
        if not self.missing or not noisy:
            return None
        rng = generator("missing", self.seed, self.epoch, key)
        return noisy[int(rng.integers(len(noisy)))] if rng.random() < self.missing else None
