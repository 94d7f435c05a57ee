"""Several datasets of the same clips, media and features say, as one: joined by key."""

from __future__ import annotations

from collections.abc import Sequence

from shards.errors import InputError
from shards.reader import Sample, ShardDataset
from shards.schema import SampleMeta


class JoinedDataset:
    """Samples by position, each with its part of every dataset; the first one's order and metadata.

    >>> data = JoinedDataset(media=ShardDataset("data/x", "train"), tokens=ShardDataset(features, "train"))
    >>> data[3]["tokens"].arrays["audio"].shape

    Args:
        common: keep the samples that every dataset has, instead of refusing datasets that differ.
        parts: datasets by the name that their samples get.

    Raises:
        InputError: a sample of one dataset is missing in another, or its presence flags differ.
    """

    def __init__(self, *, common: bool = False, **parts: ShardDataset):
        assert parts
        self.parts = parts
        places = {name: {key: i for i, key in enumerate(data.keys)} for name, data in parts.items()}
        keys = next(iter(parts.values())).keys
        if common:
            keys = [key for key in keys if all(key in own for own in places.values())]
        else:
            _same_keys(parts)
        self.keys = keys
        self._places = {name: [own[key] for key in keys] for name, own in places.items()}
        self._same_flags()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def metas(self) -> Sequence[SampleMeta]:
        """Metadata of all samples, as the first dataset has it."""
        name, data = next(iter(self.parts.items()))
        return [data.metas[i] for i in self._places[name]]

    def __getitem__(self, i: int) -> dict[str, Sample]:
        """Sample ``i`` of every dataset, by the dataset's name.

        Raises:
            IndexError, InputError: as `ShardDataset`.
        """
        return {name: data[self._places[name][i]] for name, data in self.parts.items()}

    def _same_flags(self) -> None:
        first = self.metas
        for name, data in self.parts.items():
            for meta, i in zip(first, self._places[name], strict=True):
                other = data.metas[i]
                if (meta.audio.present, meta.visual.present) != (other.audio.present, other.visual.present):
                    message = f"'{meta.key}' has other modalities than in {next(iter(self.parts))}"
                    raise InputError(message, file=data.folder, remedy="make this dataset again from the other")


def _same_keys(parts: dict[str, ShardDataset]) -> None:
    known = {name: set(data.keys) for name, data in parts.items()}
    for name, keys in known.items():
        for other, data in parts.items():
            if missing := sorted(keys - known[other]):
                message = f"'{missing[0]}' of {name} is missing in {other} ({len(missing)} in all)"
                remedy = "make the dataset again, or join with common=True"
                raise InputError(message, file=data.folder, field="key", remedy=remedy)
