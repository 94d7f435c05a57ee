"""Running ffmpeg, the program: files by descriptor, results as streams of packets, complaints by their own words."""

from __future__ import annotations

import io
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import av
import ffmpeg
import imageio_ffmpeg

from pipelines.causes import TIMED_OUT, TOO_LARGE, DecodeError

# Levels up to warning: what a file's maker wrote (titles, comments, chapters) is printed at level info.
QUIET = ("-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+warning")
KILLED = (-signal.SIGKILL, -signal.SIGTERM)  # by the kernel out of memory, or by an operator
_LINE = re.compile(r"(?:\[[^\]]* @ 0x[0-9a-f]+\] )*\[(warning|error|fatal)\] (.*)")


@cache
def executable() -> str:
    """Path of the ffmpeg that the wheel ships."""
    return imageio_ffmpeg.get_ffmpeg_exe()


def source(**options: object) -> Any:
    """An ffmpeg-python input of the file that ``run`` opens; nothing that it refers to can be opened."""
    return ffmpeg.input("fd:", protocol_whitelist="fd", threads=1, **options)


def to_pipe(media: Any, stream: int, **options: object) -> Any:
    """The graph that writes one stream of an input to standard output; one thread encodes."""
    return media.output("pipe:", map=f"0:{stream}", threads=1, **options)


def run(output: Any, path: str, timeout: float) -> tuple[bytes, list[str], int]:
    """Run a graph of ffmpeg-python on a file to the end: stdout, messages (errors first), exit status.

    One that others killed is run once more: that says nothing about the file.

    Raises:
        DecodeError: it took longer than ``timeout`` seconds (of time, or of processor), or was killed twice.
    """
    command = output.global_args(*QUIET).compile(cmd=executable())
    for _ in range(2):
        result = _run(command, path, timeout)
        if result[2] not in KILLED:
            return result
    raise DecodeError(TOO_LARGE, "ffmpeg was killed, as it happens out of memory")


def _run(command: list[str], path: str, timeout: float) -> tuple[bytes, list[str], int]:
    pipe = subprocess.PIPE
    with open(path, "rb") as file, subprocess.Popen(command, stdin=file, stdout=pipe, stderr=pipe) as process:
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
    return out, messages(err.decode(errors="replace")), process.returncode


def messages(stderr: str) -> list[str]:
    """The words of its errors and then of its warnings, without the names of who says so."""
    found = [match.groups() for line in stderr.splitlines() if (match := _LINE.match(line))]
    return [text for level, text in found if level != "warning"] + [text for level, text in found if level == "warning"]


def packets(out: bytes) -> Iterator[tuple[Any, Any]]:
    """Stream and packet of each packet of what ffmpeg wrote as NUT."""
    try:
        file = av.open(io.BytesIO(out), "r", format="nut", metadata_errors="ignore")
    except av.InvalidDataError:  # a header alone: nothing was selected
        return
    with file:
        for packet in file.demux():
            if packet.size:
                yield packet.stream, packet
