"""Small real clips, made by ffmpeg for the tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipelines.ffmpeg import executable

PICTURE = "testsrc=size={w}x{h}:rate={rate}:duration={seconds}"
SOUND = "sine=frequency=440:sample_rate=44100:duration={seconds}"


def run_ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg; its complaints fail the test."""
    command = [executable(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)


def make_clip(
    path: Path,
    *,
    seconds: float = 1.0,
    size: tuple[int, int] = (64, 48),
    rate: int = 10,
    video: bool = True,
    audio: bool = True,
    options: tuple[str, ...] = (),
) -> Path:
    """A test pattern and a tone; ``options`` go before the output's name."""
    inputs: list[str] = []
    if video:
        pattern = PICTURE.format(w=size[0], h=size[1], rate=rate, seconds=seconds)
        inputs += ["-f", "lavfi", "-i", pattern]
    if audio:
        inputs += ["-f", "lavfi", "-i", SOUND.format(seconds=seconds)]
    run_ffmpeg(*inputs, "-pix_fmt", "yuv420p", *options, path)
    return path
