"""Siblings of the faults in test_faults.py: other containers, clocks, headers; what is right comes from the making."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.causes import TRUNCATED, UNDECODABLE, UNSUPPORTED, DecodeError
from pipelines.decode import Decoded, Request, decode
from tests.fixtures.clock import LATE_TONE, RED_LIME, YUV, colours, tone_times
from tests.fixtures.media import run_ffmpeg

unit, integration = pytest.mark.unit, pytest.mark.integration
BOTH = pytest.mark.parametrize("in_process", [True, False], ids=["pyav", "ffmpeg"])
PICTURE, SOUND = ("-f", "lavfi", "-i", RED_LIME), ("-f", "lavfi", "-i", LATE_TONE)
OTHER = ("-f", "lavfi", "-i", "aevalsrc='0.4*sin(3000*t)':d=4")
BLUE = ("-f", "lavfi", "-i", "color=blue:s=64x64:r=10:d=4")
H264 = (*YUV, "-c:v", "libx264", "-preset", "ultrafast")
MAPS = ("-map", "0", "-map", "1")


def taken(path: Path, **more: object) -> Decoded:
    return decode(Request(path=str(path), size=16, frames=120, **more))  # type: ignore[arg-type]


def lag(clip: Decoded) -> float:
    """Seconds from the first lime frame to the tone."""
    seen = tone_times(clip.audio)
    assert seen is not None
    return seen[0] - clip.frame_times[colours(clip.frames).index("lime")]


def changed(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


@integration
@BOTH
@pytest.mark.parametrize("name", ["a.mkv", "a.nut", "a.ts"])
def test_a_clock_that_starts_at_ten(tmp_path, name, in_process):
    """Matroska and NUT count their length from 0 of that clock; nothing is cut short."""
    sound = ("-c:a", "libvorbis") if name != "a.ts" else ("-c:a", "mp2")
    run_ffmpeg(*PICTURE, *SOUND, *H264, *sound, "-output_ts_offset", "10", tmp_path / name)
    clip = taken(tmp_path / name, in_process=in_process)
    assert lag(clip) == pytest.approx(0, abs=0.06)
    assert clip.duration == pytest.approx(4, abs=0.06)
    piece = taken(tmp_path / name, start=1, duration=2, in_process=in_process)
    assert tone_times(piece.audio)[0] == pytest.approx(1, abs=0.06)


@unit
@BOTH
@pytest.mark.parametrize(
    ("codecs", "late"),
    [
        (("-c:v", "libx264", "-bf", "3", "-g", "20"), 0.0),
        (("-c:v", "mpeg4", "-bf", "2"), 0.0),
        (("-c:v", "mpeg4"), 10.0),
    ],
    ids=["reordered", "mpeg4 reordered", "ten seconds late"],
)
def test_the_frames_of_an_avi_are_at_their_chunks(tmp_path, codecs, late, in_process):
    """It has no other times; a late picture is empty chunks."""
    options = (*YUV, *codecs, "-c:a", "pcm_s16le")
    run_ffmpeg("-itsoffset", late, *PICTURE, *SOUND, *MAPS, *options, tmp_path / "a.avi")
    assert lag(taken(tmp_path / "a.avi", in_process=in_process)) == pytest.approx(-late, abs=0.11)


@unit
@BOTH
def test_a_length_that_the_header_has_wrong(tmp_path, in_process):
    """AVI can't store a late sound, WMV's header then promises too much, recorders of Flash leave any number behind."""
    run_ffmpeg(*PICTURE, "-itsoffset", "0.5", *SOUND, *MAPS, "-c:v", "mpeg4", "-c:a", "mp3", tmp_path / "a.avi")
    assert taken(tmp_path / "a.avi", in_process=in_process).duration == pytest.approx(4, abs=0.12)
    run_ffmpeg(*PICTURE, "-itsoffset", "1.5", *SOUND, *MAPS, tmp_path / "a.wmv")
    late = taken(tmp_path / "a.wmv", in_process=in_process)
    assert lag(late) == pytest.approx(1.5, abs=0.06)
    assert late.duration == pytest.approx(5.5, abs=0.1)
    run_ffmpeg(*PICTURE, *SOUND, *H264, "-c:a", "aac", tmp_path / "a.flv")
    at = (tmp_path / "a.flv").read_bytes().index(b"duration") + 9
    changed(tmp_path / "a.flv", lambda data: data[:at] + struct.pack(">d", 60.0) + data[at + 8 :])
    assert taken(tmp_path / "a.flv", in_process=in_process).duration == pytest.approx(4, abs=0.1)
    for name in ("a.avi", "a.wmv", "a.flv"):
        changed(tmp_path / name, lambda data: data[: int(0.8 * len(data))])
        with pytest.raises(DecodeError):
            taken(tmp_path / name, in_process=in_process)


@unit
@BOTH
def test_transport_streams_put_one_behind_the_other(tmp_path, in_process):
    """Each counts its pieces from 0; the last packet of the first is marked as damaged, and is not."""
    for offset, name in ((100, "a.ts"), (3, "b.ts")):
        run_ffmpeg(*PICTURE, *SOUND, *H264, "-c:a", "aac", "-output_ts_offset", offset, tmp_path / name)
    (tmp_path / "ab.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    clip = taken(tmp_path / "ab.ts", in_process=in_process)
    assert [colours(clip.frames)[i] for i in (20, 50, 70, 110)] == ["red", "lime", "red", "lime"]
    assert clip.duration == pytest.approx(8, abs=0.15)
    split = ("-c", "copy", "-f", "segment", "-segment_time", "2", "-individual_header_trailer", "1")
    run_ffmpeg("-i", tmp_path / "a.ts", *split, tmp_path / "part%d.ts")  # one clock through all parts
    parts = [path.read_bytes() for path in sorted(tmp_path.glob("part*.ts"))]
    (tmp_path / "whole.ts").write_bytes(b"".join(parts))
    assert lag(taken(tmp_path / "whole.ts", in_process=in_process)) == pytest.approx(0, abs=0.06)


@unit
@BOTH
def test_a_transport_stream_that_lost_pieces_is_damaged(tmp_path, in_process):
    run_ffmpeg(*PICTURE, *SOUND, *H264, "-g", "10", "-c:a", "mp2", tmp_path / "a.ts")
    middle = (tmp_path / "a.ts").stat().st_size // 188 // 2 * 188
    changed(tmp_path / "a.ts", lambda data: data[:middle] + data[middle + 6 * 188 :])
    with pytest.raises(DecodeError, match="cut short or damaged"):
        taken(tmp_path / "a.ts", in_process=in_process)


@unit
@BOTH
@pytest.mark.parametrize("name", ["a.ts", "a.ogv", "a.mp4"])
def test_a_piece_that_reaches_beyond_the_end_ends_with_the_file(tmp_path, name, in_process):
    codecs = {"ts": ("-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2"), "ogv": (*YUV, "-c:v", "libtheora")}
    run_ffmpeg(*PICTURE, *SOUND, *codecs.get(name[2:], H264), tmp_path / name)
    piece = taken(tmp_path / name, start=1, duration=20, in_process=in_process)
    assert piece.duration == pytest.approx(3, abs=0.15)
    assert lag(piece) == pytest.approx(0, abs=0.06)


@integration
@BOTH
@pytest.mark.parametrize(
    ("name", "codecs", "late"),
    [
        ("sound.ts", (*H264, "-c:a", "aac"), "sound"),
        ("picture.ts", (*H264, "-c:a", "aac"), "picture"),
        ("sound.mpg", ("-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2"), "sound"),
    ],
)
def test_a_stream_that_begins_long_after_the_file(tmp_path, name, codecs, late, in_process):
    """Later than where FFmpeg looks for streams, and than a jump at which its program takes a clock for a new one."""
    by = {kind: ("-itsoffset", "12") if kind == late else () for kind in ("sound", "picture")}
    slow = RED_LIME.replace("d=2", "d=8" if late == "sound" else "d=2")
    tone = (*by["sound"], *SOUND)
    run_ffmpeg(*by["picture"], "-f", "lavfi", "-i", slow, *tone, *MAPS, *codecs, tmp_path / name)
    clip = taken(tmp_path / name, in_process=in_process)
    assert lag(clip) == pytest.approx(14 - 8 if late == "sound" else 2 - 14, abs=0.15)


def _zeros(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(3000) + data[middle + 3000 :]


@unit
@BOTH
@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("a.webm", ("-c:v", "mjpeg", "-c:a", "libopus", "-f", "matroska")),
        ("a.ogv", ("-c:v", "libtheora", "-c:a", "libvorbis")),
        ("a.wmv", ("-c:v", "wmv2", "-c:a", "wmav2")),
        ("a.flv", ("-c:v", "flv1", "-c:a", "mp3")),
    ],
)
def test_a_container_that_is_broken_inside_is_no_shorter_file(tmp_path, name, codecs, in_process):
    """Demuxers pass over what they can't read; what stood there would be missing silently."""
    busy = ("-f", "lavfi", "-i", "testsrc2=s=128x96:r=25:d=3", "-f", "lavfi", "-i", "anoisesrc=d=3:a=0.4")
    run_ffmpeg(*busy, *YUV, *codecs, tmp_path / name)
    assert taken(tmp_path / name, in_process=in_process).duration == pytest.approx(3, abs=0.2)
    changed(tmp_path / name, _zeros)
    with pytest.raises(DecodeError) as failed:
        taken(tmp_path / name, in_process=in_process)
    assert failed.value.cause in (TRUNCATED, UNDECODABLE)


@unit
@pytest.mark.parametrize(("name", "step"), [("a.ts", 188), ("a.ogg", 0)])
def test_streams_without_a_length_that_end_within_a_piece(tmp_path, name, step):
    run_ffmpeg(*SOUND, "-c:a", "mp2" if step else "libvorbis", tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    half = len(whole) * 3 // 5
    (tmp_path / name).write_bytes(whole[: half // 188 * 188 + 100] if step else whole[:half])
    with pytest.raises(DecodeError, match=TRUNCATED):
        taken(tmp_path / name)
    (tmp_path / name).write_bytes(whole + b"<html>not found</html>")  # something behind the end is nobody's
    assert tone_times(taken(tmp_path / name).audio) == pytest.approx((2, 4), abs=0.05)


@unit
@BOTH
def test_sound_that_starts_late_in_ogg(tmp_path, in_process):
    codecs = (*YUV, "-c:v", "libtheora", "-c:a", "libopus")
    run_ffmpeg(*PICTURE, "-itsoffset", "0.5", *SOUND, *MAPS, *codecs, tmp_path / "a.ogv")
    assert lag(taken(tmp_path / "a.ogv", in_process=in_process)) == pytest.approx(0.5, abs=0.06)


@unit
@BOTH
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_tracks_that_are_played_by_default(tmp_path, suffix, in_process):
    """A still picture and a comment come first, but are not enabled."""
    marks = [f"-disposition:{kind}:{number}" for kind in "va" for number in (0, 1)]
    flags = [part for mark, value in zip(marks, ("0", "default") * 2, strict=True) for part in (mark, value)]
    maps = ("-map", "0", "-map", "1", "-map", "2", "-map", "3")
    run_ffmpeg(*BLUE, *PICTURE, *OTHER, *SOUND, *maps, *H264, "-c:a", "aac", *flags, tmp_path / f"a.{suffix}")
    assert lag(taken(tmp_path / f"a.{suffix}", in_process=in_process)) == pytest.approx(0, abs=0.06)


@unit
@BOTH
def test_subtitles_that_go_on_hold_no_picture(tmp_path, in_process):
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:09,000\nhello\n")
    run_ffmpeg(*PICTURE, *SOUND, "-i", tmp_path / "a.srt", *H264, "-c:a", "aac", "-c:s", "srt", tmp_path / "a.mkv")
    assert taken(tmp_path / "a.mkv", in_process=in_process).visual_info.duration == pytest.approx(4, abs=0.05)


@unit
@BOTH
def test_a_caf_of_unknown_length_and_one_that_was_cut(tmp_path, in_process):
    run_ffmpeg(*SOUND, "-c:a", "pcm_s16be", tmp_path / "a.caf")
    at = (tmp_path / "a.caf").read_bytes().index(b"data") + 4
    whole = (tmp_path / "a.caf").read_bytes()
    (tmp_path / "piped.caf").write_bytes(whole[:at] + b"\xff" * 8 + whole[at + 8 :])
    assert tone_times(taken(tmp_path / "piped.caf", in_process=in_process).audio) == pytest.approx((2, 4), abs=0.01)
    (tmp_path / "cut.caf").write_bytes(whole[: len(whole) // 2 + 1])
    with pytest.raises(DecodeError, match=TRUNCATED):
        taken(tmp_path / "cut.caf", in_process=in_process)


@unit
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fields.mp4", ("-c:v", "libx264", "-flags", "+ildct+ilme")),
        ("ten.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv420p10le")),
        ("twelve.mkv", ("-c:v", "libx265", "-pix_fmt", "yuv420p12le", "-x265-params", "log-level=none")),
        ("prores.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuva444p10le")),
        ("full.mp4", ("-c:v", "libx264", "-pix_fmt", "yuvj420p", "-colorspace", "bt709")),
    ],
)
def test_both_ways_give_the_same_bits(tmp_path, name, options):
    moving = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=20:duration=0.5")
    run_ffmpeg(*moving, *(() if "-pix_fmt" in options else YUV), *options, tmp_path / name)
    first, second = (taken(tmp_path / name, in_process=way) for way in (True, False))
    assert first.frame_times == second.frame_times
    np.testing.assert_array_equal(first.frames, second.frames)


@unit
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheim\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavis\0\0\0\0", "AVIF"),
        (b"<!-- by hand --><svg/>", "SVG"),
        (b"<!DOCTYPE svg PUBLIC 'x'><svg/>", "SVG"),
        ('<?xml version="1.0" encoding="utf-16"?><svg/>'.encode("utf-16"), "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
        (b"8BPS\0\1" + bytes(50), "Photoshop"),
    ],
)
def test_pictures_that_are_not_read_are_named(tmp_path, content, kind):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DecodeError, match=f"{UNSUPPORTED}: picture: {kind} is not read"):
        decode(Request(image_path=str(tmp_path / "a.png")))


@unit
@BOTH
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC"),
        (b"<?xml version='1.0'?><!-- by hand --><svg/>", "SVG"),
        (b"<!DOCTYPE svg PUBLIC 'x'><svg/>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
    ],
)
def test_pictures_are_named_as_such_in_the_column_of_videos_too(tmp_path, content, kind, in_process):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DecodeError, match=f"{UNSUPPORTED}: picture: {kind} is not read"):
        taken(tmp_path / "a.mp4", in_process=in_process)


@unit
def test_a_page_with_a_drawing_in_it_is_no_drawing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"<!doctype html><html><svg/></html>")
    with pytest.raises(DecodeError, match="damaged, or no picture"):
        decode(Request(image_path=str(tmp_path / "a.jpg")))


@unit
@pytest.mark.parametrize("turn", [2, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_pictures_are_turned_as_their_tag_says_in_every_format(tmp_path, turn, suffix):
    """Red where the tag's definition puts the stored top left quarter."""
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[:32, :32] = (255, 0, 0)
    tag = Image.Exif()
    tag[0x0112] = turn
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=tag, **options)
    (picture,) = decode(Request(image_path=str(tmp_path / f"a.{suffix}"), size=16)).frames
    top, left = {2: (True, False), 3: (False, False), 5: (True, True), 6: (True, False), 7: (False, False)}.get(
        turn, (False, True)
    )
    rows, columns = slice(0, 8) if top else slice(8, 16), slice(0, 8) if left else slice(8, 16)
    assert np.abs(picture[rows, columns].mean((0, 1)) - (255, 0, 0)).max() < 40


def float_wav(path: Path, samples: np.ndarray, width: str = "f4") -> Path:
    """A mono WAV at 16 kHz of IEEE floats, made by hand."""
    data = samples.astype(f"<{width}").tobytes()
    size = int(width[1])
    form = struct.pack("<HHIIHH", 3, 1, 16000, 16000 * size, size, 8 * size)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


@unit
@BOTH
@pytest.mark.parametrize("width", ["f4", "f8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_no_sound(tmp_path, value, width, in_process):
    """FFmpeg makes constant full swings of them."""
    samples = 0.4 * np.sin(np.arange(48_000) * 0.2)
    samples[30_000:30_010] = value
    path = float_wav(tmp_path / "a.wav", samples, width)
    with pytest.raises(DecodeError, match="no numbers") as caught:
        taken(path, in_process=in_process)
    assert caught.value.cause == "not finite"
    before = taken(path, duration=1.5, in_process=in_process).audio  # all of it before them
    assert np.abs(before).max() == pytest.approx(0.4 * 32768, rel=0.01)
