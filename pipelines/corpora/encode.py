"""Frames and a sound to a real H.264 + AAC mp4, by one ffmpeg process."""

from __future__ import annotations

import subprocess
import tempfile
import wave
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from shards.atomic import replacing

TIMEOUT_SECONDS = 60.0
AUDIO_RATE = 16_000  # Hz, of every encoded clip


def encode_clip(
    out: str | Path, frames: np.ndarray, fps: Fraction | int, sound: str | Path | np.ndarray, size: int
) -> None:
    """Encode frames and a sound as an mp4 file, which appears whole or not at all.

    The bytes depend on the arguments and the ffmpeg version alone (no time stamps).

    Args:
        out: the mp4 file.
        frames: uint8 [T, H, W, 3] (RGB) or [T, H, W] (grey).
        fps: frames per second.
        sound: a sound file, or samples in [-1, 1], float [n] at 16 kHz.
        size: width and height of the encoded picture in pixels (even); frames are scaled to it.

    Raises:
        RuntimeError: ffmpeg failed or took over a minute; its last words are in the message.
    """
    if isinstance(sound, np.ndarray):
        with tempfile.TemporaryDirectory(prefix="avmend-") as folder:
            path = Path(folder) / "sound.wav"
            write_wav(path, sound)
            return encode_clip(out, frames, fps, path, size)
    with replacing(out) as temporary:
        command = _command(frames.shape, Fraction(fps), sound, size, temporary)
        try:
            done = subprocess.run(command, input=frames.tobytes(), capture_output=True, timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"ffmpeg took over {TIMEOUT_SECONDS:.0f} s for {out}") from None
        if done.returncode:
            raise RuntimeError(f"ffmpeg failed for {out}: {done.stderr.decode(errors='replace')[-500:]}")


def write_wav(path: str | Path, samples: np.ndarray, rate: int = AUDIO_RATE) -> None:
    """Write samples in [-1, 1], float [n], as a 16-bit mono wav file of ``rate`` Hz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def _command(shape: tuple[int, ...], fps: Fraction, sound: str | Path, size: int, out: Path) -> list[str]:
    height, width = shape[1:3]
    pixels = "rgb24" if len(shape) == 4 else "gray"
    scale = [] if (width, height) == (size, size) else ["-vf", f"scale={size}:{size}:flags=bicubic"]
    return [
        *(
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-v",
            "error",
            "-nostdin",
            "-y",
            "-filter_threads",
            "1",
            "-threads",
            "1",
        ),
        *("-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0"),
        *("-i", str(sound), *scale),
        *("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-threads", "1"),
        *("-c:a", "aac", "-aac_coder", "fast", "-b:a", "64k", "-ac", "1", "-ar", str(AUDIO_RATE)),
        *("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"),
        *("-movflags", "+faststart", str(out)),
    ]
