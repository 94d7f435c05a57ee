"""AV-Digits: no image twice, two splits that keep their promises, clips as long as their recordings."""

from __future__ import annotations

import functools
import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from pipelines.corpora.encode import write_wav
from pipelines.corpora.public.avdigits import AvdigitsConfig, Recording, build, choose, find_recordings, pair
from pipelines.manifest import read_manifest
from shards.errors import InputError
from shards.progress import Progress
from tests.fixtures.decoding import decode_frames, decode_sound, describe_file

pytestmark = pytest.mark.unit

SPEAKERS = ("george", "theo", "lucas")
RECORDINGS = [Recording(d, s, i) for d in range(10) for s in SPEAKERS for i in range(12)]


def made(out: Path, source: Path, limit: int | None = None) -> tuple[Path, Path]:
    """The manifests of both splits."""
    config = AvdigitsConfig(source=source, limit=limit, jobs=1)
    manifests = build(config, out, functools.partial(Progress, "avdigits", stream=io.StringIO())).manifests
    return manifests["official"], manifests["speakers"]


def small_source(folder: Path, seconds: float = 0.3) -> Path:
    rng = np.random.default_rng(0)
    (folder / "recordings").mkdir(parents=True)
    for digit, speaker, index in [(1, "george", 0), (1, "theo", 9), (7, "george", 12)]:
        sound = 0.2 * rng.standard_normal(round(8000 * seconds))
        write_wav(folder / "recordings" / f"{digit}_{speaker}_{index}.wav", sound, 8000)
    images = np.zeros((40, 28, 28), np.uint8)
    images[:, 8:20, 12:16] = 255
    np.savez(folder / "mnist_10k.npz", images=images, labels=np.arange(40, dtype=np.uint8) % 10)
    return folder


def test_no_image_is_used_twice_and_every_image_shows_the_digit():
    labels = np.random.default_rng(0).integers(0, 10, 1000)
    pairs = pair(RECORDINGS, labels, seed=0)
    assert len(set(pairs.values())) == len(RECORDINGS)
    assert all(labels[image] == recording.digit for recording, image in pairs.items())
    assert pairs == pair(RECORDINGS[::-1], labels, seed=0)
    assert pairs != pair(RECORDINGS, labels, seed=1)


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="digit 0 for 36"):
        pair(RECORDINGS, np.arange(50) % 10, seed=0)


def test_a_limit_takes_as_many_of_each_speaker_and_digit():
    chosen = choose(RECORDINGS, 60, seed=0)
    cells = {(r.digit, r.speaker): 0 for r in RECORDINGS}
    for recording in chosen:
        cells[recording.digit, recording.speaker] += 1
    assert set(cells.values()) == {2}
    assert set(choose(RECORDINGS, 30, seed=0)) < set(chosen)


def test_builds_clips_as_long_as_their_recordings(tmp_path: Path):
    source = small_source(tmp_path / "source")
    official, speakers = made(tmp_path / "out", source=source)
    assert {clip.id: clip.split for clip in read_manifest(official)} == {
        "1_george_0": "test",
        "1_theo_9": "val",
        "7_george_12": "train",
    }
    by_speaker = {clip.id: clip for clip in read_manifest(speakers)}
    assert {name: clip.split for name, clip in by_speaker.items()} == {
        "1_george_0": "val",
        "1_theo_9": "test",
        "7_george_12": "train",
    }
    assert by_speaker["1_theo_9"].group == "theo"
    for clip in by_speaker.values():
        assert clip.path
        seconds, streams = describe_file(Path(clip.path))
        assert seconds == pytest.approx(0.3, abs=0.02)
        assert "h264" in streams
        assert "aac" in streams
        frames = decode_frames(Path(clip.path), 96)
        assert len(frames) == 2
        assert frames[0, 48, 48].min() > 200 > 60 > frames[0, 48, 10].max()
        assert len(decode_sound(Path(clip.path))) / 16_000 == pytest.approx(0.3, abs=0.07)


def test_refuses_a_source_that_is_none(tmp_path: Path):
    with pytest.raises(InputError, match="no recordings"):
        made(tmp_path / "out", source=tmp_path)
    source = small_source(tmp_path / "source")
    (source / "mnist_10k.npz").unlink()
    with pytest.raises(InputError, match="no such file"):
        made(tmp_path / "out", source=source)
    (source / "recordings" / "hello.wav").write_bytes(b"")
    with pytest.raises(InputError, match="not named like a recording"):
        made(tmp_path / "out", source=source)


def test_the_real_corpus(shared_data: Path, tmp_path: Path):
    source = shared_data / "avdigits"
    assert len(find_recordings(source)) == 3000
    official, speakers = made(tmp_path, source=source, limit=6)
    clips = read_manifest(official)
    assert len(clips) == len(read_manifest(speakers)) == 6
    for clip in clips:
        assert clip.path
        with wave.open(str(source / "recordings" / f"{clip.id}.wav")) as file:
            seconds = file.getnframes() / file.getframerate()
        assert describe_file(Path(clip.path))[0] == pytest.approx(seconds, abs=0.02)
    note = json.loads((tmp_path / "clips" / f"{clips[0].id}.json").read_text())
    labels = np.load(source / "mnist_10k.npz")["labels"]
    assert str(labels[note["image"]]) == clips[0].labels[0]
