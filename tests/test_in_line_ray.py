"""Features meanwhile on Ray workers, on a store that fails, killed over and over: the bytes of a local disk."""

from __future__ import annotations

import pytest

from benchmarks.corpus import write_backbone
from benchmarks.s3 import proxied, s3_process
from benchmarks.stores import Bench, Round, is_bad, local, one_round
from pipelines.feature_shard import FeatureLedger
from shards.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_killed_on_a_store_it_ends_in_the_bytes_of_a_local_disk(tmp_path):
    backbone = write_backbone(tmp_path / "run" / "finetune", "tiny").parent
    with s3_process() as port, proxied(port) as proxy:
        bench = Bench(tmp_path, proxy, 2, ["--backbone", str(backbone)])
        manifest = bench.corpus(20)
        calm, seconds = local(bench, manifest, "kills", 2)
        found: list[Round] = []
        while sum(len(r.kills) for r in found) < 3:
            assert len(found) < 4, f"runs ended before they could be killed: {found}"
            found.append(one_round(bench, len(found), "ray", manifest, calm, seconds / 3, 0))
    assert not any(map(is_bad, found)), found
    (features,) = (calm / "features").iterdir()
    ledgers = sorted((features / "ledger").glob("*.json"))
    assert len(ledgers) == len(list((calm / "ledger").glob("*.json"))) >= 10
    assert sum(FeatureLedger.model_validate_json(path.read_bytes()).shard.samples for path in ledgers) == 20
    assert verify(features) == []
