"""Features meanwhile: what `ingest` and then `features` make, to the byte, wherever it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines import in_line
from pipelines import ingest as ingestion
from pipelines.features import main as features
from pipelines.ingest import main as ingest
from pipelines.on_ray import Flow
from shards.extraction_log import making_seconds
from shards.lock import folder_lock
from shards.verify import verify
from tests.fixtures.media import make_clip
from tests.test_features import digests, save_backbone
from tests.test_ingest import write_manifest

pytestmark = pytest.mark.integration
FIELDS = ["frames=2", "image_size=32", "samples_per_shard=2", "workers=0"]
ROWS = [f"c{n},{('both', 'silent')[n % 2]}.mp4,{('dog', 'cat')[n % 2]},{('train', 'test')[n > 4]}" for n in range(8)]
LOST = [f"gone{n},gone.mp4,dog,train" for n in range(3)]  # with c4 in a shard that has one sample, and one without any


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_clip(folder / "both.mp4", seconds=0.5)
    make_clip(folder / "silent.mp4", seconds=0.5, audio=False)
    return folder


def one_after_the_other(manifest: Path, out: Path, run: Path, *more: str) -> dict[str, str]:
    assert ingest(["--manifest", str(manifest), "--out", str(out), *FIELDS]) == 0
    assert features(["--data", str(out), "--backbone", str(run), "workers=0", *more]) == 0
    return digests(out)


def in_one_go(manifest: Path, out: Path, run: Path, *more: str) -> int:
    command = ["--manifest", str(manifest), "--out", str(out), "--backbone", str(run), *FIELDS]
    return ingest([*command, *more])


def manifest_of(corpus: Path, name: str, rows: Sequence[str]) -> Path:
    write_manifest(corpus, *rows)
    return (corpus / "manifest.csv").rename(corpus / name)


@pytest.mark.parametrize("more", [["draws=1"], ["extractor=cavmae"], ["splits=[test]"]])
def test_the_bytes_are_those_of_one_after_the_other(corpus, run, tmp_path, more, capsys):
    manifest = manifest_of(corpus, "all.csv", ROWS[:5] + LOST + ROWS[5:])
    wanted = one_after_the_other(manifest, tmp_path / "apart", run, *more)
    assert in_one_go(manifest, tmp_path / "line", run, *(f"features.{field}" for field in more)) == 0
    assert digests(tmp_path / "line") == wanted
    made = next((tmp_path / "line/features").iterdir())
    assert verify(tmp_path / "line") == verify(made) == []
    assert making_seconds(made, ("test",)) > 0
    capsys.readouterr()
    assert in_one_go(manifest, tmp_path / "line", run, *(f"features.{field}" for field in more)) == 0
    assert "already finished" in capsys.readouterr().out


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(corpus, run, tmp_path, monkeypatch):
    """Before each shard of either kind, and before what is of all of them is written."""

    class Stopped(BaseException):
        pass

    manifest = manifest_of(corpus, "some.csv", ROWS[:3] + LOST[:1] + ROWS[5:7])
    wanted = one_after_the_other(manifest, tmp_path / "apart", run)

    def stopping(work, left):
        def step(*arguments):
            if next(left) == 0:
                raise Stopped
            return work(*arguments)

        return step

    for steps in (0, 1, 3, 4, 6):
        out, left = tmp_path / f"line-{steps}", iter(range(steps, -1, -1))
        with monkeypatch.context() as patch:
            patch.setattr(ingestion, "ingest_kept", stopping(ingestion.ingest_kept, left))
            patch.setattr(in_line, "extract_shard", stopping(in_line.extract_shard, left))
            patch.setattr(ingestion, "_assemble", stopping(ingestion._assemble, left))
            with pytest.raises(Stopped):
                in_one_go(manifest, out, run)
        assert len(list(out.rglob("ledger/*.json"))) == steps
        assert len(list(out.rglob("features/*/ledger/*.json"))) == steps // 2, "one after each"
        assert in_one_go(manifest, out, run) == 0
        assert digests(out) == wanted


def test_features_of_rows_that_are_added_and_of_what_was_there(corpus, run, tmp_path):
    first, both = manifest_of(corpus, "first.csv", ROWS[:3]), manifest_of(corpus, "both.csv", ROWS[:7])
    out = tmp_path / "line"
    assert ingest(["--manifest", str(first), "--out", str(out), *FIELDS]) == 0
    assert in_one_go(both, out, run) == 0
    ingest(["--manifest", str(first), "--out", str(tmp_path / "apart"), *FIELDS])
    assert digests(out) == one_after_the_other(both, tmp_path / "apart", run)


def test_what_will_not_do_is_refused_before_any_work(corpus, run, tmp_path, capsys):
    manifest, out = manifest_of(corpus, "few.csv", ROWS[:3]), tmp_path / "out"

    def refusal(*arguments: str, backbone: Path = run) -> str:
        assert in_one_go(manifest, out, backbone, *arguments) == 2
        return capsys.readouterr().err

    assert "is no checkpoint" in refusal(backbone=corpus)
    assert "choose 0 to 2" in refusal("--depth", "3")
    assert "ingest the clips again with keep_wave=true" in refusal("features.extractor=vggish+resnet18")
    assert "did you mean 'features.draws'" in refusal("features.drawz=1")
    assert "features.workers" in refusal("features.workers=1")
    assert not out.exists()
    assert "the manifest has no split 'val'" in refusal("features.splits=[val]")
    assert not (out / "ledger").exists()
    assert ingest(["--manifest", str(manifest), "--out", str(out), "features.draws=1", *FIELDS]) == 2
    assert "give --backbone" in capsys.readouterr().err


def test_a_folder_of_other_features_is_refused_before_any_work(corpus, run, tmp_path, capsys):
    first, both = manifest_of(corpus, "1.csv", ROWS[:2]), manifest_of(corpus, "2.csv", ROWS[:4])
    out = tmp_path / "out"
    assert in_one_go(first, out, run) == 0
    before = digests(out / "media")
    assert in_one_go(both, out, run, "features.seed=1") == 2
    assert "this folder was begun with seed=0, now it is 1" in capsys.readouterr().err
    assert digests(out / "media") == before
    with folder_lock(next((out / "features").iterdir()), "extraction"):
        assert in_one_go(both, out, run) == 2
    assert "another extraction is at work here" in capsys.readouterr().err
    assert digests(out / "media") == before
    assert in_one_go(both, out, run) == 0


def test_a_dry_run_says_what_features_there_will_be(corpus, run, tmp_path, capsys):
    manifest = manifest_of(corpus, "dry.csv", ROWS)
    assert in_one_go(manifest, tmp_path / "out", run, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "would make 5 of 5 shards" in told
    assert "draws: 4" in told
    assert f"in {tmp_path}/out/features/" in told
    assert not (tmp_path / "out").exists()


def test_the_progress_line_says_who_waits_for_whom():
    flows = Flow(12, 4, 4, 10), Flow(3, 2, 2, 5)
    assert in_line.line(*flows) == "12 to decode, 4 in flight of 4, 3 wait for features, 2 of 2 extracting, 5 done"
    lagging = in_line.line(Flow(12, 1, 4, 10, lost=1, held=True), Flow(5, 2, 2, 3, lost=1))
    assert "12 to decode (held: features lag), 1 in flight of 4, 5 wait for features, 2 of 2 extracting" in lagging
    assert lagging.endswith("3 done, 2 lost with nodes")
