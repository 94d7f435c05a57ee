"""The audit as a whole: small corpora with known faults, from manifest and from shards, resumed, and its page."""

from __future__ import annotations

import csv
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines.audit.command import main
from pipelines.audit.part import FOLDER
from pipelines.audit.run import audit
from pipelines.audit.settings import AuditConfig
from pipelines.manifest import read_manifest, write_manifest
from shards.audit_file import AUDIT_FILE, read_flags, read_rows
from shards.errors import InputError
from tests.fixtures.builders import media_dataset
from tests.fixtures.media import make_clip, run_ffmpeg

unit, integration = pytest.mark.unit, pytest.mark.integration
CONFIG = AuditConfig(frames=6, image_size=64, clips_per_part=3, workers=0)
BAD = '<script>alert("x")</script>'
NOISE = ("-f", "lavfi", "-i", "anoisesrc=d=1:seed=5:a=0.3,tremolo=f=4:d=0.9")
PATTERN = ("-f", "lavfi", "-i", "testsrc2=s=64x64:r=10:d=1")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Eight clips: two sound, a copy of one re-encoded in another split, a piece of the same file, faults."""
    folder = tmp_path_factory.mktemp("corpus")
    run_ffmpeg(*PATTERN, *NOISE, "-pix_fmt", "yuv420p", folder / "a.mp4")
    make_clip(folder / "tone.mp4")
    run_ffmpeg(
        "-i", folder / "a.mp4", "-c:v", "libx264", "-crf", "26", "-c:a", "aac", "-b:a", "96k", folder / "copy.mp4"
    )
    run_ffmpeg(
        "-f", "lavfi", "-i", "color=black:s=64x64:r=10:d=1", "-f", "lavfi", "-i", "anullsrc=d=1", folder / "dark.mp4"
    )
    run_ffmpeg(
        *PATTERN,
        "-itsoffset",
        "0.6",
        "-t",
        "0.4",
        *NOISE,
        "-map",
        "0",
        "-map",
        "1",
        "-pix_fmt",
        "yuv420p",
        folder / "late.mp4",
    )
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:2000])
    rows = [
        {"id": "a", "path": "a.mp4", "label": BAD, "split": "train"},
        {"id": "tone", "path": "tone.mp4", "label": "x", "split": "train", "group": "studio"},
        {"id": "copy", "path": "copy.mp4", "label": "x", "split": "test"},
        {"id": "dark", "path": "dark.mp4", "label": "x;y", "split": "train"},
        {"id": "late", "path": "late.mp4", "label": "y", "split": "val", "group": "field"},
        {"id": "broken", "path": "broken.mp4", "label": "y", "split": "train"},
        {"id": "gone", "path": "gone.mp4", "label": "y", "split": "train"},
    ]
    write_manifest(folder / "manifest.csv", rows)
    return folder / "manifest.csv"


@pytest.fixture(scope="module")
def audited(corpus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("audit")
    audit(corpus, out, CONFIG)
    return out


def rows(out: Path) -> dict[str, dict[str, str]]:
    return {row["id"]: row for _, row in read_rows(out)}


@integration
def test_each_fault_is_flagged(audited):
    flags = read_flags(audited)
    assert flags["dark"] == {"silent", "black"}
    assert "constant_audio" in flags["tone"]
    assert "clock_offset" in flags["late"]
    assert flags["broken"] == flags["gone"] == {"failed"}
    assert flags["a"] >= {"duplicate_audio", "duplicate_visual", "across_splits"}
    assert flags["copy"] == flags["a"]
    assert "missing file" in rows(audited)["gone"]["failure"]


@unit
def test_the_rows_are_those_of_the_manifest_in_its_order_by_part(corpus, audited):
    clips = read_manifest(corpus)
    found = [(row["split"], row["id"]) for _, row in read_rows(audited)]
    parts = list(dict.fromkeys(split for split, _ in found))
    assert found == [(clip.split, clip.id) for split in parts for clip in clips if clip.split == split]
    assert len(found) == len(clips)


@unit
def test_group_names_what_must_stay_together_and_keeps_the_manifests(corpus, audited):
    found = {name: row["group"] for name, row in rows(audited).items()}
    assert found["a"] == found["copy"] == found["late"] == "field"  # late has the same pattern and noise
    assert found["tone"] == "studio"
    assert found["dark"] == ""
    with corpus.open() as file:
        table = [{**row, "group": found[row["id"]]} for row in csv.DictReader(file)]
    with pytest.raises(InputError, match="group 'field' is in"):  # until they are in one split
        write_manifest(audited / "regrouped.csv", table)
    moved = [{**row, "split": "train"} for row in table]
    write_manifest(audited / "regrouped.csv", moved)


@unit
def test_the_same_bytes_again_after_a_kill_and_without_measuring_anew(corpus, audited, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(audited, out)
    parts = sorted((out / FOLDER).iterdir())
    assert len(parts) == 4  # train in two, test, val
    parts[0].unlink()
    (out / AUDIT_FILE).unlink()
    (out / FOLDER / ".train-000001.x.tmp.safetensors").write_bytes(b"half")
    before = {path.name: path.stat().st_mtime_ns for path in parts[1:]}
    audit(corpus, out, CONFIG)
    assert {path.name: path.stat().st_mtime_ns for path in parts[1:]} == before
    assert sorted(path.name for path in (out / FOLDER).iterdir()) == sorted(path.name for path in parts)
    for name in (AUDIT_FILE, "duplicates.csv", f"{FOLDER}/{parts[0].name}"):
        assert (out / name).read_bytes() == (audited / name).read_bytes()


@unit
def test_other_thresholds_measure_nothing_anew(corpus, audited, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(audited, out)
    before = {path.name: path.stat().st_mtime_ns for path in (out / FOLDER).iterdir()}
    audit(corpus, out, CONFIG.model_copy(update={"offset_s": 2.0, "silence_db": -200.0}))
    assert {path.name: path.stat().st_mtime_ns for path in (out / FOLDER).iterdir()} == before
    assert "clock_offset" not in read_flags(out)["late"]
    assert "silent" not in read_flags(out)["dark"]


@unit
def test_a_row_that_changed_is_measured_anew(corpus, audited, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(audited, out)
    changed = tmp_path / "manifest.csv"
    lines = corpus.read_text().replace("broken.mp4", "a.mp4").replace(",a.mp4", f",{corpus.parent}/a.mp4")
    changed.write_text(lines.replace(",copy.mp4", f",{corpus.parent}/copy.mp4"))
    audit(changed, out, CONFIG)
    assert "shared_source" in read_flags(out)["broken"]


@unit
def test_a_piece_in_which_one_stream_is_over_has_not_failed(tmp_path):
    sound = ("-f", "lavfi", "-i", "sine=d=1")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:r=10:d=4", *sound, "-pix_fmt", "yuv420p", tmp_path / "a.mp4")
    row = {"id": "later", "path": "a.mp4", "label": "x", "split": "train", "start": 2, "duration": 1}
    write_manifest(tmp_path / "manifest.csv", [row])
    audit(tmp_path / "manifest.csv", tmp_path / "audit", CONFIG)
    found = rows(tmp_path / "audit")["later"]
    assert (found["audio"], found["visual"], found["failure"]) == ("not in the clip's time", "present", "")
    assert "failed" not in read_flags(tmp_path / "audit").get("later", ())


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@unit
def test_the_page_escapes_and_loads_nothing(audited):
    text = (audited / "audit.html").read_text()
    page = _Page()
    page.feed(text)
    assert BAD not in text
    assert "&lt;script&gt;" in text
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    places = [attrs.get(name) or "" for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    assert places
    assert all(place.startswith(("data:image/", "#")) for place in places)
    names = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {place[1:] for place in places if place.startswith("#")} <= names
    assert "across splits" in text


@unit
def test_shards_are_audited_as_they_are(tmp_path):
    media_dataset(tmp_path / "data", {"train": 14, "test": 6})
    summary = audit(tmp_path / "data", tmp_path / "out", CONFIG)
    assert summary.clips == {"train": 14, "test": 6}
    found = rows(tmp_path / "out")
    assert len(found) == 20
    assert found["clip train003"]["audio"] == "absent at source"
    assert found["clip train000"]["unchecked"].split(";")[0] == "clipped"
    assert not any(flags & {"duplicate_audio", "duplicate_visual"} for flags in read_flags(tmp_path / "out").values())


@unit
def test_sources_that_are_none(tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "dataset.json" in capsys.readouterr().err
    assert main([str(tmp_path / "clips.mp4")]) == 2
    assert main(["s3://bucket/data"]) == 2
    assert "--out" in capsys.readouterr().err
    assert main([str(tmp_path), "silense_db=-50"]) == 2
    assert "silence_db" in capsys.readouterr().err


@unit
@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("id,split\na,train\n", "flags"),
        ("id,flags\na,silnt\n", "flags"),
        ("id,flags\na,silent\na,\n", "id"),
        ("id,flags\na\n", None),
    ],
)
def test_a_wrong_audit_file_is_refused(tmp_path, text, field):
    (tmp_path / AUDIT_FILE).write_text(text)
    with pytest.raises(InputError) as refused:
        read_flags(tmp_path)
    assert refused.value.field == field
    assert refused.value.remedy


@unit
def test_no_audit_file_and_an_empty_one(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        read_flags(tmp_path)
    (tmp_path / AUDIT_FILE).write_text("id,flags\n")
    assert read_flags(tmp_path) == {}
