"""Decoding real files: what is there, what is absent, and what is damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from pipelines import causes, frames
from pipelines.audio import Span
from pipelines.causes import DecodeError
from pipelines.decode import Request, decode
from pipelines.decoder_process import Decoder
from pipelines.ffmpeg import executable
from shards.schema import ABSENT
from tests.conftest import ROOT
from tests.fixtures.media import make_clip, run_ffmpeg

unit, integration = pytest.mark.unit, pytest.mark.integration


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "both.mp4", seconds=2)


def request(path: Path, **more: object) -> Request:
    return Request(path=str(path), size=32, **more)  # type: ignore[arg-type]


@unit
@pytest.mark.parametrize("in_process", [True, False])
def test_approximate_frames_are_key_frames_near_the_exact_ones_and_say_when(tmp_path, in_process):
    coded = ("-g", "5", "-keyint_min", "5", "-sc_threshold", "0", "-bf", "0")  # a key frame every half second
    clip = make_clip(tmp_path / "keys.mp4", seconds=2, options=coded)
    exact = decode(request(clip, frames=8))
    near = decode(request(clip, frames=8, key_frames=True, in_process=in_process))
    every = decode(request(clip, frames=20))  # all frames of the clip
    assert near.frames.shape == exact.frames.shape
    assert np.abs(np.subtract(near.frame_times, exact.frame_times)).max() < 0.31
    for shown, picture in zip(near.frame_times, near.frames, strict=True):
        assert shown in (0.0, 0.5, 1.0, 1.5)
        np.testing.assert_allclose(picture, every.frames[every.frame_times.index(shown)], atol=6)
    np.testing.assert_array_equal(near.audio, exact.audio)
    part = decode(request(clip, frames=2, key_frames=True, start=1.0, duration=1.0, in_process=in_process))
    assert part.frame_times == (0.0, 0.5)


def cause_of(call) -> str:
    with pytest.raises(DecodeError) as caught:
        call()
    assert caught.value.message
    return caught.value.cause


@unit
def test_both_streams(clip):
    found = decode(request(clip))
    assert found.audio.dtype == np.int16
    assert abs(len(found.audio) - 32000) < 800
    assert found.frames.shape == (10, 32, 32, 3)
    assert found.frames.dtype == np.uint8
    np.testing.assert_allclose(found.frame_times, np.arange(10) * 0.2 + 0.1, atol=1e-3)
    assert (found.audio_info.codec, found.visual_info.codec) == ("aac", "h264")


@unit
def test_the_tone_is_the_tone(clip):
    sound = decode(request(clip)).audio.astype(float)
    assert abs(np.abs(np.fft.rfft(sound)).argmax() * 16000 / len(sound) - 440) < 1


@unit
def test_pyav_and_ffmpeg_give_the_same_frames(clip):
    both = [decode(request(clip, in_process=use)) for use in (True, False)]
    assert both[0].frame_times == both[1].frame_times
    assert np.abs(both[0].frames.astype(int) - both[1].frames).mean() < 2


@unit
@pytest.mark.parametrize("in_process", [True, False])
def test_a_part_of_a_file(clip, in_process):
    whole = decode(request(clip, frames=20))
    part = decode(request(clip, frames=5, start=0.5, duration=1.0, in_process=in_process))
    assert len(part.audio) == 16000
    np.testing.assert_allclose(part.frame_times, np.arange(5) * 0.2 + 0.1, atol=1e-3)
    assert np.abs(part.frames.astype(int) - whole.frames[6:16:2]).mean() < 2


@unit
def test_fewer_frames_than_asked_for_are_repeated(tmp_path):
    found = decode(request(make_clip(tmp_path / "a.mp4", seconds=0.3, audio=False), frames=6))
    assert len(found.frames) == 6
    assert (found.frames[0] == found.frames[1]).all()


@unit
@pytest.mark.parametrize("missing", ["audio", "video"])
def test_a_stream_absent_at_source(tmp_path, missing):
    path = make_clip(tmp_path / "a.mkv", seconds=0.5, **{missing: False})
    found = decode(request(path))
    gone, there = (found.audio_info, found.visual_info)[:: 1 if missing == "audio" else -1]
    assert (gone.present, gone.cause, there.present) == (False, ABSENT, True)
    assert (found.audio if missing == "audio" else found.frames) is None


@unit
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_turned_and_mirrored_clips_are_upright(tmp_path, turn, mirror):
    plain = make_clip(tmp_path / "plain.mp4", seconds=0.3, size=(64, 64), audio=False)
    how = ("-display_rotation", str(turn), *(["-display_hflip"] if mirror else []))
    run_ffmpeg(*how, "-i", plain, "-c", "copy", tmp_path / "turned.mp4")
    one, other = (decode(request(tmp_path / "turned.mp4", in_process=use)).frames for use in (True, False))
    np.testing.assert_array_equal(one, other)
    upright = np.rot90(decode(request(plain)).frames, k=turn // 90, axes=(1, 2))
    assert (np.abs(one.astype(int) - upright).mean() < 8) == (not mirror)


@unit
def test_frames_before_an_edit_list_are_not_shown(tmp_path):
    whole = make_clip(tmp_path / "whole.mp4", seconds=4, options=("-g", "100"))
    run_ffmpeg("-ss", "2", "-i", whole, "-c", "copy", tmp_path / "cut.mp4")
    part, expected = decode(request(tmp_path / "cut.mp4")), decode(request(whole, start=2.0))
    assert np.abs(part.frames.astype(int) - expected.frames).mean() < 2


@unit
def test_av1_goes_through_ffmpeg(tmp_path):
    codec = ("-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "lp=1")
    path = make_clip(tmp_path / "a.mkv", size=(128, 96), seconds=0.5, audio=False, options=codec)
    assert decode(request(path)).visual_info.codec == "av1"


@unit
def test_a_pair_of_sound_and_picture(tmp_path):
    make_clip(tmp_path / "a.wav", video=False)
    Image.new("RGB", (50, 40), (250, 10, 20)).save(tmp_path / "a.png")
    pair = Request(audio_path=str(tmp_path / "a.wav"), image_path=str(tmp_path / "a.png"), size=32)
    found = decode(pair)
    assert found.frames.shape == (1, 32, 32, 3)
    assert (found.frames == (250, 10, 20)).all()
    assert len(found.audio) == 16000
    assert decode(replace(pair, image_path=None)).visual_info.cause == ABSENT
    assert decode(replace(pair, audio_path=None)).audio_info.cause == ABSENT


@unit
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".wav"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_files_are_told(tmp_path, suffix, share):
    options = ("-movflags", "+faststart") if suffix == ".mp4" else ()
    path = make_clip(tmp_path / f"a{suffix}", video=suffix != ".wav", seconds=3, options=options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert cause_of(lambda: decode(request(path))) == causes.TRUNCATED


@unit
def test_mp4_without_its_end_is_truncated(clip, tmp_path):
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes()[:-3000])
    assert cause_of(lambda: decode(request(tmp_path / "a.mp4"))) == causes.TRUNCATED


@unit
def test_other_causes(clip, tmp_path):
    for name, content, cause in (
        ("empty.mp4", b"", causes.TRUNCATED),
        ("text.mp4", b"no video at all\n" * 99, causes.UNDECODABLE),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n", causes.UNDECODABLE),
    ):
        (tmp_path / name).write_bytes(content)
        assert cause_of(lambda name=name: decode(request(tmp_path / name))) == cause
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for ever
    for name in ("none.mp4", "pipe.mp4", "."):
        assert cause_of(lambda name=name: decode(request(tmp_path / name))) == causes.MISSING_FILE
    assert cause_of(lambda: decode(request(clip, max_pixels=100))) == causes.TOO_LARGE
    assert cause_of(lambda: decode(request(clip, max_seconds=1.0))) == causes.TOO_LARGE
    assert cause_of(lambda: decode(request(clip, start=5.0))) == causes.TRUNCATED


@unit
def test_a_damaged_picture_is_no_picture(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    middle = data.index(b"mdat") + 400
    data[middle : middle + 3000] = bytes(3000)
    (tmp_path / "a.mp4").write_bytes(data)
    assert cause_of(lambda: decode(request(tmp_path / "a.mp4"))) == causes.UNDECODABLE


@unit
def test_unknown_codecs_are_unsupported(clip, tmp_path):
    data = clip.read_bytes()
    (tmp_path / "a.mp4").write_bytes(data.replace(b"avc1", b"zzz1"))
    assert cause_of(lambda: decode(request(tmp_path / "a.mp4"))) == causes.UNSUPPORTED


@unit
def test_uniform_takes_the_middles():
    shown = np.stack([np.arange(10) / 10, np.arange(1, 11) / 10], 1)
    assert list(frames.uniform(shown, Span(), 5)) == [1, 3, 5, 7, 9]
    assert list(frames.uniform(shown, Span(0.5, 0.2), 2)) == [5, 6]
    with pytest.raises(DecodeError):
        frames.uniform(shown, Span(1.5), 2)


@pytest.fixture(scope="module")
def decoder():
    decoder = Decoder()
    yield decoder
    decoder.close()


class TestChild:
    @unit
    def test_the_child_decodes_as_the_function_does(self, decoder, clip):
        ours, theirs = decode(request(clip)), decoder.decode(request(clip))
        np.testing.assert_array_equal(ours.audio, theirs.audio)
        np.testing.assert_array_equal(ours.frames, theirs.frames)
        assert replace(ours, audio=None, frames=None) == replace(theirs, audio=None, frames=None)

    @unit
    def test_errors_come_through(self, decoder, tmp_path):
        assert cause_of(lambda: decoder.decode(request(tmp_path / "none.mp4"))) == causes.MISSING_FILE

    @unit
    def test_a_crash_costs_nothing_but_a_new_child(self, decoder, clip):
        decoder.decode(request(clip))
        os.kill(decoder._process.pid, signal.SIGSEGV)
        assert decoder.decode(request(clip)).frames is not None

    @integration
    def test_a_child_that_hangs_is_given_up(self, decoder, clip, monkeypatch):
        monkeypatch.setattr("pipelines.decoder_process.GRACE", 0.5)
        decoder.decode(request(clip))
        os.kill(decoder._process.pid, signal.SIGSTOP)
        start = time.monotonic()
        assert decoder.decode(request(clip, timeout_s=1.0)).frames is not None  # by the next child
        assert 1.5 < time.monotonic() - start < 60
        monkeypatch.setattr("pipelines.decoder_process.GRACE", 0.0)
        assert cause_of(lambda: decoder.decode(request(clip, timeout_s=0.0))) == causes.TIMED_OUT

    @integration
    def test_memory_is_limited(self, tmp_path):
        fast = ("-preset", "ultrafast")
        path = make_clip(tmp_path / "a.mp4", size=(1280, 720), rate=50, seconds=3, audio=False, options=fast)
        small = Decoder(memory_mb=450)
        found = cause_of(lambda: small.decode(request(path, frames=400, in_process=False)))
        small.close()
        assert found == causes.TOO_LARGE

    @unit
    def test_closing_ends_the_child(self, clip):
        decoder = Decoder()
        decoder.decode(request(clip))
        pid = decoder._process.pid
        decoder.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    @integration
    def test_the_child_ends_with_a_parent_that_is_killed(self):
        program = "import time; from pipelines.decoder_process import Decoder; child = Decoder()._start()"
        program += "; print(child.pid, flush=True); time.sleep(600)"
        with subprocess.Popen([sys.executable, "-c", program], stdout=-1, cwd=ROOT, text=True) as parent:
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            parent.kill()
        assert not psutil.wait_procs([child], timeout=60)[1]


@unit
def test_ffmpeg_comes_from_the_wheel():
    assert "imageio_ffmpeg" in executable()
