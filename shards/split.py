"""What is known of a split's samples without reading one: the columns that all ways of reading share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.errors import InputError
from shards.scan import DAMAGED
from shards.schema import DatasetInfo
from shards.table import SplitTable, Strings, index_path


class SplitData:
    """The samples of one split, in manifest order, by position.

    Attributes:
        folder: of dataset.json and the table.
        table: where the samples lie, and what their jsons say.
    """

    folder: Path
    split: str
    info: DatasetInfo
    table: SplitTable

    def __len__(self) -> int:
        return self.info.splits[self.split].samples

    @property
    def keys(self) -> Strings:
        """Keys of all samples, in order."""
        return self.table.keys

    @property
    def ids(self) -> Strings:
        """Their ids, as the manifest spells them."""
        return self.table.ids

    @property
    def present(self) -> np.ndarray:
        """Which modalities each sample has, bool [samples, 2], audio and visual."""
        return self.table.present

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of `shards.table` over all samples (``labels``, ``group``, ``duration``, ...).

        Raises:
            InputError: the table is damaged.
        """
        try:
            return self.table.column(name)
        except pa.ArrowInvalid as error:
            file = index_path(self.folder, self.split)
            raise InputError(
                f"damaged: {error}", file=file, remedy="run 'avmend shards index' on the dataset"
            ) from None

    def bad(self, i: int, message: str) -> InputError:
        """What to raise about sample ``i``."""
        shard = self.info.splits[self.split].shards[self.table.shard[i]]
        return InputError(message, file=f"{shard.name}: {self.keys[i]}", remedy=DAMAGED)


def require_split(info: DatasetInfo, split: str, folder: str | Path) -> None:
    """Refuse a split that a dataset has not.

    Raises:
        InputError: so.
    """
    if split not in info.splits:
        remedy = f"choose one of: {', '.join(info.splits)}"
        raise InputError(f"the dataset has no split '{split}'", file=folder, field="split", remedy=remedy)
