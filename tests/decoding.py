"""Decoding for tests, by ffmpeg alone: independent of how the project decodes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np


def _ffmpeg(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-threads", "1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60)


def decode_frames(path: Path, size: int) -> np.ndarray:
    """uint8 [T, size, size, 3]."""
    done = _ffmpeg("-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, size, size, 3)


def decode_sound(path: Path) -> np.ndarray:
    """float [n], 16 kHz mono."""
    done = _ffmpeg("-v", "error", "-i", path, "-ac", "1", "-ar", "16000", "-f", "s16le", "-")
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, "<i2") / 32768


def describe_file(path: Path) -> tuple[float, str]:
    """Duration in seconds, and what ffmpeg says about the streams."""
    text = _ffmpeg("-i", path).stderr.decode()
    match = re.search(r"Duration: (\d+):(\d+):([\d.]+)", text)
    assert match, text
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]), text
