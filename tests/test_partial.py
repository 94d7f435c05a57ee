"""Clips of which one stream fails: in quarantine as a whole, or kept with the other and the cause."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import ingest as ingestion
from pipelines.causes import MISSING_FILE, TIMED_OUT, TOO_SHORT, UNSUPPORTED, DecodeError
from pipelines.decode import Request, decode
from pipelines.decoder_process import ChildDied, Decoder
from pipelines.ingest import ingest, main
from pipelines.settings import IngestConfig
from shards.errors import InputError
from shards.inspect import main as shards
from shards.reader import ShardDataset
from shards.schema import ABSENT, DatasetInfo, SplitInfo
from shards.verify import verify
from tests.fixtures.media import make_clip

pytestmark = pytest.mark.unit
QUARANTINE = IngestConfig(frames=2, image_size=16, samples_per_shard=3, workers=0)
KEEP = QUARANTINE.model_copy(update={"partial": "keep"})
ROWS = """id,path,audio_path,image_path,label,split
whole,both.mkv,,,x,train
dumb,dumb.mkv,,,x,train
blind,blind.mkv,,,x,train
silent,silent.mkv,,,x,train
neither,neither.mkv,,,x,train
unheard,,gone.wav,blind.png,x,train
short,,short.wav,blind.png,x,train
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Sound or picture of a codec that nobody knows, and files that are gone or too short; the manifest."""
    folder = tmp_path_factory.mktemp("clips")
    both = make_clip(folder / "both.mkv", seconds=0.5, options=("-c:a", "flac")).read_bytes()
    (folder / "dumb.mkv").write_bytes(both.replace(b"A_FLAC", b"A_XYZW"))
    (folder / "blind.mkv").write_bytes(both.replace(b"V_MPEG4", b"V_XPEG4"))
    (folder / "neither.mkv").write_bytes(both.replace(b"A_FLAC", b"A_XYZW").replace(b"V_MPEG4", b"V_XPEG4"))
    make_clip(folder / "silent.mkv", seconds=0.5, audio=False)
    make_clip(folder / "short.wav", seconds=0.02, video=False)
    make_clip(folder / "blind.png", seconds=0.1, audio=False, options=("-frames:v", "1"))
    (folder / "clips.csv").write_text(ROWS)
    return folder / "clips.csv"


def causes(out: Path) -> dict[str, tuple[str | None, str | None]]:
    return {x.id: (x.audio.cause, x.visual.cause) for x in ShardDataset(out, "train").metas}


def quarantined(out: Path) -> dict[str, str]:
    lines = (out / "quarantine.jsonl").read_text().splitlines()
    return {line["id"]: line["error"] for line in map(json.loads, lines)}


KEPT = {
    "whole": (None, None),
    "dumb": (UNSUPPORTED, None),
    "blind": (None, UNSUPPORTED),
    "silent": (ABSENT, None),
    "unheard": (MISSING_FILE, None),
    "short": (TOO_SHORT, None),
}


def test_what_is_left_is_kept_with_the_cause(clips, tmp_path, capsys):
    info = ingest(clips, tmp_path, KEEP)
    assert causes(tmp_path) == KEPT
    assert quarantined(tmp_path) == {"neither": UNSUPPORTED}
    split = info.splits["train"]
    assert split.present == {"audio": 2, "visual": 5}
    lacking = {ABSENT: 1, UNSUPPORTED: 1, MISSING_FILE: 1, TOO_SHORT: 1}
    assert split.absent == {"audio": lacking, "visual": {UNSUPPORTED: 1}}
    assert (info.schema_version, DatasetInfo.load(tmp_path)) == (2, info)
    data = ShardDataset(tmp_path, "train")
    arrays = {data[i].meta.id: set(data[i].arrays) for i in range(len(data))}
    assert (arrays["dumb"], arrays["blind"]) == ({"frames"}, {"audio"})
    assert verify(tmp_path) == []
    assert shards(["info", str(tmp_path)]) == 0
    assert "split train: no visual: 1 unsupported codec" in capsys.readouterr().out


def test_by_default_such_clips_wait_in_quarantine_and_may_be_kept_later(clips, tmp_path, capsys):
    info = ingest(clips, tmp_path, QUARANTINE)
    assert set(causes(tmp_path)) == {"whole", "silent"}
    assert info.splits["train"].absent == {"audio": {ABSENT: 1}}
    assert set(quarantined(tmp_path)) == {"dumb", "blind", "neither", "unheard", "short"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "media").iterdir()}
    assert ingest(clips, tmp_path, KEEP) == info, "nothing is left to do"
    command = ["--manifest", str(clips), "--out", str(tmp_path), "--retry-quarantined", "partial=keep"]
    fields = [f"{name}={getattr(KEEP, name)}" for name in ("frames", "image_size", "samples_per_shard")]
    assert main([*command, *fields, "workers=0"]) == 0
    assert "no visual: 1 unsupported codec" in capsys.readouterr().out
    assert causes(tmp_path) == KEPT
    assert quarantined(tmp_path) == {"neither": UNSUPPORTED}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert verify(tmp_path) == []


def test_shards_that_are_begun_keep_to_one_way(clips, tmp_path, monkeypatch):
    def dying(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ingestion, "ingest_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        ingest(clips, tmp_path, KEEP)
    monkeypatch.undo()
    with pytest.raises(InputError, match="were begun with partial=keep"):
        ingest(clips, tmp_path, QUARANTINE)


def test_halves_count_as_failures(clips, tmp_path):
    with pytest.raises(InputError, match="3 clips failed, more than max_failures=2"):
        ingest(clips, tmp_path, KEEP.model_copy(update={"max_failures": 2, "samples_per_shard": 9}))


def test_a_picture_that_kills_its_decoder_leaves_the_sound(clips):
    """And the other way round; what kills it alone too ends the clip."""

    class Mortal(Decoder):
        lethal = ("visual",)

        def _try(self, request: Request):
            if all(request.lost is None or request.lost[0] != modality for modality in self.lethal):
                raise ChildDied(TIMED_OUT, "not decoded in time", by_chance=True)
            return decode(request)

    request = Request(path=str(clips.with_name("both.mkv")), size=16, keep=True)
    decoder = Mortal()
    found = decoder.decode(request)
    assert (found.frames, found.visual_info.cause, found.audio_info.present) == (None, TIMED_OUT, True)
    decoder.lethal = ("audio",)
    found = decoder.decode(request)
    assert (found.audio, found.audio_info.cause, found.visual_info.present) == (None, TIMED_OUT, True)
    decoder.lethal = ()
    for doomed in (request, replace(request, keep=False)):
        with pytest.raises(DecodeError, match="timed out"):
            decoder.decode(doomed)
    decoder.lethal = ("visual",)
    with pytest.raises(DecodeError, match="timed out"):
        decoder.decode(replace(request, path=str(clips.with_name("silent.mkv"))))


def test_counts_that_do_not_fit_are_told(clips, tmp_path):
    ingest(clips, tmp_path, KEEP)
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text().replace('"missing file": 1', '"timed out": 1'))
    assert ["absent" in problem.message for problem in verify(tmp_path)] == [True]
    path.write_text(path.read_text().replace('"timed out": 1', '"timed out": 2'))
    with pytest.raises(InputError, match="do not add up"):
        verify(tmp_path)


def test_older_files_read_as_they_were(tmp_path):
    """Schema 1 knows no counts; it is read, and written again to the byte."""
    split = SplitInfo(samples=0, present={"audio": 0, "visual": 0}, shards=())
    info = DatasetInfo(kind="media", preprocessing={}, labels=("x",), splits={"train": split})
    text = info.save(tmp_path).read_text()
    assert '"schema_version": 1' in text
    assert "absent" not in text
    again = DatasetInfo.load(tmp_path)
    assert again.save(tmp_path).read_text() == text
    assert again.fingerprint() == info.fingerprint()
