"""What is known of a split's samples without reading one: the columns that all ways of reading share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.errors import InputError
from shards.remote import forget_table
from shards.scan import DAMAGED
from shards.schema import DatasetInfo
from shards.table import SplitTable, Strings, index_path

INDEX = "run 'avmend shards index' on the dataset"
UPLOADED = f"{INDEX} where it lies, and upload index/"


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
            raise self.bad_table(f"damaged: {error}") from None

    def bad_table(self, message: str) -> InputError:
        """What to raise about the table; one that was fetched goes."""
        path = index_path(self.folder, self.split)
        return InputError(message, file=path, remedy=UPLOADED if forget_table(path) else INDEX)

    def bad(self, i: int, message: str) -> InputError:
        """What to raise about sample ``i``. A table that was fetched goes: it may have misled."""
        forget_table(index_path(self.folder, self.split))
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
