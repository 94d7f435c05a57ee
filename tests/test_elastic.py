"""An ingestion on a store alone, while a node joins and another one is killed: the bytes of a local disk."""

from __future__ import annotations

import json

import pytest

from benchmarks.elastic import main, told

LINES = """\
ingest  2/48 clips  0.3 clips/s  2:02 left  failed 0  shards 21 to decode, 2 in flight of 2, 1 done
ingest  20/48 clips  0.3 clips/s  1:02 left  failed 0  shards 10 to decode, 4 in flight of 4, 10 done
ingest  48/48 clips  done in 2:40  failed 0  shards 0 to decode, 0 in flight of 2, 24 done, 1 lost with nodes
"""


IN_LINE = """\
shards 21 to decode, 2 in flight of 2, 0 wait for features, 0 of 1 extracting, 0 done
shards 8 to decode (held: features lag), 3 in flight of 4, 3 wait for features, 2 of 2 extracting, 9 done
shards 0 to decode, 0 in flight of 3, 1 wait for features, 1 of 1 extracting, 22 done, 2 lost with nodes
"""


@pytest.mark.unit
def test_what_the_progress_lines_tell():
    assert told(LINES) == ((2, 4, 2), 1)
    assert told(IN_LINE) == ((2, 4, 3), 2)
    assert told("nothing yet") == ((0, 0, 0), 0)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--features"]], ids=["media", "features"])
def test_one_node_joins_and_one_is_killed(tmp_path, more):
    assert main(["--rounds", "1", "--clips", "48", "--work", str(tmp_path), "--out", str(tmp_path), *more]) == 0
    (record,) = tmp_path.glob("elastic*/elastic*.json")
    (found,) = json.loads(record.read_text())["rounds"]
    assert found["identical"]
    assert found["joined"] < found["killed"] < found["seconds"]
