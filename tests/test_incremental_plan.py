"""A folder whose manifest grows, and clips that are tried again: shards are added, none is rewritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines import ingest as ingestion
from pipelines import manifest, merge
from pipelines.incremental_plan import KeptPlan
from pipelines.ingest import ingest
from pipelines.settings import IngestConfig
from pipelines.shard_job import ingest_shard
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.verify import verify
from tests.fixtures.media import make_clip
from tests.test_ingest import digests, write_manifest

pytestmark = pytest.mark.unit
CONFIG = IngestConfig(samples_per_shard=2, workers=0)
FIRST = ["a,a.wav,x,train", "bad,bad.wav,x,train", "c,a.wav,y,train", "t,a.wav,x,test"]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Sounds, of which bad.wav is empty; a dataset of ``FIRST`` in out/."""
    make_clip(tmp_path / "a.wav", video=False, seconds=0.1)
    (tmp_path / "bad.wav").touch()
    ingest(write_manifest(tmp_path, *FIRST), tmp_path / "out", CONFIG)
    return tmp_path


def again(folder: Path, *rows: str, out: str = "out", retry: bool = False) -> dict[str, list[str]]:
    """Ingest other rows into the same folder; the ids of each split afterwards."""
    ingest(write_manifest(folder, *rows), folder / out, CONFIG, retry_quarantined=retry)
    assert verify(folder / out) == []
    info = ShardDataset(folder / out, "train").info
    return {split: [meta.id for meta in ShardDataset(folder / out, split).metas] for split in info.splits}


def quarantined(folder: Path, out: str = "out") -> list[tuple[str, str]]:
    lines = (folder / out / "quarantine.jsonl").read_text().splitlines()
    return [(line["id"], line["error"]) for line in map(json.loads, lines)]


def tars(folder: Path, out: str = "out") -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / out / "media").iterdir()}


def test_rows_that_are_added_make_further_shards(folder):
    before = tars(folder)
    assert set(before) == {"train-000000.tar", "train-000001.tar", "test-000000.tar"}
    found = again(folder, "new0,a.wav,x,train", *FIRST[:2], "new1,a.wav,y,test", *FIRST[2:], "v,a.wav,x,val")
    assert found == {"train": ["a", "c", "new0"], "test": ["t", "new1"], "val": ["v"]}
    after = tars(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"train-000002.tar", "test-000001.tar", "val-000000.tar"}
    assert quarantined(folder) == [("bad", "truncated")]
    assert again(folder, *FIRST, "new0,a.wav,x,train", "new1,a.wav,y,test", "v,a.wav,x,val") == found


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,a.wav,y,train", *FIRST[1:]], "clip 'a' of shard train-000000 has another row"),
        (FIRST[1:], "clip 'a' of shard train-000000 is gone"),
        ([*FIRST[:1], "bad,a.wav,x,train", *FIRST[2:]], "clip 'bad', which is in quarantine, was changed"),
    ],
)
def test_rows_of_the_plan_may_not_change(folder, rows, message):
    before = digests(folder / "out")
    with pytest.raises(InputError, match=message):
        again(folder, *rows)
    assert digests(folder / "out") == before


def of_an_earlier_ingestion(out: Path) -> None:
    """As the first version left it: no revision, neither in the plan nor in dataset.json."""
    for name in ("ingest.json", "dataset.json"):
        found = json.loads((out / name).read_text())
        assert found.pop("revision", found["preprocessing"].pop("revision", 2) if name == "dataset.json" else 2) == 2
        (out / name).write_text(json.dumps(found, indent=1) + "\n")


def test_a_folder_begun_by_an_earlier_ingestion_is_not_continued_and_can_be_read(folder):
    of_an_earlier_ingestion(folder / "out")
    before = digests(folder / "out")
    with pytest.raises(InputError, match=r"revision 1 .*train-000002 .*revision 2") as error:
        again(folder, *FIRST, "new,a.wav,x,train")
    assert "ingest all clips into another --out" in str(error.value)
    assert digests(folder / "out") == before
    next((folder / "out/ledger").glob("test-*.json")).unlink()  # a shard that was not finished
    with pytest.raises(InputError, match="revision 1 of the ingestion"):
        again(folder, *FIRST)
    assert len(ShardDataset(folder / "out", "train")) == 2


def test_what_an_earlier_ingestion_finished_stays_as_it_is_and_what_it_only_planned_is_begun_anew(folder):
    of_an_earlier_ingestion(folder / "out")
    before = digests(folder / "out")
    assert again(folder, *FIRST)["train"] == ["a", "c"]
    assert digests(folder / "out") == before
    for path in (folder / "out/ledger").iterdir():
        path.unlink()
    assert again(folder, *FIRST, "new,a.wav,x,train")["train"] == ["a", "c", "new"]
    assert json.loads((folder / "out/ingest.json").read_text())["revision"] == 2
    assert ShardDataset(folder / "out", "train").info.preprocessing["revision"] == 2


def test_a_clip_in_quarantine_may_be_taken_out(folder):
    assert again(folder, FIRST[0], *FIRST[2:])["train"] == ["a", "c"]
    assert quarantined(folder) == []


def test_what_failed_is_tried_again_on_demand(folder):
    before = tars(folder)
    (folder / "bad.wav").write_bytes((folder / "a.wav").read_bytes())
    assert again(folder, *FIRST)["train"] == ["a", "c"]
    assert again(folder, *FIRST, retry=True)["train"] == ["a", "c", "bad"]
    assert quarantined(folder) == []
    assert {name: tars(folder)[name] for name in before} == before
    assert again(folder, *FIRST, retry=True)["train"] == ["a", "c", "bad"]  # nothing left to try


def test_which_clips_were_planned_again_is_found_in_the_plan_of_an_earlier_version(folder):
    again(folder, *FIRST, retry=True)
    plan = json.loads((folder / "out" / "ingest.json").read_text())
    assert plan.pop("again") == {"train-000000": ["bad"]}
    (folder / "out" / "ingest.json").write_text(json.dumps(plan))
    (folder / "bad.wav").write_bytes((folder / "a.wav").read_bytes())
    assert again(folder, *FIRST, "new,a.wav,x,train", retry=True)["train"] == ["a", "c", "bad", "new"]
    assert quarantined(folder) == []


def test_a_corrected_row_is_tried_again(folder):
    rows = [FIRST[0], "bad,a.wav,x,test", *FIRST[2:]]
    assert again(folder, *rows, retry=True) == {"train": ["a", "c"], "test": ["t", "bad"]}
    assert quarantined(folder) == []


def test_who_fails_again_stays_in_quarantine_once(folder):
    for _ in range(2):
        again(folder, *FIRST, retry=True)
        assert quarantined(folder) == [("bad", "truncated")]


def test_all_failed_may_be_tried_again(tmp_path):
    (tmp_path / "bad.wav").touch()
    with pytest.raises(InputError, match="no clip could be ingested"):
        again(tmp_path, FIRST[1])
    make_clip(tmp_path / "bad.wav", video=False, seconds=0.1)
    assert again(tmp_path, FIRST[1], retry=True) == {"train": ["bad"]}


@pytest.mark.parametrize("stop_after", range(3))
def test_a_retry_that_died_goes_on(folder, monkeypatch, stop_after):
    """Two clips fail again, one does not; the shards are the same whenever the retry was killed."""
    rows = [*FIRST, *(f"bad{i},bad.wav,x,train" for i in range(2)), "gone,gone.wav,x,train"]
    again(folder, *rows)
    again(folder, *rows, out="calm")
    make_clip(folder / "gone.wav", video=False, seconds=0.2)
    expected = again(folder, *rows, out="calm", retry=True)
    left = [stop_after]

    def dying(*arguments):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return ingest_shard(*arguments)

    monkeypatch.setattr(ingestion, "ingest_shard" if stop_after < 2 else "_assemble", dying)
    left[0] *= stop_after < 2
    with pytest.raises(KeyboardInterrupt):
        again(folder, *rows, retry=True)
    monkeypatch.undo()
    assert again(folder, *rows, retry=True) == expected
    assert [name for name, _ in quarantined(folder)] == ["bad", "bad0", "bad1"]
    assert not json.loads((folder / "out/ingest.json").read_text())["shards"].get("train-000006")


SCHEMA_1 = {  # as version 0.1 wrote it for FIRST
    "train-000000": {
        "digest": "5d12b72210864d0918324a3712816b4eb9071a920a338c4ab94744610b69abb8",
        "clips": {"a": "1ea2c964e59dccec", "bad": "c5df6692817b21d2"},
        "partial": "quarantine",
    },
    "train-000001": {
        "digest": "1723d35006df1bacefe8ffa8931b386207b16a5f55c58427ab23ac7b48183e6f",
        "clips": {"c": "1723d35006df1bac"},
        "partial": "quarantine",
    },
    "test-000000": {
        "digest": "aef8bae991d2ebe960dcbf506080fbb43b9dbf90f575ad0f53eb69a5be1a4332",
        "clips": {"t": "aef8bae991d2ebe9"},
        "partial": "quarantine",
    },
}


def of_schema_1(folder: Path) -> None:
    path = folder / "out/ingest.json"
    plan = json.loads(path.read_text())
    assert {name: shard["digest"] for name, shard in plan["shards"].items()} == {
        name: shard["digest"] for name, shard in SCHEMA_1.items()
    }
    kept = {name: plan[name] for name in ("config", "assembled", "revision")}
    path.write_text(json.dumps({"schema_version": 1, **kept, "shards": SCHEMA_1}))
    shutil.rmtree(folder / "out/plan")


def test_a_plan_of_schema_1_goes_on(folder):
    of_schema_1(folder)
    with pytest.raises(InputError, match="clip 'a' of shard train-000000 has another row"):
        again(folder, "a,a.wav,y,train", *FIRST[1:])
    with pytest.raises(InputError, match="clip 'c' of shard train-000001 is gone"):
        again(folder, *FIRST[:2], FIRST[3])
    before = tars(folder)
    assert again(folder, *FIRST)["train"] == ["a", "c"]
    assert tars(folder) == before
    assert again(folder, *FIRST, "d,a.wav,x,train")["train"] == ["a", "c", "d"]


def test_a_plan_of_schema_1_whose_failed_clip_was_taken_out(folder):
    of_schema_1(folder)
    assert again(folder, FIRST[0], *FIRST[2:], "d,a.wav,x,train")["train"] == ["a", "c", "d"]
    assert quarantined(folder) == []


def test_a_manifest_that_grew_at_its_end_is_read_from_there(folder, monkeypatch):
    read = []
    checked = manifest._clip
    monkeypatch.setattr(manifest, "_clip", lambda where, *rest: read.append(where) or checked(where, *rest))
    again(folder, *FIRST)
    assert read == []
    assert again(folder, *FIRST, "d,a.wav,x,train", "e,a.wav,y,test")["test"] == ["t", "e"]
    assert [where.rsplit(":")[-1] for where in read] == ["6", "7"]


def json_lines(*ids: str) -> str:
    rows = ({"id": name, "path": "a.wav", "label": "x", "split": "train"} for name in ids)
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_rows_that_are_appended_while_the_manifest_is_read_are_ingested_once(folder, monkeypatch, suffix):
    path, out = folder / f"growing.{suffix}", folder / "growing"
    path.write_text("id,path,label,split\na,a.wav,x,train\n" if suffix == "csv" else json_lines("a"))
    later, end_of = ["b", "c"], manifest.Mark.end_of

    def and_grows(place):
        mark = end_of(place)
        if later:
            name = later.pop(0)
            with path.open("a") as file:
                file.write(f"{name},a.wav,x,train\n" if suffix == "csv" else json_lines(name))
        return mark

    monkeypatch.setattr(manifest.Mark, "end_of", and_grows)
    for there in (["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c"]):  # a new folder, one that grows twice
        ingest(path, out, CONFIG)
        assert ShardDataset(out, "train").ids == there
        assert verify(out) == []


def test_a_clip_that_is_planned_already_is_not_planned_again(folder):
    """The mark is one from before the last row, which was planned all the same."""
    plan = folder / "out/ingest.json"
    early = json.loads(plan.read_text())["manifest"]
    again(folder, *FIRST, "d,a.wav,x,train")
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "manifest": early}))
    before = digests(folder / "out")
    with pytest.raises(InputError, match=r"(?s)clip 'd' is in shard train-000002 already.*move its row"):
        again(folder, *FIRST, "d,a.wav,x,train")
    assert digests(folder / "out") == before
    assert again(folder, "d,a.wav,x,train", *FIRST, "e,a.wav,x,train")["train"] == ["a", "c", "d", "e"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,a.wav,x,train,", "'a' is the id of lines 2 and 4"),
        ("d,a.wav,x,test,g", "group 'g' is in 'train' \\(line 3\\) and 'test' \\(line 4\\)"),
        ("d,a.wav,z,test,", "label 'z' of clip 'd'"),
    ],
)
def test_what_is_added_is_checked_against_what_was_there(folder, row, message):
    path = folder / "grouped.csv"
    path.write_text("id,path,label,split,group\na,a.wav,x,train,\nb,a.wav,x,train,g\n")
    ingest(path, folder / "grouped", CONFIG)
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(InputError, match=message):
        ingest(path, folder / "grouped", CONFIG)


def test_a_last_row_without_a_line_end_may_not_change(folder):
    path = folder / "open.csv"
    path.write_text("id,path,label,split\na,a.wav,x,train")
    ingest(path, folder / "open", CONFIG)
    ingest(path, folder / "open", CONFIG)
    path.write_text(path.read_text() + "ing\n")
    with pytest.raises(InputError, match="clip 'a' of shard train-000000 has another row"):
        ingest(path, folder / "open", CONFIG)


def test_many_small_additions_are_merged_and_ingestion_goes_on(folder):
    rows = list(FIRST)
    for i in range(5):
        rows.append(f"new{i},a.wav,{'xy'[i % 2]},{'train' if i < 4 else 'test'}")
        again(folder, *rows)
    before = samples(folder / "out")
    assert merge.main([str(folder / "out"), "--out", str(folder / "fewer"), "--samples-per-shard", "4"]) == 0
    assert verify(folder / "fewer") == []
    assert samples(folder / "fewer") == before
    names = sorted(path.name for path in (folder / "fewer/media").iterdir())
    assert names == ["test-000000.tar", "train-000000.tar", "train-000001.tar"]  # of a, bad, c, new0; new1 to new3
    assert (folder / "fewer/quarantine.jsonl").read_bytes() == (folder / "out/quarantine.jsonl").read_bytes()
    grown = IngestConfig(samples_per_shard=4, workers=0)
    done = tars(folder, "fewer")
    ingest(write_manifest(folder, *rows), folder / "fewer", grown)
    assert tars(folder, "fewer") == done
    make_clip(folder / "bad.wav", video=False, seconds=0.1)
    ingest(write_manifest(folder, *rows, "z,a.wav,x,train"), folder / "fewer", grown, retry_quarantined=True)
    assert [name for name, *_ in samples(folder / "fewer") if name in ("bad", "z")] == ["bad", "z"]
    assert quarantined(folder, "fewer") == []


def samples(out: Path) -> list[tuple]:
    """Id, json and bytes of every sample, split by split in order."""
    found = []
    for split in ("train", "test"):
        data = ShardDataset(out, split)
        found += [(data.ids[i], split, data.members(i)) for i in range(len(data))]
    return found


@pytest.mark.parametrize("stop_after", range(3))
def test_a_merge_that_died_goes_on(folder, monkeypatch, stop_after):
    again(folder, *FIRST, "d,a.wav,x,train")
    merge.merge(folder / "out", folder / "calm")
    made, left = merge._make, [stop_after]

    def dying(*arguments):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return made(*arguments)

    monkeypatch.setattr(merge, "_make", dying)
    with pytest.raises(KeyboardInterrupt):
        merge.merge(folder / "out", folder / "killed")
    monkeypatch.undo()
    merge.merge(folder / "out", folder / "killed")
    assert digests(folder / "killed") == digests(folder / "calm")


def test_a_merge_that_died_between_the_plan_and_the_dataset_goes_on(folder, monkeypatch):
    merge.merge(folder / "out", folder / "calm")

    def dying(write):
        def act(*arguments):
            write(*arguments)
            raise KeyboardInterrupt

        return act

    monkeypatch.setattr(merge, "finish", dying(merge.finish))
    monkeypatch.setattr(KeptPlan, "save", dying(KeptPlan.save))
    with pytest.raises(KeyboardInterrupt):
        merge.merge(folder / "out", folder / "killed")
    monkeypatch.undo()
    merge.merge(folder / "out", folder / "killed")
    assert digests(folder / "killed") == digests(folder / "calm")
    assert again(folder, *FIRST, "d,a.wav,x,train", out="killed")["train"] == ["a", "c", "d"]


def test_a_finished_merge_is_left_as_it_is(folder, capsys):
    command = [str(folder / "out"), "--out", str(folder / "once")]
    assert merge.main(command) == 0
    assert "already finished" not in capsys.readouterr().out
    before, tar_files = digests(folder / "once"), tars(folder, "once")
    assert merge.main(command) == 0
    assert f"already finished: {folder / 'once'}" in capsys.readouterr().out
    assert (digests(folder / "once"), tars(folder, "once")) == (before, tar_files)
    assert again(folder, *FIRST, "d,a.wav,x,train", out="once")["train"] == ["a", "c", "d"]


def test_what_can_not_be_merged_is_refused(folder, capsys):
    assert merge.main([str(folder), "--out", str(folder / "x")]) == 2
    merge.merge(folder / "out", folder / "once")
    with pytest.raises(InputError, match="holds another dataset already"):
        merge.merge(folder / "out", folder / "once", samples_per_shard=1)
    again(folder, *FIRST, "d,a.wav,x,train", out="once")
    with pytest.raises(InputError, match="holds another dataset already"):
        merge.merge(folder / "out", folder / "once")
    (folder / "out/ledger/test-000000.json").unlink()
    with pytest.raises(InputError, match="shard test-000000 is not finished"):
        merge.merge(folder / "out", folder / "y")
