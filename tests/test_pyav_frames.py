"""Frames of which only the needed packets were decoded, against decoding everything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines import container
from pipelines.audio import Span
from pipelines.container import open_media
from pipelines.decode import Request, decode
from pipelines.ffmpeg import executable
from pipelines.ffmpeg_program import by_program
from pipelines.frames import Frames, Wanted, fit, uniform
from pipelines.pyav_frames import Undecided, by_pyav, needed
from tests.fixtures.media import make_clip, run_ffmpeg

pytestmark = pytest.mark.integration

OPEN = "keyint=12:min-keyint=12:bframes=3:b-pyramid=normal:open-gop=1:scenecut=0"
CODINGS = {
    "h264.mp4": ("-c:v", "libx264", "-bf", "3", "-g", "15"),
    "open.mp4": ("-c:v", "libx264", "-x264-params", OPEN),
    "open.mkv": ("-c:v", "libx264", "-x264-params", OPEN),
    "fields.mp4": ("-c:v", "libx264", "-flags", "+ildct+ilme", "-bf", "2", "-g", "15"),
    "hevc.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none:keyint=12:bframes=4:open-gop=1"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-bf", "2", "-g", "12"),
    "deep.mkv": ("-c:v", "libx264", "-pix_fmt", "yuv422p10le", "-bf", "3", "-g", "15"),
    "mpeg2.mkv": ("-c:v", "mpeg2video", "-bf", "2", "-g", "12"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-g", "12", "-deadline", "realtime"),
    "vp8.webm": ("-c:v", "libvpx", "-g", "12", "-deadline", "realtime"),
    "av1.mp4": ("-c:v", "libsvtav1", "-g", "12", "-preset", "12", "-svtav1-params", "lp=1"),
}
SPANS = (Span(), Span(0.613, 0.371))


@pytest.fixture(scope="module", params=CODINGS)
def coded(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("coded") / request.param
    moving = "testsrc2=size=64x48:rate=20:duration=1.8,rotate=t"
    run_ffmpeg("-f", "lavfi", "-i", moving, "-pix_fmt", "yuv420p", *CODINGS[request.param], path)
    return path


def everything(path: Path, start: float) -> tuple[np.ndarray, np.ndarray]:
    """All frames of a file [frames, 48, 64, 3] by ffmpeg's program, and float [frames, 2]: when they are shown."""
    command = [executable(), "-v", "error", "-i", str(path), "-fps_mode", "passthrough", "-pix_fmt", "rgb24"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-"], check=True, capture_output=True).stdout
    with av.open(str(path)) as file:
        begins = [frame.time - start for frame in file.decode(video=0)]
    pictures = np.frombuffer(raw, np.uint8).reshape(len(begins), 48, 64, 3)
    return pictures, np.stack([begins, [*begins[1:], begins[-1] + 0.05]], 1)


def taken(path: Path, wanted: Wanted, program: bool = False) -> Frames:
    with open_media(str(path)) as media:
        stream = media.first("video")
        return by_program(media, stream, wanted, 30) if program else by_pyav(media, stream, wanted, 10**6)


@pytest.mark.parametrize("hold", [True, False], ids=["held", "sought"])
def test_the_same_bits_as_of_decoding_everything(coded, hold, monkeypatch):
    monkeypatch.setattr(container, "HELD", container.HELD if hold else 0)
    with open_media(str(coded)) as media:
        zero = media.zero
    pictures, shown = everything(coded, zero)
    decided = 0
    for span in SPANS:
        for count in (3, 30):
            wanted = Wanted(span, count, 48)
            try:
                found = taken(coded, wanted)
                decided += 1
            except Undecided:  # after a jump to an open group the decoder misses what came before
                assert not hold or coded.stem == "open"
                found = taken(coded, wanted, program=True)
            chosen = uniform(shown, span, count)
            np.testing.assert_allclose(found.times, shown[chosen, 0], atol=1e-3)
            np.testing.assert_array_equal(found.images, [fit(pictures[i], 48) for i in chosen])
    assert decided


def test_frames_hidden_by_an_edit_list_are_no_frames(tmp_path):
    whole = make_clip(tmp_path / "whole.mp4", seconds=2, options=("-g", "20"))
    run_ffmpeg("-ss", "0.55", "-i", whole, "-c", "copy", tmp_path / "cut.mp4")
    found, truth = (taken(tmp_path / "cut.mp4", Wanted(Span(), 5, 64), program) for program in (False, True))
    assert found.times == truth.times
    np.testing.assert_array_equal(found.images, truth.images)
    assert min(found.times) >= 0


def test_what_a_frame_needs():
    #       key      key                key (open: two shown before it)
    pts = np.array([0, 2, 1, 3, 5, 4, 8, 6, 7, 10, 9])
    keys = np.isin(np.arange(11), [0, 3, 6])

    def of(*wanted: int) -> list[tuple[int, int]]:
        return needed(pts, keys, np.array(wanted))

    assert of(1) == [(0, 2)]
    assert of(4) == [(3, 5)]
    assert of(7) == [(3, 8)]  # shown before its key frame: needs the group before
    assert of(9) == [(6, 10)]
    assert of(0, 10) == [(0, 0), (6, 9)]
    assert of(1, 3) == [(0, 3)]
    assert of(10, 7) == [(3, 9)]


def test_a_group_without_a_wanted_frame_is_not_decoded(tmp_path):
    """Damage in such a group is therefore not met; where a wanted frame is damaged, it is."""
    path = make_clip(tmp_path / "a.mkv", seconds=3, audio=False, options=("-g", "10", "-bf", "0"))
    with av.open(str(path)) as file:
        places = [(float(p.pts * p.time_base), p.pos, p.size) for p in file.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for time, at, size in places:
        if 1.0 <= time < 2.0:
            data[at + size // 2 : at + size - 8] = b"\xff" * (size - 8 - size // 2)
    (tmp_path / "damaged.mkv").write_bytes(data)
    found = taken(tmp_path / "damaged.mkv", Wanted(Span(), 2, 64))
    np.testing.assert_array_equal(found.images, decode(Request(path=str(path), frames=2, size=64)).frames)
    with pytest.raises((Undecided, av.FFmpegError)):
        taken(tmp_path / "damaged.mkv", Wanted(Span(), 3, 64))


@pytest.mark.parametrize("name", ["a.webm", "a.m4a", "a.mkv"])
def test_sound_of_files_too_large_to_hold_is_the_same(tmp_path, monkeypatch, name):
    """Read anew from the start, whole; sought, a piece."""
    path = make_clip(tmp_path / name, seconds=5, video=name != "a.m4a")
    requests = [
        Request(path=str(path), frames=2, size=16),
        Request(path=str(path), frames=2, size=16, start=3, duration=1),
    ]
    held = [decode(request).audio for request in requests]
    monkeypatch.setattr(container, "HELD", 0)
    for request, sound in zip(requests, held, strict=True):
        np.testing.assert_array_equal(decode(request).audio, sound)
