"""A zoo of media files whose truth is in their making: red until second 2 and lime after it, silence until second 2
and a tone after it, in every container, codec, timing, with every text and damage that ffmpeg can write."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import imageio_ffmpeg

RED_LIME = "color=red:s=64x64:r={rate}:d=2[a];color=lime:s=64x64:r={rate}:d=2[b];[a][b]concat"
HALVES = "color=red:s=64x64:r=10:d=1[a];color=lime:s=32x64:r=10:d=1[b];[a][b]overlay=x=32"
TONE = "aevalsrc='if(gte(t,2),0.5*sin(6283*t),0)':d=4:s=44100"
STEREO = "aevalsrc='if(gte(t,2),0.5*sin(6283*t),0)|{other}if(gte(t,2),0.5*sin(6283*t),0)':d=4:s=44100"
SIX = "aevalsrc='" + "|".join(["if(gte(t,2),0.3*sin(6283*t),0)"] * 6) + "':d=4:s=48000:c=5.1"


Make = Callable[[Path], None]


@dataclass(frozen=True)
class Truth:
    """What is right.

    Attributes:
        sound, picture: whether the file has them.
        lag: seconds from the first lime frame to the tone's begin; ``None`` where one of them is not there.
        tone, lime: seconds of the clip at which they begin, where there is no other to compare with.
        length: seconds of the longer stream.
        refused: it must be refused, for one of the causes that start so; empty: it must be ingested.
        red: side on which a picture of two halves is red.
    """

    sound: bool = True
    picture: bool = True
    lag: float | None = 0.0
    tone: float | None = None
    lime: float | None = None
    length: float | None = 4.0
    refused: tuple[str, ...] = ()
    red: str | None = None


@dataclass(frozen=True)
class Specimen:
    """One file: ``make`` writes it."""

    group: str
    name: str
    make: Make
    truth: Truth = Truth()


def run(*arguments: object) -> bytes:
    """What ffmpeg writes to standard output."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout


def source(
    *options: object, picture: str = RED_LIME, sound: str = TONE, rate: int = 10, late: str = "", by: float = 0
) -> Make:
    """A maker of picture and sound through ffmpeg; one of them late by so many seconds; an empty name leaves it out."""

    def make(path: Path) -> None:
        inputs: list[object] = []
        for kind, graph in (("picture", picture.format(rate=rate)), ("sound", sound)):
            if graph:
                inputs += [*(["-itsoffset", by] if late == kind else []), "-f", "lavfi", "-i", graph]
        maps = ["-map", "0", "-map", "1"] if picture and sound else []
        run(*inputs, *maps, *options, path)

    return make


def copied(*options: object, base: Make | None = None, suffix: str = ".mkv") -> Make:
    """A maker that stream-copies a plain file of H.264 and AAC."""
    first = base or source(*H264, "-c:a", "aac", "-g", "10")

    def make(path: Path) -> None:
        plain = path.with_name(f"plain-{path.stem}{suffix}")
        first(plain)
        filled = [str(option).replace("{plain}", str(plain)) for option in options]
        run(*filled, path)
        plain.unlink()

    return make


def ruined(base: Make, change: Callable[[bytes], bytes]) -> Make:
    """A maker that changes the bytes of a file."""

    def make(path: Path) -> None:
        base(path)
        path.write_bytes(change(path.read_bytes()))

    return make


YUV = ("-pix_fmt", "yuv420p")
H264 = (*YUV, "-c:v", "libx264", "-preset", "ultrafast")
MPEG2 = ("-c:v", "mpeg2video", "-c:a", "mp2")
CONTAINERS: dict[str, tuple[tuple[object, ...], int]] = {
    "h264-aac.mp4": ((*H264, "-c:a", "aac"), 10),
    "h264b-aac.mp4": ((*YUV, "-c:v", "libx264", "-bf", 3, "-c:a", "aac"), 10),
    "hevc-ac3.mp4": (
        (*YUV, "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", "-c:a", "ac3"),
        10,
    ),
    "mpeg4-mp3.mp4": (("-c:v", "mpeg4", "-c:a", "libmp3lame"), 10),
    "av1-opus.mp4": ((*YUV, "-c:v", "libsvtav1", "-preset", 12, "-svtav1-params", "lp=1", "-c:a", "libopus"), 10),
    "h264-pcm.mov": ((*H264, "-c:a", "pcm_s16le"), 10),
    "mjpeg-pcm.mov": (("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s24le"), 10),
    "h264-aac.mkv": ((*H264, "-c:a", "aac"), 10),
    "h264-vorbis.mkv": ((*H264, "-c:a", "libvorbis"), 10),
    "vp9-opus.webm": ((*YUV, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"), 10),
    "vp8-vorbis.webm": ((*YUV, "-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libvorbis"), 10),
    "ffv1-flac.mkv": ((*YUV, "-c:v", "ffv1", "-c:a", "flac"), 10),
    "mpeg2-mp2.ts": (MPEG2, 25),
    "h264-aac.ts": ((*H264, "-c:a", "aac"), 25),
    "h264-ac3.m2ts": ((*H264, "-c:a", "ac3"), 25),
    "mpeg2-mp2.mpg": (MPEG2, 25),
    "mpeg1-mp2.mpg": (("-c:v", "mpeg1video", "-c:a", "mp2"), 25),
    "mpeg2-ac3.vob": (("-c:v", "mpeg2video", "-c:a", "ac3"), 25),
    "h264-aac.flv": ((*H264, "-c:a", "aac"), 10),
    "wmv2-wma.wmv": (("-c:v", "wmv2", "-c:a", "wmav2"), 10),
    "theora-vorbis.ogv": ((*YUV, "-c:v", "libtheora", "-c:a", "libvorbis"), 10),
    "h264-aac.3gp": ((*H264, "-c:a", "aac"), 10),
    "ffv1-pcm.nut": ((*YUV, "-c:v", "ffv1", "-c:a", "pcm_s16le"), 10),
    "frag-h264-aac.mp4": ((*H264, "-c:a", "aac", "-movflags", "+frag_keyframe+empty_moov"), 10),
    "dash-h264-aac.mp4": ((*H264, "-c:a", "aac", "-movflags", "+dash+empty_moov", "-frag_duration", 500_000), 10),
}
UNTIMED: dict[str, tuple[tuple[object, ...], int]] = {  # no place for a late start
    "mpeg4-mp3.avi": (("-c:v", "mpeg4", "-c:a", "libmp3lame"), 10),
    "mjpeg-pcm.avi": (("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le"), 10),
    "h264-ac3.avi": ((*H264, "-c:a", "ac3"), 10),
    "mpeg2-pcm.mxf": (("-c:v", "mpeg2video", "-c:a", "pcm_s16le", "-ar", 48000), 25),
}
SOUNDS: dict[str, tuple[object, ...]] = {
    "f32.wav": ("-c:a", "pcm_f32le"),
    "u8.wav": ("-c:a", "pcm_u8"),
    "8k.wav": ("-ar", 8000),
    "96k.flac": ("-ar", 96000),
    "cbr.mp3": ("-write_xing", 0),
    "a.ogg": ("-c:a", "libvorbis"),
    "alac.m4a": ("-c:a", "alac"),
}
SUFFIXES = (
    "wav",
    "mp3",
    "opus",
    "m4a",
    "aac",
    "ac3",
    "eac3",
    "aiff",
    "au",
    "caf",
    "w64",
    "wma",
    "mka",
    "mp2",
    "tta",
    "wv",
)
TEXTS = (
    "Truncated cone", "Duration: 00:59:00.00 of piano", "partial file", "No such file or directory", "%03d",
    "moov atom not found", "[error] Read error", "Stream #0:0: Video: none (attached pic)", "rotation of 90.00 degrees",
)  # fmt: skip
ENDING_TOLD = ("mp4", "mov", "mkv", "webm", "avi", "flv", "wmv")  # containers that say how long they are


def specimens() -> Iterator[Specimen]:
    """All of them."""
    yield from _timings()
    yield from _sounds()
    yield from _texts()
    yield from _pictures()
    yield from _unusual()
    yield from _clocks()
    yield from _damage()


def _timings() -> Iterator[Specimen]:
    for name, (options, rate) in {**CONTAINERS, **UNTIMED}.items():
        # ffmpeg writes an empty frame after the first one of MPEG-4 in AVI
        lag = -0.1 if name == "mpeg4-mp3.avi" else 0.0
        yield Specimen("containers", name, source(*options, rate=rate), Truth(lag=lag))
    for name, (options, rate) in CONTAINERS.items():
        make = source(*options, rate=rate, late="sound", by=1.5)
        yield Specimen("late sound", f"late-{name}", make, Truth(lag=1.5, length=5.5))
        make = source(*options, rate=rate, late="picture", by=1.5)
        yield Specimen("late picture", f"behind-{name}", make, Truth(lag=-1.5, length=5.5))
    for suffix in ("mp4", "mkv", "mov", "ts"):
        cut = copied("-ss", 1, "-i", "{plain}", "-c", "copy")
        yield Specimen("cuts and gaps", f"cut.{suffix}", cut, Truth(length=3.0))
    gap = ("-af", "aselect='not(between(t,0.5,1.5))'")
    for name in ("ffv1-flac.mkv", "h264-vorbis.mkv", "h264-aac.mp4", "h264-aac.ts", "vp9-opus.webm"):
        options, rate = CONTAINERS[name]
        yield Specimen("cuts and gaps", f"gap-{name}", source(*gap, *options, rate=rate))


def _sounds() -> Iterator[Specimen]:
    alone = Truth(picture=False, lag=None, tone=2.0)
    for name, options in {**SOUNDS, **{f"a.{suffix}": () for suffix in SUFFIXES}}.items():
        yield Specimen("sound alone", f"sound-{name}", source(*options, picture=""), alone)
    yield Specimen("sound alone", "pipe.wav", _piped("wav"), alone)
    yield Specimen("sound alone", "pipe.au", _piped("au"), alone)
    for other, name in (("", "same"), ("-", "opposite"), ("0*", "left")):
        yield Specimen("channels", f"{name}.wav", source(picture="", sound=STEREO.format(other=other)), alone)
    for suffix in ("wav", "flac", "ac3", "m4a", "opus"):
        yield Specimen("channels", f"six.{suffix}", source(picture="", sound=SIX), alone)


def _piped(form: str) -> Make:
    return lambda path: _write(path, run("-f", "lavfi", "-i", TONE, "-f", form, "-"))


def _texts() -> Iterator[Specimen]:
    for number, text in enumerate(TEXTS):
        for suffix in ("mp4", "mkv"):
            tags = [part for tag in ("title", "comment", "artist") for part in ("-metadata", f"{tag}={text}")]
            streams = ["-metadata:s:v", f"handler_name={text}", "-metadata:s:a", f"title={text}"]
            make = copied("-i", "{plain}", "-c", "copy", *tags, *streams)
            yield Specimen("texts", f"text {number}.{suffix}", make)
    for number, name in enumerate(("truncated clip", "%03d", "Read error; partial file", "a'b\"c`$x", "-ss 9", "näme")):
        yield Specimen("texts", f"{name} {number}.mp4", _named)


def _named(path: Path) -> None:
    plain = path.with_name("plain-named.mp4")
    source(*H264, "-c:a", "aac")(plain)
    plain.rename(path)


def _pictures() -> Iterator[Specimen]:
    silent = Truth(sound=False, lag=None, lime=2.0)
    for name, options in {
        "a.ivf": (*YUV, "-c:v", "libvpx-vp9"),
        "a.gif": (),
        "a.y4m": YUV,
        "ten.mkv": ("-pix_fmt", "yuv420p10le", "-c:v", "libx264"),
        "444.mkv": ("-pix_fmt", "yuv444p", "-c:v", "libx264"),
        "rgb.mkv": ("-c:v", "libx264rgb"),
        "full.mp4": ("-pix_fmt", "yuvj420p", "-c:v", "libx264"),
        "alpha.mov": ("-c:v", "qtrle", "-pix_fmt", "argb"),
        "fields.mp4": (*YUV, "-c:v", "libx264", "-flags", "+ildct+ilme"),
        "open.mp4": (*YUV, "-c:v", "libx264", "-x264-params", "open-gop=1:keyint=10"),
        "odd.webm": (*YUV, "-vf", "scale=65:49", "-c:v", "libvpx-vp9"),
        "wide.mp4": (*H264, "-vf", "setsar=2/1"),
        "rate.mp4": (*H264, "-vf", "select='not(mod(n,3))'", "-fps_mode", "vfr"),
    }.items():
        lime = 2.1 if name == "rate.mp4" else 2.0  # each third frame
        yield Specimen("pictures", f"picture-{name}", source(*options, sound=""), replace(silent, lime=lime))
    still = Truth(sound=False, lag=None, length=None)
    for turn, side in ((0, "left"), (90, "bottom"), (180, "right"), (270, "top")):
        for suffix in ("mp4", "mov"):
            base = source(*H264, picture=HALVES, sound="")
            make = copied("-display_rotation", turn, "-i", "{plain}", "-c", "copy", base=base, suffix=".mp4")
            yield Specimen("turned", f"turned-{turn}.{suffix}", make, replace(still, red=side))


def _unusual() -> Iterator[Specimen]:
    held = ("-vf", "select='eq(n,0)+eq(n,20)'", "-fps_mode", "vfr")
    for suffix in ("mp4", "mkv", "mov"):
        yield Specimen("held frames", f"held.{suffix}", source(*held, *H264, "-c:a", "aac"))
    for suffix in ("mp4", "mkv", "ts"):
        yield Specimen(
            "uneven ends", f"short-picture.{suffix}", source(*H264, "-c:a", "aac", "-vf", "trim=duration=2.5")
        )
    live = ("-f", "matroska", "-live", 1)
    for name, codecs in (
        ("live.mkv", (*H264, "-c:a", "aac")),
        ("live.webm", (*YUV, "-c:v", "libvpx", "-c:a", "libopus")),
    ):
        yield Specimen("live", name, _live(*codecs, *live))
    yield Specimen("live", "live.flv", _live(*H264, "-c:a", "aac", "-f", "flv"))
    yield Specimen("live", "live.ts", _live(*H264, "-c:a", "aac", "-f", "mpegts"))
    attached = ("-map", 0, "-map", "1:v", "-c", "copy", "-disposition:v:1", "attached_pic")
    yield Specimen("cover art", "cover.mp4", _covered("-i", "{plain}", "-i", "{cover}", *attached, suffix=".mp4"))
    first = ("-i", "{cover}", "-display_hflip", "-i", "{plain}", "-map", "0:v", "-map", 1)
    shown = ("-c", "copy", "-disposition:v:0", "attached_pic")
    yield Specimen("cover art", "cover-first.mp4", _covered(*first, *shown, suffix=".mp4"))
    alone = Truth(picture=False, lag=None, tone=2.0)
    for suffix in ("mp3", "m4a", "flac"):
        art = (
            "-i",
            "{plain}",
            "-i",
            "{cover}",
            "-map",
            0,
            "-map",
            "1:v",
            "-c",
            "copy",
            "-disposition:v",
            "attached_pic",
        )
        yield Specimen(
            "cover art", f"cover.{suffix}", _covered(*art, base=source(picture=""), suffix=f".{suffix}"), alone
        )


def _clocks() -> Iterator[Specimen]:
    """Clocks that begin elsewhere, start anew, or are none; and which tracks are meant."""
    for name in ("h264-aac.mkv", "ffv1-pcm.nut", "h264-aac.ts", "h264-aac.flv", "h264-aac.mp4"):
        options, rate = CONTAINERS[name]
        yield Specimen("other clocks", f"ten-{name}", source(*options, "-output_ts_offset", 10, rate=rate))
    for name in ("h264-aac.ts", "mpeg2-mp2.mpg"):
        options, rate = CONTAINERS[name]
        make = source(*options, rate=rate, late="sound", by=12, picture=RED_LIME.replace("d=2", "d=8"))
        yield Specimen("other clocks", f"twelve-{name}", make, Truth(lag=6.0, length=16.0))
    reordered = source(*YUV, "-c:v", "libx264", "-bf", 3, "-c:a", "pcm_s16le")
    yield Specimen("other clocks", "reordered.avi", reordered)
    twice = ruined(source(*H264, "-c:a", "aac", rate=25), lambda data: data * 2)
    yield Specimen("other clocks", "twice.ts", twice, Truth(length=8.0))
    still = "color=blue:s=64x64:r=10:d=4"
    flags = ("-disposition:v:0", 0, "-disposition:v:1", "default")
    for suffix in ("mp4", "mkv"):
        inputs = ("-f", "lavfi", "-i", still, "-i", "{plain}", "-map", 0, "-map", 1)
        make = copied(*inputs, *H264, "-c:a", "copy", *flags)
        yield Specimen("other clocks", f"default-{suffix}.{suffix}", make)


def _covered(*options: object, base: Make | None = None, suffix: str) -> Make:
    """As `copied`, with a blue picture as `{cover}`."""

    def make(path: Path) -> None:
        cover = path.with_name("cover.png")
        run("-f", "lavfi", "-i", "color=blue:s=64x64:d=1", "-frames:v", 1, cover)
        copied(*(str(option).replace("{cover}", str(cover)) for option in options), base=base, suffix=suffix)(path)
        cover.unlink()

    return make


def _live(*options: object) -> Make:
    inputs = ("-f", "lavfi", "-i", RED_LIME.format(rate=10), "-f", "lavfi", "-i", TONE)
    return lambda path: _write(path, run(*inputs, *options, "-"))


def _damage() -> Iterator[Specimen]:
    cut_short = Truth(refused=("truncated", "undecodable"))
    begun = {"mp4": ("-movflags", "+faststart"), "mov": ("-movflags", "+faststart")}
    for suffix in ENDING_TOLD:
        codecs = {"webm": (*YUV, "-c:v", "libvpx", "-c:a", "libopus")}.get(suffix, (*H264, "-c:a", "aac"))
        base = source(*codecs, *begun.get(suffix, ()))
        for share in (0.5, 0.8):
            make = ruined(base, partial(_first, share))
            yield Specimen("cut short", f"cut-{share}.{suffix}", make, cut_short)
    for suffix in ("wav", "aiff", "w64", "caf", "ogg", "opus"):
        make = ruined(source(picture=""), partial(_first, 0.5))
        yield Specimen("cut short", f"cut-half.{suffix}", make, cut_short)
    mp4 = source(*H264, "-c:a", "aac")
    yield Specimen("cut short", "without-its-end.mp4", ruined(mp4, lambda data: data[:-3000]), cut_short)
    piece = ruined(source(*MPEG2, rate=25), lambda data: data[: len(data) // 376 * 188 + 100])
    yield Specimen("cut short", "within-a-piece.ts", piece, cut_short)
    for name in ("vp9-opus.webm", "theora-vorbis.ogv", "wmv2-wma.wmv", "h264-aac.flv"):
        busy = source(*CONTAINERS[name][0], picture="testsrc2=s=128x96:r=25:d=4", sound="anoisesrc=d=4:a=0.4")
        yield Specimen("broken inside", f"broken-{name}", ruined(busy, _zeroed), cut_short)
    unknown = Truth(refused=("unsupported",))
    yield Specimen("refused", "codec.mp4", ruined(mp4, lambda data: data.replace(b"avc1", b"zzz1")), unknown)
    for name, content in {
        "empty.mp4": b"",
        "text.mp4": b"no video at all\n" * 99,
        "list.m3u8": b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "page.webm": b"<!doctype html><title>404</title>" * 99,
        "noise.mkv": bytes(range(256)) * 99,
    }.items():
        yield Specimen("refused", name, partial(_write, content=content), cut_short)


def _first(share: float, data: bytes) -> bytes:
    return data[: int(len(data) * share)]


def _zeroed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(3000) + data[middle + 3000 :]


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
