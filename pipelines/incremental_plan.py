"""The plan kept in a folder (``ingest.json``), and how it may grow: shards are added to it, none is changed.

Each clip belongs to the last shard that it was planned into. Rows that the manifest gains are planned into
further shards; clips in quarantine are planned again on demand. So a shard, once finished, is never written
again, and what a killed run still had to do is all in the file.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydantic

from pipelines.manifest import Clip
from pipelines.plan import ShardPlan, make_plan, rows_digest
from pipelines.resume import same_config
from pipelines.settings import INGESTION_REVISION, IngestConfig, Partial
from shards.atomic import write_text
from shards.errors import InputError
from shards.schema import SCHEMA_VERSION, Frozen

PLAN_FILE = "ingest.json"
_REMEDY = "give another --out, or the manifest and config that this folder was begun with"


class KeptShard(Frozen):
    """A shard that was planned: ``digest`` of its rows, and of each row by the clip's id, in order; and what
    becomes of clips of which one stream fails."""

    digest: str
    clips: dict[str, str]
    partial: Partial = "quarantine"

    @pydantic.model_validator(mode="before")
    @classmethod
    def _digest_alone(cls, value: Any) -> Any:
        return {"digest": value, "clips": {}} if isinstance(value, str) else value  # version 0.1 kept no rows


class KeptPlan(Frozen):
    """``ingest.json``: the config, all shards ever planned, how many of them dataset.json accounts for; and the
    revision of the ingestion that made them (plans without one are of the first)."""

    schema_version: Literal[1] = SCHEMA_VERSION
    revision: int = 1
    config: dict[str, Any]
    assembled: int = 0
    shards: dict[str, KeptShard]

    @property
    def owners(self) -> dict[str, str]:
        """The shard of each clip, by id: the last one that it was planned into."""
        return {clip: name for name, shard in self.shards.items() for clip in shard.clips}

    def save(self, out: Path) -> None:
        """Write ``out/ingest.json``."""
        write_text(out / PLAN_FILE, self.model_dump_json(indent=1) + "\n")


def read_plan(out: Path, config: IngestConfig) -> KeptPlan:
    """The plan of ``out``; an empty one for a new folder.

    Raises:
        InputError: the folder belongs to another config or version, or to something else.
    """
    path = out / PLAN_FILE
    try:
        kept = KeptPlan.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        if (out / "media").exists() or (out / "dataset.json").exists():
            message, remedy = "holds a dataset that is not this command's", "give another --out"
            raise InputError(message, file=out, remedy=remedy) from None
        return KeptPlan(revision=INGESTION_REVISION, config=config.content(), shards={})
    except pydantic.ValidationError:
        raise InputError("unreadable, or begun with another version", file=path, remedy=_REMEDY) from None
    same_config(kept.config, config.content(), path, _REMEDY)
    return kept


@dataclass
class Growth:
    """What a manifest makes of a kept plan.

    Attributes:
        kept: the plan so far.
        clips: the manifest's, in order.
        base: the manifest's folder.
        failed: ids in quarantine, by finished shard.
        retry: plan those again.
        partial: of the shards that are added.
    """

    kept: KeptPlan
    clips: Sequence[Clip]
    base: Path
    failed: Mapping[str, set[str]]
    retry: bool = False
    partial: Partial = "quarantine"
    _digests: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._digests = {clip.id: rows_digest([clip], self.base)[:16] for clip in self.clips}

    def grown(self, samples_per_shard: int, path: Path) -> KeptPlan:
        """The plan with the shards that are to be added.

        Raises:
            InputError: the row of a clip that is planned or ingested was changed or removed.
        """
        self._fill(samples_per_shard, path)
        owners, numbers = self.kept.owners, {}
        again = self._again(owners, path)
        new = [clip for clip in self.clips if clip.id not in owners or clip.id in again]
        for name in self.kept.shards:
            split, number = name.rsplit("-", 1)
            numbers[split] = int(number) + 1
        added = make_plan(new, samples_per_shard, self.base, numbers)
        shards = dict(self.kept.shards)
        shards |= {shard.name: self._kept(shard) for shard in added}
        return self.kept.model_copy(update={"shards": shards})

    def _kept(self, shard: ShardPlan) -> KeptShard:
        rows = {clip.id: self._digests[clip.id] for clip in shard.clips}
        return KeptShard(digest=shard.digest, clips=rows, partial=self.partial)

    def _fill(self, samples_per_shard: int, path: Path) -> None:
        """Rows of a plan that was kept without them, from a manifest that gives the same shards."""
        if all(shard.clips for shard in self.kept.shards.values()):
            return
        mine = {s.name: self._kept(s) for s in make_plan(self.clips, samples_per_shard, self.base)}
        for name, shard in self.kept.shards.items():
            if name not in mine or mine[name].digest != shard.digest:
                message = f"the manifest is not the one this folder was begun with: shard {name} differs"
                raise InputError(message, file=path, remedy=_REMEDY)
        rows = {n: shard.model_copy(update={"partial": "quarantine"}) for n, shard in mine.items()}
        self.kept = self.kept.model_copy(update={"shards": {n: rows[n] for n in self.kept.shards}})

    def _again(self, owners: Mapping[str, str], path: Path) -> set[str]:
        """Clips in quarantine that are to be planned again; nothing else may have changed."""
        # A retry that was killed goes on; it is not begun anew.
        retry = self.retry and self.kept.assembled == len(self.kept.shards)
        again = set()
        for clip, name in owners.items():
            failed, now = clip in self.failed.get(name, ()), self._digests.get(clip)
            if now == self.kept.shards[name].clips[clip]:
                again |= {clip} if failed and retry else set()
            elif failed and now is not None and self.retry:
                again.add(clip)
            elif now is not None or not failed:  # who fails may be taken out of the manifest
                raise _changed(clip, name, path, failed, now is None)
        return again


def same_revision(kept: KeptPlan, done: Container[str], path: Path) -> KeptPlan:
    """The plan, which this version may go on with: one of another revision has nothing left to do, or nothing done.

    Raises:
        InputError: finished shards are of another revision, and others are still to be made.
    """
    if kept.revision == INGESTION_REVISION:
        return kept
    todo = [name for name in kept.shards if name not in done]
    if len(todo) == len(kept.shards):
        return kept.model_copy(update={"revision": INGESTION_REVISION})
    if todo:
        message = (
            f"its finished shards were made by revision {kept.revision} of the ingestion, {todo[0]} would be made by"
            f" revision {INGESTION_REVISION}: sound and frames of one file would be at other times"
        )
        remedy = "ingest all clips into another --out; this folder can still be read, trained on and evaluated"
        raise InputError(message, file=path, field="revision", remedy=remedy)
    return kept


def _changed(clip: str, shard: str, path: Path, failed: bool, gone: bool) -> InputError:
    if failed:
        message = f"the row of clip '{clip}', which is in quarantine, was changed"
        return InputError(message, file=path, remedy="add --retry-quarantined to try it again")
    what = "is gone from the manifest" if gone else "has another row in the manifest now"
    remedy = "put the row back as it was (rows may be added, not changed), or give another --out"
    return InputError(f"clip '{clip}' of shard {shard} {what}", file=path, remedy=remedy)


def shard_plans(kept: KeptPlan, clips: Sequence[Clip]) -> list[ShardPlan]:
    """The kept shards as work: each with the clips that belong to it."""
    rows, owners = {clip.id: clip for clip in clips}, kept.owners
    return [
        ShardPlan(
            name,
            name.rsplit("-", 1)[0],
            tuple(rows[clip] for clip in shard.clips if clip in rows and owners[clip] == name),
            shard.digest,
            shard.partial,
        )
        for name, shard in kept.shards.items()
    ]
