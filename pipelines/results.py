"""What finished shards of an ingestion left in their ledgers, a few of them in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pipelines.resume import read_ledger
from pipelines.shard_job import ShardResult
from shards.store import Place, each


def finished(digests: Mapping[str, str], out: Place) -> dict[str, int]:
    """The shards that are finished, and how many clips of each failed in whole or in part.

    Args:
        digests: of the planned shards' rows, by name.
    """

    def look(name: str) -> tuple[str, ShardResult | None]:
        return name, read_ledger(ShardResult, out, name, digests[name])

    found = each(look, digests, out)
    return {name: len(result.quarantined) + result.halves for name, result in found if result is not None}


def quarantined_ids(out: Place, name: str, digest: str) -> frozenset[str]:
    """Ids of a finished shard's clips that are in quarantine."""
    result = read_ledger(ShardResult, out, name, digest)
    return frozenset(clip.id for clip in result.quarantined) if result else frozenset()


class Failures:
    """Ids in quarantine, by finished shard."""

    def __init__(self, digests: Mapping[str, str], out: Place):
        self._ids = lru_cache(maxsize=64)(lambda shard: quarantined_ids(out, shard, digests[shard]))

    def __call__(self, shard: str) -> frozenset[str]:
        return self._ids(shard)
