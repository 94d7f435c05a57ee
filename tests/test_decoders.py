"""Decoders by name: one contract, and what happens where one can't hold it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.causes import NOT_IN_CLIP, UNSUPPORTED, DecodeError
from pipelines.decode import Request, decode
from pipelines.decoder_process import ChildDied, Decoder
from pipelines.decoders import DECODERS, decoder_versions
from pipelines.ingest import ingest
from pipelines.settings import IngestConfig
from shards.reader import ShardDataset
from shards.schema import SampleMeta
from tests.fixtures.clock import RED_LIME, YUV, base_clip
from tests.fixtures.media import run_ffmpeg

pytestmark = pytest.mark.unit
decord = pytest.mark.skipif(decoder_versions()["decord"] is None, reason="decord is not installed")
CONFIG = IngestConfig(frames=2, image_size=16, workers=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return base_clip(tmp_path_factory.mktemp("decoders"))


@decord
def test_three_decoders_agree(base):
    request = Request(path=str(base), frames=8, size=32)
    clips = [decode(replace(request, decoder=name)) for name in DECODERS]  # type: ignore[arg-type]
    for clip in clips[1:]:
        np.testing.assert_array_equal(clip.frames, clips[0].frames)
        np.testing.assert_array_equal(clip.audio, clips[0].audio)
        assert clip.frame_times == clips[0].frame_times


@decord
@pytest.mark.parametrize(
    ("name", "words", "options"),
    [
        ("turned.mp4", "turned", ("-display_rotation", "90", "-i", "{base}", "-c", "copy")),
        ("deep.mp4", "deeper", ("-i", "{base}", "-pix_fmt", "yuv420p10le")),
        ("theora.ogv", "codec theora", ("-i", "{base}")),
        ("two.mp4", "several", ("-i", "{base}", "-map", "0:v", "-map", "0:v", "-c", "copy")),
    ],
)
def test_decord_refuses_what_it_would_get_wrong(base, tmp_path, name, words, options):
    run_ffmpeg(*(option.format(base=base) for option in options), tmp_path / name)
    request = Request(path=str(tmp_path / name), frames=2, size=16, decoder="decord")
    with pytest.raises(DecodeError, match=words) as caught:
        decode(request)
    assert caught.value.cause == UNSUPPORTED
    assert "decoder_fallback" in caught.value.remedy
    found = decode(replace(request, decoder_fallback=True))
    np.testing.assert_array_equal(found.frames, decode(replace(request, decoder="pyav")).frames)


@pytest.mark.parametrize("fallback", [False, True])
def test_a_crash_of_decord_is_taken_over_only_if_asked_for(base, fallback):
    class Mortal(Decoder):
        def _try(self, request: Request):
            if request.decoder == "decord" and request.in_process:
                raise ChildDied(UNSUPPORTED, "crashed", by_chance=False)
            return decode(request)

    request = Request(path=str(base), frames=2, size=16, decoder="decord", decoder_fallback=fallback)
    if fallback:
        assert Mortal().decode(request).frames is not None
    else:
        with pytest.raises(DecodeError, match="decord: crashed"):
            Mortal().decode(request)


def test_new_settings_leave_what_older_folders_know(tmp_path):
    known = set(IngestConfig().content())
    assert not known & {"decoder", "decoder_fallback", "channel", "pixels"}
    assert IngestConfig(channel="first").content()["channel"] == "first"


def test_samples_say_when_their_streams_begin_and_a_silent_piece_is_no_failure(tmp_path):
    late = ("-itsoffset", "2", "-f", "lavfi", "-i", "sine=1000:d=2", "-map", "0", "-map", "1")
    run_ffmpeg("-f", "lavfi", "-i", RED_LIME, *late, *YUV, tmp_path / "late.mp4")
    rows = "id,path,label,split,start,duration\nwhole,late.mp4,x,train,,\npiece,late.mp4,x,train,0,1\n"
    (tmp_path / "m.csv").write_text(rows)
    info = ingest(tmp_path / "m.csv", tmp_path / "out", CONFIG.model_copy(update={"max_failures": 0}))
    assert info.splits["train"].absent == {"audio": {NOT_IN_CLIP: 1}}
    metas = {meta.id: meta for meta in ShardDataset(tmp_path / "out", "train").metas}
    for meta in metas.values():
        assert meta.audio.begin == pytest.approx(2, abs=0.03)
        assert meta.visual.begin == 0
        assert meta.offset == pytest.approx(2, abs=0.03)
    assert (tmp_path / "out/quarantine.jsonl").read_text() == ""


def test_samples_of_older_datasets_are_read():
    stream = {"present": True, "cause": None, "codec": "aac", "rate": 44100.0, "duration": 4.0}
    old = {"key": "a", "id": "a", "labels": ["x"], "split": "train", "group": None, "duration": 4.0}
    old |= {"audio": stream, "visual": stream, "source_sha256": "0", "sample_rate": 16000, "frame_rate": 100.0}
    meta = SampleMeta.model_validate_json(json.dumps(old | {"frame_times": [0.1]}))
    assert (meta.offset, meta.audio.begin, meta.audio.channel) == (None, None, None)
