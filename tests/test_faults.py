"""Kinds of real files that once misled ingestion; what is right comes from how each was made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.causes import NOT_IN_CLIP, TRUNCATED, UNSUPPORTED, DecodeError
from pipelines.decode import Decoded, Request, decode
from pipelines.ffmpeg import executable
from tests.fixtures.clock import LATE_TONE, RED_LIME, YUV, base_clip, colours, tone_times
from tests.fixtures.media import run_ffmpeg

unit, integration = pytest.mark.unit, pytest.mark.integration
BOTH = pytest.mark.parametrize("in_process", [True, False], ids=["pyav", "ffmpeg"])
TONE = ("-f", "lavfi", "-i", "sine=1000:d=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def base(folder) -> Path:
    return base_clip(folder)


@pytest.fixture(scope="module")
def late(folder) -> Path:
    """Sound from second 2 to 4 of a picture of 4 s."""
    maps = ("-map", "0", "-map", "1")
    run_ffmpeg("-f", "lavfi", "-i", RED_LIME, "-itsoffset", "2", *TONE, *maps, *YUV, folder / "late.mp4")
    return folder / "late.mp4"


def taken(path: Path, **more: object) -> Decoded:
    return decode(Request(path=str(path), size=16, **more))  # type: ignore[arg-type]


def changes(clip: Decoded) -> float:
    """Second of the clip at which the first lime frame appears."""
    return clip.frame_times[colours(clip.frames).index("lime")]


@BOTH
class TestClock:
    @unit
    def test_sound_that_starts_late(self, late, in_process):
        clip = taken(late, frames=40, in_process=in_process)
        assert tone_times(clip.audio) == pytest.approx((2, 4), abs=0.03)
        assert changes(clip) == pytest.approx(2, abs=0.01)
        assert clip.offset == pytest.approx(2, abs=0.03)

    @unit
    def test_a_piece_before_the_sound_begins(self, late, in_process):
        clip = taken(late, start=0, duration=1, in_process=in_process)
        assert (clip.audio, clip.audio_info.cause) == (None, NOT_IN_CLIP)
        assert clip.audio_info.begin == pytest.approx(2, abs=0.03)
        assert set(colours(clip.frames)) == {"red"}

    @unit
    def test_a_piece_in_which_it_begins(self, late, in_process):
        clip = taken(late, start=1.5, duration=2, frames=20, in_process=in_process)
        assert tone_times(clip.audio) == pytest.approx((0.5, 2), abs=0.03)
        assert changes(clip) == pytest.approx(0.5, abs=0.01)

    @integration
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("frag.mp4", ("-c", "copy", "-movflags", "+frag_keyframe+empty_moov")),
            ("a.ts", ("-c:v", "libx264", "-c:a", "mp2")),
            ("a.mkv", ("-c", "copy")),
            ("a.mpg", ("-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2")),
        ],
    )
    def test_containers_keep_sound_and_picture_together(self, base, folder, name, options, in_process):
        run_ffmpeg("-i", base, *options, folder / name)
        clip = taken(folder / name, frames=100, in_process=in_process)
        assert tone_times(clip.audio)[0] == pytest.approx(changes(clip), abs=0.03)

    @unit
    def test_a_gap_is_silence(self, folder, in_process):
        gap = ("-af", "aselect='not(between(t,1,2.5))'", "-c:a", "pcm_s16le")
        run_ffmpeg("-f", "lavfi", "-i", "sine=1000:d=4", *gap, folder / "gap.mkv")
        sound = np.abs(taken(folder / "gap.mkv", in_process=in_process).audio.astype(float))
        loud = [sound[int(16000 * a) : int(16000 * b)].max() > 1000 for a, b in ((0, 0.95), (1.1, 2.4), (2.6, 3.9))]
        assert loud == [True, False, True]
        assert len(sound) == pytest.approx(64000, abs=800)

    @unit
    def test_transport_streams_count_from_the_first_stream(self, base, folder, in_process):
        maps = ("-map", "0:a", "-map", "1:v", "-map", "1:v")
        run_ffmpeg("-f", "lavfi", "-i", "sine=1000:d=4", "-itsoffset", "2", "-i", base, *maps, folder / "two.ts")
        clip = taken(folder / "two.ts", frames=60, in_process=in_process)
        assert clip.frame_times[0] == pytest.approx(2, abs=0.03)
        assert changes(clip) == pytest.approx(4, abs=0.03)
        assert clip.offset == pytest.approx(-2, abs=0.03)

    @unit
    def test_joined_program_streams_follow_one_another(self, folder, in_process):
        one = base_clip(folder, "one.mpg", "-r", "25", "-c:v", "mpeg2video", "-c:a", "mp2")
        (folder / "joined.mpg").write_bytes(one.read_bytes() * 2)
        clip = taken(folder / "joined.mpg", frames=80, in_process=in_process)
        seen = colours(clip.frames)
        assert [seen[i] for i in (10, 30, 50, 70)] == ["red", "lime", "red", "lime"]
        sound = np.abs(clip.audio.astype(float))
        assert [sound[int(16000 * t) :][:8000].max() > 1000 for t in (0.5, 2.6, 4.8, 6.8)] == [False, True, False, True]

    @unit
    def test_a_held_last_frame_stays_to_the_end(self, folder, in_process):
        held = ("-vf", "select='eq(n,0)+eq(n,20)'", "-fps_mode", "vfr", *YUV)
        run_ffmpeg("-f", "lavfi", "-i", RED_LIME, "-f", "lavfi", "-i", "sine=1000:d=20", *held, folder / "held.mp4")
        whole = taken(folder / "held.mp4", frames=20, in_process=in_process)
        assert colours(whole.frames) == ["red"] * 2 + ["lime"] * 18
        piece = taken(folder / "held.mp4", start=10, duration=5, in_process=in_process)
        assert set(colours(piece.frames)) == {"lime"}
        assert len(piece.audio) == 80000

    @unit
    def test_a_piece_in_which_one_stream_is_over(self, folder, in_process):
        run_ffmpeg("-f", "lavfi", "-i", RED_LIME, *TONE, *YUV, folder / "short.mp4")
        piece = taken(folder / "short.mp4", start=3, duration=1, in_process=in_process)
        assert set(colours(piece.frames)) == {"lime"}
        assert piece.audio_info.cause == NOT_IN_CLIP

    @unit
    def test_pieces_of_program_streams(self, folder, in_process):
        codecs = ("-r", "25", "-c:v", "mpeg2video", "-c:a", "mp2")
        base_clip(folder, "p.mpg", *codecs)
        piece = taken(folder / "p.mpg", start=1.5, duration=1, frames=20, in_process=in_process)
        assert tone_times(piece.audio) == pytest.approx((0.5, 1), abs=0.03)
        assert changes(piece) == pytest.approx(0.5, abs=0.06)


TEXTS = ("Truncated cone", "Duration: 00:59:00.00 of piano", "partial file; Packet corrupt\n[error] Read error")


@unit
@BOTH
@pytest.mark.parametrize("text", TEXTS)
def test_words_in_a_file_decide_nothing(base, folder, text, in_process):
    plain = taken(base, in_process=in_process)
    named = folder / f"truncated clips {TEXTS.index(text)}" / "No such file or directory %03d.mp4"
    named.parent.mkdir(exist_ok=True)
    tags = [option for name in ("title", "comment", "artist") for option in ("-metadata", f"{name}={text}")]
    tags += ["-metadata:s:v", f"handler_name={text}", "-metadata:s:a", f"title={text}"]
    run_ffmpeg("-i", base, "-c", "copy", *tags, f"file:{named}")
    clip = taken(named, in_process=in_process)
    np.testing.assert_array_equal(clip.audio, plain.audio)
    np.testing.assert_array_equal(clip.frames, plain.frames)


@unit
@BOTH
def test_an_attached_picture_is_not_the_video(base, folder, in_process):
    Image.new("RGB", (64, 64), (0, 0, 255)).save(folder / "cover.png")
    maps = ("-map", "1:v", "-map", "0:v", "-map", "0:a", "-c:v:0", "mjpeg", "-c:v:1", "copy", "-c:a", "copy")
    mirrored = ("-display_hflip", "-i", base, "-i", folder / "cover.png")
    run_ffmpeg(*mirrored, *maps, "-disposition:v:0", "attached_pic", folder / "cover.mp4")
    clip = taken(folder / "cover.mp4", in_process=in_process)
    assert set(colours(clip.frames)) == {"red", "lime"}


@unit
@BOTH
def test_a_picture_that_the_container_crops(folder, in_process):
    """White with black bars of 16 pixels above and below, which the clap box takes away."""
    bars = "color=white:s=64x32:r=10:d=1,pad=64:64:0:16:black"
    run_ffmpeg("-f", "lavfi", "-i", bars, *YUV, folder / "bars.mp4")
    data = (folder / "bars.mp4").read_bytes()
    values = [64, 1, 32, 1, 0, 1, 0, 1]
    clap = (40).to_bytes(4, "big") + b"clap" + b"".join(v.to_bytes(4, "big") for v in values)
    (folder / "clap.mp4").write_bytes(_with_box(data, clap))
    bare, cropped = (taken(folder / f"{n}.mp4", frames=1, in_process=in_process).frames[0] for n in ("bars", "clap"))
    assert bare[0].max() < 30
    assert cropped.min() > 225


def _with_box(data: bytes, box: bytes) -> bytes:
    """An mp4 whose avc1 entry has one more box at its end; its mdat must lie before its moov."""
    assert data.index(b"mdat") < data.index(b"moov")
    entry = data.index(b"avc1", data.index(b"stsd")) - 4
    end = entry + int.from_bytes(data[entry : entry + 4], "big")
    changed = bytearray(data[:end] + box + data[end:])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = data.index(name, data.index(b"stsd") if name == b"avc1" else data.index(b"moov")) - 4
        changed[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + len(box)).to_bytes(4, "big")
    return bytes(changed)


@unit
@BOTH
def test_sound_written_to_a_pipe_has_no_length(folder, in_process):
    command = [executable(), "-v", "error", *TONE, "-f", "wav", "-"]
    (folder / "pipe.wav").write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(taken(folder / "pipe.wav", in_process=in_process).audio) == 32000
    (folder / "cut.wav").write_bytes((folder / "pipe.wav").read_bytes()[:-30_000])  # nobody can tell
    assert len(taken(folder / "cut.wav", in_process=in_process).audio) == pytest.approx(
        (88200 - 15000) / 44100 * 16000, abs=2
    )


@unit
@BOTH
def test_a_pairs_sound_file_may_have_a_longer_picture(folder, in_process):
    run_ffmpeg("-f", "lavfi", "-i", RED_LIME, *TONE, *YUV, folder / "pair.mp4")
    clip = decode(Request(audio_path=str(folder / "pair.mp4"), in_process=in_process))
    assert tone_times(clip.audio) == pytest.approx((0, 2), abs=0.03)
    assert clip.frames is None


@unit
@BOTH
@pytest.mark.parametrize("channel", ["mean", "first", "loudest"])
def test_channels(folder, channel, in_process):
    opposite = "aevalsrc='0.5*sin(6283*t)|-0.5*sin(6283*t)':d=1:s=16000"
    unequal = "aevalsrc='0.1*sin(6283*t)|0.6*sin(6283*t)':d=1:s=16000"
    run_ffmpeg("-f", "lavfi", "-i", opposite, folder / "opposite.wav")
    run_ffmpeg("-f", "lavfi", "-i", unequal, folder / "unequal.wav")
    clip = taken(folder / "opposite.wav", channel=channel, in_process=in_process)
    assert np.abs(clip.audio).max() / 32768 == pytest.approx(0.5, abs=0.01)
    assert clip.audio_info.channel == ("loudest (mean cancelled)" if channel == "mean" else channel)
    clip = taken(folder / "unequal.wav", channel=channel, in_process=in_process)
    height = {"mean": 0.35, "first": 0.1, "loudest": 0.6}[channel]
    assert np.abs(clip.audio).max() / 32768 == pytest.approx(height, abs=0.01)
    assert clip.audio_info.channel == channel


@unit
def test_deep_pictures_keep_their_brightness(tmp_path):
    deep = np.full((40, 40), 32768, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(tmp_path / "share.tif")
    Image.fromarray(np.full((40, 40), 128, np.float32)).save(tmp_path / "bytes.tif")
    for name in ("deep.png", "deep.tif", "share.tif", "bytes.tif"):
        frames = decode(Request(image_path=str(tmp_path / name), size=16)).frames
        assert set(np.unique(frames)) <= {127, 128}, name
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(DecodeError, match="no numbers"):
        decode(Request(image_path=str(tmp_path / "nan.tif")))


@unit
def test_pictures_that_are_not_read_are_told_as_pictures(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    (tmp_path / "a.svg").write_bytes(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9"/>')
    for name, kind in (("a.heic", "HEIC"), ("a.svg", "SVG")):
        with pytest.raises(DecodeError, match=kind) as caught:
            decode(Request(image_path=str(tmp_path / name)))
        assert (caught.value.cause, "PNG" in caught.value.remedy) == (UNSUPPORTED, True)
    with pytest.raises(DecodeError) as caught:
        taken(tmp_path / "a.svg")
    assert "mp4" not in caught.value.remedy.lower()


@unit
def test_an_avif_picture_is_read(tmp_path):
    Image.new("RGB", (40, 40), (250, 10, 20)).save(tmp_path / "a.avif")
    frames = decode(Request(image_path=str(tmp_path / "a.avif"), size=16)).frames
    np.testing.assert_allclose(frames.mean((0, 1, 2)), (250, 10, 20), atol=4)


@unit
def test_a_number_pattern_in_a_pictures_name_is_a_name(tmp_path):
    (tmp_path / "%d").mkdir()
    (tmp_path / "1").mkdir()
    for name, colour in (("%d/p%03d.png", "red"), ("%d/p001.png", "blue"), ("1/p001.png", "lime")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / name)
    path = str(tmp_path / "%d" / "p%03d.png")
    assert colours(decode(Request(image_path=path)).frames) == ["red"]
    for in_process in (True, False):
        assert set(colours(taken(Path(path), in_process=in_process).frames)) == {"red"}


@unit
@BOTH
@pytest.mark.parametrize("pixels", ["square", "stored"])
def test_pixels_that_are_not_square(folder, pixels, in_process):
    """A disc, squeezed to half its width and marked as such, is round again; or is kept as stored."""
    disc = "color=black:s=128x64:r=5:d=0.6,geq=lum='255*lt(hypot(X-64,Y-32),24)':cb=128:cr=128"
    run_ffmpeg("-f", "lavfi", "-i", disc, "-vf", "scale=64:64,setsar=2/1", *YUV, folder / "squeezed.mp4")
    frame = decode(
        Request(path=str(folder / "squeezed.mp4"), size=64, square_pixels=pixels == "square", in_process=in_process)
    ).frames[0]
    bright = frame[..., 0] > 127
    width, height = bright.any(0).sum(), bright.any(1).sum()
    assert height == pytest.approx(48, abs=2)
    assert width == pytest.approx(48 if pixels == "square" else 24, abs=2)


@unit
@pytest.mark.parametrize("size", ["65x49", "64x49", "65x48"])
def test_odd_sizes_are_the_same_whichever_way(folder, size):
    path = folder / f"{size}.mkv"
    run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:r=10:d=0.5", *YUV, "-c:v", "libvpx-vp9", path)
    one, other = (taken(path, in_process=way).frames for way in (True, False))
    np.testing.assert_array_equal(one, other)


@unit
@BOTH
def test_approximate_frames_of_a_piece_are_near_it(folder, in_process):
    coded = ("-g", "10", "-keyint_min", "10", "-sc_threshold", "0", *YUV)  # a key frame every second
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64:r=10:d=20", *coded, folder / "keys.mp4")
    clip = taken(folder / "keys.mp4", start=11, key_frames=True, in_process=in_process)
    assert np.abs(np.array(clip.frame_times) - (np.arange(10) + 0.5) * 0.9).max() < 0.6


@unit
@BOTH
def test_a_file_that_ends_where_no_piece_begins(base, in_process):
    with pytest.raises(DecodeError) as caught:
        taken(base, start=9, duration=1, in_process=in_process)
    assert caught.value.cause == TRUNCATED


@unit
def test_late_tone_is_what_it_says():
    """The truth of the tests above: the source itself, as samples."""
    command = [executable(), "-v", "error", "-f", "lavfi", "-i", LATE_TONE, "-ar", "16000", "-f", "s16le", "-"]
    samples = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.int16)
    assert tone_times(samples) == pytest.approx((2, 4), abs=0.001)


@unit
def test_hundreds_of_frames_by_the_program(folder):
    """ffmpeg bounds how deep an expression may be."""
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=32x32:r=100:d=4", "-c:v", "mpeg4", folder / "many.mkv")
    clip = taken(folder / "many.mkv", frames=400, in_process=False)
    assert len(set(clip.frame_times)) > 250


@unit
@BOTH
def test_a_packet_cut_short_is_told_even_where_a_parser_forgets_its_mark(folder, in_process):
    """Sound in AVI, of which the last packet lacks its end and the header promises no more than 0.2 s beyond."""
    base_clip(folder, "whole.avi", "-c:v", "mpeg4", "-c:a", "libmp3lame")
    data = (folder / "whole.avi").read_bytes()
    last = data.rindex(b"01wb", 0, data.rindex(b"idx1"))
    (folder / "part.avi").write_bytes(data[: last + 60])
    with pytest.raises(DecodeError) as caught:
        taken(folder / "part.avi", in_process=in_process)
    assert caught.value.cause == TRUNCATED
