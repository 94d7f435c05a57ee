"""Running ffmpeg, and what its messages say about a file (the wheel that brings ffmpeg has no ffprobe)."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
from dataclasses import dataclass
from functools import cache

import ffmpeg
import imageio_ffmpeg

from pipelines.causes import TIMED_OUT, TOO_LARGE, DecodeError

QUIET = ("-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info", "-threads", "1")
KILLED = (-signal.SIGKILL, -signal.SIGTERM)  # by the kernel out of memory, or by an operator


@dataclass(frozen=True)
class Stream:
    """One audio or video stream: ``rate`` in Hz or frames per second, ``rotation`` in degrees."""

    kind: str
    codec: str
    rate: float | None = None
    width: int = 0
    height: int = 0
    rotation: int = 0


@dataclass(frozen=True)
class Probe:
    """A container: its format names, seconds it claims to last and to begin at, its streams in order.

    Attached pictures (cover art) are left out: they are no picture of the clip.
    """

    formats: tuple[str, ...]
    duration: float | None
    start: float
    streams: tuple[Stream, ...]

    def first(self, kind: str) -> Stream | None:
        """The first ``audio`` or ``video`` stream, which is the one ingested."""
        return next((stream for stream in self.streams if stream.kind == kind), None)


@cache
def executable() -> str:
    """Path of the ffmpeg that the wheel ships."""
    return imageio_ffmpeg.get_ffmpeg_exe()


def source(path: str, **options: object):
    """An ffmpeg-python input of a local file; nothing it refers to is followed to the network."""
    return ffmpeg.input(f"file:{path}", protocol_whitelist="file", **options)


def run(output, timeout: float) -> tuple[bytes, str, int]:
    """Run a graph of ffmpeg-python to the end: stdout, stderr, exit status.

    One that others killed is run once more: that says nothing about the file.

    Raises:
        DecodeError: it took longer than ``timeout`` seconds (of time, or of processor), or was killed twice.
    """
    command = output.global_args(*QUIET).compile(cmd=executable())
    for _ in range(2):
        result = _run(command, timeout)
        if result[2] not in KILLED:
            return result
    raise DecodeError(TOO_LARGE, "ffmpeg was killed, as it happens out of memory")


def _run(command: list[str], timeout: float) -> tuple[bytes, str, int]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        limit = int(timeout) + 1  # ends it even if we are killed and nobody waits any more
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (limit, limit))
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise DecodeError(TIMED_OUT, f"ffmpeg did not finish in {timeout:g} s") from None
        finally:
            if process.poll() is None:
                process.kill()
    return out, err.decode(errors="replace"), process.returncode


_INPUT = re.compile(r"Input #0, (.+), from '")
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)")
_START = re.compile(r"Duration: [^\n]*start: (-?\d+\.\d+)")
_STREAM = re.compile(r"\[info\] +Stream #0:\d+[^:]*: (Audio|Video): (\w+)(.*)")
_ROTATION = re.compile(r"rotation of (-?\d+\.\d+) degrees")


def parse_probe(stderr: str) -> Probe | None:
    """What ``ffmpeg -i`` printed about its input, or ``None`` if it could not open it."""
    head = re.split(r"\[info\] (?:Output #0|Stream mapping)", stderr)[0]
    opened = _INPUT.search(head)
    if opened is None:
        return None
    duration = _DURATION.search(head)
    seconds = None
    if duration and "Estimating duration from bitrate" not in head:
        seconds = int(duration[1]) * 3600 + int(duration[2]) * 60 + float(duration[3])
    start = _START.search(head)
    streams = tuple(stream for block in _stream_blocks(head) if (stream := _stream(block)))
    return Probe(tuple(opened[1].split(",")), seconds, float(start[1]) if start else 0.0, streams)


def _stream_blocks(head: str) -> list[str]:
    return re.split(r"(?=\[info\] +Stream #0:)", head)[1:]


def _stream(block: str) -> Stream | None:
    found = _STREAM.match(block)
    if found is None or "(attached pic)" in block:
        return None
    if found[1] == "Audio":
        rate = re.search(r"(\d+) Hz", found[3])
        return Stream("audio", found[2], float(rate[1]) if rate else None)
    rate = re.search(r"([\d.]+)(k?) (?:fps|tbr)", found[3])
    fps = float(rate[1]) * (1000 if rate[2] else 1) if rate else None
    size = re.search(r", (\d+)x(\d+)", found[3])
    turn = _ROTATION.search(block)
    width, height = (int(size[1]), int(size[2])) if size else (0, 0)
    return Stream("video", found[2], fps, width, height, round(float(turn[1])) if turn else 0)
