"""Object stores as places, against a real S3 server behind a proxy that misbehaves: the same bytes, or an error."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines.ingest import ingest, main
from pipelines.manifest import joined, relative
from pipelines.resume import Ledger, read_ledger, write_ledger
from shards import lease, scratch, store
from shards.errors import InputError
from shards.hashes import differs
from shards.lock import folder_lock
from shards.remote import fetch
from shards.scan import write_tables
from shards.schema import DatasetInfo, ShardInfo
from shards.store import StorePath, TooManyBytes, at_hand, each, place
from shards.store_errors import MachineRefused, StoreRefused, StoreUnreachable
from shards.streaming import StreamDataset
from shards.verify import verify
from tests.conftest import ROOT
from tests.fixtures.builders import SMALL, feature_dataset
from tests.fixtures.stores import CONFIG, as_on_disk, files, make_corpus

unit, integration = pytest.mark.unit, pytest.mark.integration


@pytest.fixture(autouse=True)
def _behaving(request, monkeypatch) -> None:
    """The store behaves until a test has it misbehave; who asks again does not wait long."""
    monkeypatch.setattr(store, "FIRST", 0.02)
    if "s3" in request.fixturenames:
        request.getfixturevalue("s3").misbehave()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@unit
def test_addresses_are_taken_apart_and_put_together_as_paths_are():
    address = place("s3://bucket/set/")
    assert str(address / "media" / "train-0.tar") == "s3://bucket/set/media/train-0.tar"
    assert (address / "a.b.json").stem == "a.b"
    assert str((address / "ledger/x.json").with_suffix(".arrow")) == "s3://bucket/set/ledger/x.arrow"
    assert str(address.parent) == "s3://bucket"
    assert str(address.parent / "x") == "s3://bucket/x"
    assert str(place("s3://bucket/a/../b")) == "s3://bucket/b"
    assert (address / "media/x.tar").relative_to(address).as_posix() == "media/x.tar"
    assert place("https://host/a/b.mp4?id=7").name == "b.mp4"
    assert place("file:///tmp/x") == place(Path("/tmp/x")) == Path("/tmp/x")
    assert pickle.loads(pickle.dumps(address)) == address


@unit
@pytest.mark.parametrize(
    "address",
    [
        "s3://AKIA:secret@bucket/set",
        "https://ann:secret@host/a.mp4",
        "https://host/a.mp4?X-Amz-Signature=0123&X-Amz-Credential=A",
        "https://account.blob.core.windows.net/c/a.mp4?sv=1&sig=abc",
    ],
)
def test_an_address_with_credentials_is_refused_and_not_repeated(address, tmp_path, capsys):
    with pytest.raises(InputError, match="environment") as error:
        place(address)
    (tmp_path / "m.csv").write_text(f"id,path,label,split\na,{address},x,train\n")
    assert main(["--manifest", str(tmp_path / "m.csv"), "--out", str(tmp_path / "out")]) == 2
    assert main(["--manifest", str(tmp_path / "m.csv"), "--out", address]) == 2
    said = capsys.readouterr().err + str(error.value)
    assert "m.csv:2: field 'path'" in said
    assert not any(secret in said for secret in ("secret", "0123", "sig=abc"))


@unit
@pytest.mark.parametrize("base", [Path("/data/clips"), StorePath("s3://bucket/clips")])
def test_paths_of_a_manifest_mean_the_same_on_a_disk_and_on_a_store(base):
    for text, seen in (("a.mp4", "a.mp4"), ("./x//a.mp4", "x/a.mp4"), ("../a.mp4", "../a.mp4")):
        assert relative(joined(base, text), base) == seen
    assert relative(joined(base, "https://host/a.mp4"), base) == "https://host/a.mp4"
    assert relative(joined(base, "s3://bucket2/a.mp4"), base) == "s3://bucket2/a.mp4"
    assert joined(base, "/mnt/a.mp4") == "/mnt/a.mp4"


@integration
@pytest.mark.parametrize(
    "faults", [{"failing": 0.4}, {"cut": 0.5}, {"lost": 0.5}, {"garbled": 0.5}, {"stale": True}], ids=str
)
def test_an_object_arrives_whole_whatever_happens_on_the_way(s3, tmp_path, faults):
    found = s3.misbehave(**faults, seed=1)
    (tmp_path / "file").write_bytes(os.urandom(3000))
    for number in range(2):
        address = s3.root / f"whole-{next(iter(faults))}" / str(number)
        address.put(tmp_path / "file")
        assert address.read_bytes() == (tmp_path / "file").read_bytes()
        assert address.range(10, 30) == (tmp_path / "file").read_bytes()[10:30]
        address.download(tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
        assert (s3.root / f"other-{number}").exists() is False
    assert found.struck.total() > 0


@integration
def test_an_object_is_made_once_even_if_the_answer_is_lost(s3):
    s3.misbehave(lost=0.5, seed=3)
    for number in range(6):
        address = s3.root / "once" / str(number)
        assert address.create(b"first")
        assert address.create(b"first"), "a doubled worker writes the same"
        assert not address.create(b"second")
        assert address.read_bytes() == b"first"
    assert s3.faults.struck["lost"] > 0


@integration
def test_a_large_object_is_read_in_pieces_and_hashed_in_parts(s3, tmp_path, monkeypatch):
    content = os.urandom(3 << 20)
    (tmp_path / "large").write_bytes(content)
    address = s3.root / "large"
    address.put(tmp_path / "large")
    monkeypatch.setattr(store, "SMALL", 1 << 20)
    s3.misbehave()
    with address.open() as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == content[-10:]
        file.seek(1000)
        assert file.read(5) == content[1000:1005]
    assert s3.faults.requests["GET"] == 2
    monkeypatch.setattr("shards.hashes.PART", 1 << 20)
    told = {"ETag": '"b38a0e9a7d7c7ad0f7a9a6ee07a5d0f2-3"'}
    assert differs(told, tmp_path / "large")
    with pytest.raises(TooManyBytes, match="3145728"):
        address.download(tmp_path / "no", 1 << 20)


@integration
def test_a_store_that_encrypts_is_read_back_once(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_NO_MD5", set())
    monkeypatch.setattr(store, "differs", lambda info, file: True)
    (tmp_path / "file").write_bytes(b"content")
    s3.misbehave()
    (s3.root / "encrypted").put(tmp_path / "file")
    (s3.root / "encrypted").put(tmp_path / "file")
    assert s3.faults.requests["GET"] == 1


@integration
@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "AccessDenied"])
def test_refused_at_once_with_what_to_do(s3, tmp_path, code):
    s3.misbehave(denied=code)
    (tmp_path / "file").write_bytes(b"x")
    address = s3.root / "refused"
    asked = (address.read_bytes, address.exists, lambda: address.put(tmp_path / "file"), lambda: address.create(b""))
    for ask in asked:
        with pytest.raises(StoreRefused, match=r"AWS_ACCESS_KEY_ID.*\n?.*expired"):
            ask()
    assert s3.faults.requests.total() == len(asked)


@integration
def test_a_store_that_is_away_and_a_bucket_that_is_none(s3, monkeypatch):
    with pytest.raises(StoreRefused, match="make the bucket"):
        StorePath("s3://no-such-bucket/x").write_bytes(b"")
    monkeypatch.setattr(store, "TRIES", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreUnreachable, match="AWS_ENDPOINT_URL"):
        (s3.root / "x").read_bytes()


@integration
def test_a_local_disk_that_fails_is_not_the_stores_fault(s3, tmp_path):
    address = s3.root / "local"
    address.write_bytes(b"content")
    s3.misbehave()
    with pytest.raises(MachineRefused, match="/dev/full: this machine refuses: No space left"):
        address.download(Path("/dev/full"))
    assert s3.faults.requests.total() == 1
    with pytest.raises(MachineRefused, match="gone: this machine refuses: No such file"):
        address.put(tmp_path / "gone")
    assert address.read_bytes() == b"content"


@integration
def test_a_copy_is_fetched_anew_when_the_object_changes(s3):
    address = s3.root / "copied.csv"
    address.write_bytes(b"one")
    assert at_hand(address).read_bytes() == b"one"
    s3.misbehave()
    assert at_hand(address).read_bytes() == b"one"
    assert s3.faults.requests["GET"] == 0
    address.write_bytes(b"three")
    assert at_hand(address).read_bytes() == b"three"


@integration
def test_order_is_kept_and_a_failure_comes_in_its_turn(s3):
    def ask(number: int) -> int:
        if number == 30:
            raise InputError("thirty")
        return number

    found = each(ask, range(100), s3.root)
    assert [next(found) for _ in range(30)] == list(range(30))
    with pytest.raises(InputError, match="thirty"):
        next(found)


@integration
def test_ingestion_from_and_to_a_store_ends_in_the_bytes_of_a_disk(s3, corpus, tmp_path):
    ingest(corpus / "manifest.csv", tmp_path / "local", CONFIG)
    clips = s3.upload(corpus, "corpus")
    s3.misbehave(failing=0.05, cut=0.05, lost=0.05, stale=True)
    ingest(f"{clips}/manifest.csv", f"{s3.root}/set", CONFIG)
    assert s3.faults.struck.total() > 0
    found = s3.objects("set")
    assert as_on_disk(found, clips, corpus) == files(tmp_path / "local")
    quarantine = [json.loads(line) for line in found["quarantine.jsonl"].splitlines()]
    assert [(line["id"], line["error"]) for line in quarantine] == [("cut", "truncated"), ("gone", "missing file")]
    assert quarantine[1]["path"] == f"{clips}/clips/gone.mp4"
    s3.misbehave()
    assert verify(fetch(f"{s3.root}/set")) == []


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    feature_dataset(folder, {"train": 20}, SMALL, "f" * 64)
    write_tables(folder, DatasetInfo.load(folder))
    return folder


@integration
def test_a_dataset_whose_store_is_away_or_refuses_is_no_traceback(s3, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("AVMEND_CACHE", str(tmp_path))
    monkeypatch.setattr(store, "TRIES", 2)
    address = str(s3.upload(dataset, "away"))
    streamed = StreamDataset(address, "train")
    s3.misbehave(denied="ExpiredToken")
    for ask in (lambda: fetch(address), lambda: streamed[0]):
        with pytest.raises(StoreRefused, match="ExpiredToken"):
            ask()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for ask in (lambda: fetch(address), lambda: streamed[0]):
        with pytest.raises(StoreUnreachable, match="AWS_ENDPOINT_URL"):
            ask()


@integration
def test_a_ledger_is_that_of_the_shard_that_is_there(s3, tmp_path):
    """Two workers of one shard that, by a clip that timed out in one of them, made different bytes."""

    def made(content: bytes) -> Ledger:
        (tmp_path / "file").write_bytes(content)
        (out / "media/train-0.tar").put(tmp_path / "file")
        sha256 = hashlib.sha256(content).hexdigest()
        shard = ShardInfo(name="media/train-0.tar", samples=1, bytes=len(content), sha256=sha256)
        return Ledger(digest="rows", shard=shard, present={"audio": 1, "visual": 1})

    out = s3.root / "twice"
    first, second = made(b"first"), made(b"other")
    assert write_ledger(first, out, "train-0") == first
    assert write_ledger(second, out, "train-0") == second, "its shard is the one that is there"
    assert read_ledger(Ledger, out, "train-0", "rows") == second
    assert write_ledger(first, out, "train-0") == second, "its shard is gone"
    s3.misbehave(denied="ExpiredToken", only="train-0.tar")
    with pytest.raises(StoreRefused):  # nobody knows which shard is there
        write_ledger(first, out, "train-0")


@integration
def test_what_one_clip_lacks_is_its_own_and_what_all_lack_ends_the_run(s3, corpus):
    clips = s3.upload(corpus, "corpus")
    s3.misbehave(denied="AccessDenied", only="both.mp4")
    info = ingest(f"{clips}/manifest.csv", s3.root / "denied", CONFIG)
    assert info.splits["train"].samples == 2
    lines = [json.loads(line) for line in s3.objects("denied")["quarantine.jsonl"].splitlines()]
    assert [(line["id"], line["error"]) for line in lines if "both" in line["path"]] == [
        ("a", "unreachable"),
        ("c", "unreachable"),
    ]
    s3.misbehave(denied="ExpiredToken", only="both.mp4")
    with pytest.raises(StoreRefused, match="ExpiredToken"):
        ingest(f"{clips}/manifest.csv", s3.root / "expired", CONFIG)
    s3.misbehave()
    small = CONFIG.model_copy(update={"max_megabytes": 1})
    (corpus / "clips/large.wav").write_bytes(bytes(2 << 20))
    try:
        s3.upload(corpus, "corpus")
        s3.s3.put_object(Bucket="avmend", Key="corpus/m.csv", Body=b"id,path,label,split\na,clips/large.wav,x,train\n")
        with pytest.raises(InputError, match=r"too large.*max_megabytes=1"):
            ingest(f"{clips}/m.csv", s3.root / "large", small)
    finally:
        (corpus / "clips/large.wav").unlink()


@integration
def test_one_command_at_a_time_and_the_dead_hold_nobody_up(s3, monkeypatch):
    monkeypatch.setattr(lease, "LOOK", 0.02)
    monkeypatch.setattr(lease, "RENEWED", 0.05)
    monkeypatch.setattr(lease, "SETTLED", 0.0)
    out = s3.root / "leased"
    with folder_lock(out, "ingestion"):
        refused = pytest.raises(InputError, match=f"another ingestion is at work here: process {os.getpid()}")
        with refused, folder_lock(out, "ingestion"):
            pass
        with folder_lock(out, "extraction"):
            pass
    assert s3.objects("leased") == {}
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead = {"host": lease._host(), "pid": int(child.stdout), "token": "1"}
    (out / ".ingestion.lease").write_bytes(json.dumps(dead).encode())
    monkeypatch.setattr(lease, "ABANDONED", 30.0)
    with folder_lock(out, "ingestion"):
        pass
    (out / ".ingestion.lease").write_bytes(json.dumps({**dead, "host": "another"}).encode())
    monkeypatch.setattr(lease, "ABANDONED", 0.2)
    with folder_lock(out, "ingestion"):
        pass
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(InputError, match="took this for dead"))
        stack.enter_context(folder_lock(out, "ingestion"))
        (out / ".ingestion.lease").write_bytes(json.dumps({**dead, "host": "another"}).encode())
    assert json.loads((out / ".ingestion.lease").read_bytes())["host"] == "another"


@unit
def test_a_container_of_the_same_name_is_another_machine_to_a_lease():
    start = ["unshare", "--pid", "--fork", sys.executable, "-c", "from shards import lease; print(lease._host())"]
    other = subprocess.run(start, cwd=ROOT, capture_output=True, text=True)
    if other.returncode:
        pytest.skip("no process namespaces for this user")
    assert other.stdout.strip() != lease._host()
    same = subprocess.run(start[3:], cwd=ROOT, capture_output=True, text=True)
    assert same.stdout.strip() == lease._host()


@unit
def test_what_a_killed_process_left_goes_and_a_living_ones_stays(tmp_path, monkeypatch):
    lines = "import os, time; from shards.scratch import process_scratch; print(process_scratch(), flush=True); "
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    start = [sys.executable, "-c", lines + "input(); os._exit(9)"]
    with subprocess.Popen(start, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        folder = Path(child.stdout.readline().strip())
        scratch._remove_abandoned(tmp_path)
        assert folder.is_dir()
        child.stdin.write("\n")
        child.stdin.flush()
        child.wait()
    assert folder.is_dir()
    scratch._remove_abandoned(tmp_path)
    assert not folder.exists()
