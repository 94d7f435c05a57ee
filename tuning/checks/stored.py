"""What lies on disks: the MLflow store, datasets, the cluster's file."""

from __future__ import annotations

from pathlib import Path

from shards.errors import InputError
from shards.schema import DATASET_FILE, DatasetInfo
from shards.verify import verify
from tuning.checks.cluster_file import placeholders, problems, read_cluster
from tuning.checks.finding import Finding, fail, ok, refused, skip, warn


def check_store(runs: Path) -> list[Finding]:
    """The MLflow store opens, takes a write, and has this version's schema."""
    from trainers.tracking import probe_store

    try:
        return [ok("mlflow store", probe_store(runs))]
    except InputError as error:
        return [refused("mlflow store", error)]


def check_datasets(folders: list[Path]) -> list[Finding]:
    """Every byte of the datasets, and of the feature datasets in them, against their dataset.json."""
    if not folders:
        return [skip("shards", "name datasets with --data to have their hashes checked")]
    return [finding for folder in folders for finding in _dataset(folder)]


def _dataset(folder: Path) -> list[Finding]:
    findings = []
    for place in (folder, *sorted(path.parent for path in folder.glob(f"features/*/{DATASET_FILE}"))):
        try:
            found = verify(place)
            shards = [shard for split in DatasetInfo.load(place).splits.values() for shard in split.shards]
        except InputError as error:
            findings.append(refused("shards", error))
            continue
        if found:
            more = f", and {len(found) - 1} more (avmend shards verify {place})" if len(found) > 1 else ""
            remedy = "copy the file again, or delete it and run the ingestion again"
            findings.append(fail("shards", f"{place}: {found[0]}{more}", remedy))
        else:
            size = sum(shard.bytes for shard in shards) / 1e6
            findings.append(ok("shards", f"{place}: {len(shards)} shards, {size:.1f} MB, as written"))
    return findings


def check_cluster_file(path: Path | None) -> list[Finding]:
    """Ray's launcher takes the file, and what it starts is closed to others and shares its storage."""
    if path is None:
        return [skip("cluster file", "none here; name one with --cluster")]
    try:
        cluster = read_cluster(path)
    except InputError as error:
        return [refused("cluster file", error)]
    if found := problems(cluster):
        return [fail("cluster file", f"{path}: {problem}", problem.remedy) for problem in found]
    if left := placeholders(path):
        return [warn("cluster file", f"{path}: still to fill in: {', '.join(left)}", "put your own values there")]
    return [ok("cluster file", f"{path}: takes the token, closed, storage shared")]
