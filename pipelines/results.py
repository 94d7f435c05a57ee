"""What finished shards of an ingestion left in their ledgers, a few of them in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pipelines.resume import read_ledger
from pipelines.shard_job import ShardResult


def finished(digests: Mapping[str, str], out: Path) -> dict[str, int]:
    """The shards that are finished, and how many clips of each failed in whole or in part.

    Args:
        digests: of the planned shards' rows, by name.
    """
    found = ((name, read_ledger(ShardResult, out, name, digest)) for name, digest in digests.items())
    return {name: len(result.quarantined) + result.halves for name, result in found if result is not None}


def quarantined_ids(out: Path, name: str, digest: str) -> frozenset[str]:
    """Ids of a finished shard's clips that are in quarantine."""
    result = read_ledger(ShardResult, out, name, digest)
    return frozenset(clip.id for clip in result.quarantined) if result else frozenset()


class Failures:
    """Ids in quarantine, by finished shard."""

    def __init__(self, digests: Mapping[str, str], out: Path):
        self._ids = lru_cache(maxsize=64)(lambda shard: quarantined_ids(out, shard, digests[shard]))

    def __call__(self, shard: str) -> frozenset[str]:
        return self._ids(shard)
