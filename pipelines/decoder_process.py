"""Decoding in a child that can be killed: a clip that hangs, crashes or devours memory costs itself alone."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipelines.causes import TIMED_OUT, TOO_LARGE, UNDECODABLE, DecodeError, MachineError
from pipelines.decode import Decoded, Request, by_ffmpeg_alone
from pipelines.decord_frames import REMEDY as DECORD_REMEDY
from pipelines.ffmpeg import KILLED
from shards.errors import InputError
from shards.schema import StreamInfo

GRACE = 2.0  # seconds beyond the clip's limit before the child is killed
START_SECONDS = 60.0  # what a child may take to start (imports from a slow disk)
_LENGTH = struct.Struct("<Q")


class Decoder:
    """One decoding child, started at the first clip and again after each one that killed it.

    Args:
        memory_mb: address space of the child and of its ffmpeg, MiB; 0 sets no limit.
    """

    def __init__(self, memory_mb: int = 4096):
        self.memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def decode(self, request: Request) -> Decoded:
        """Decode one clip; when the child dies of it, or it takes too long, and ``request.keep``, also
        without its picture, then without its sound.

        Raises:
            DecodeError: as :func:`pipelines.decode.decode`, also for clips that hang or crash their decoder.
            MachineError: the machine is at fault, not the clip.
            InputError: no child can be started.
        """
        try:
            return self._persist(request)
        except DecodeError as error:
            if not request.keep or not (isinstance(error, GaveUp) or error.cause == TIMED_OUT):
                raise
            failed = error
        for modality in ("visual", "audio"):
            with suppress(DecodeError, ChildDied):
                return self._try(replace(request, lost=(modality, failed.cause)))
        raise failed

    def _persist(self, request: Request) -> Decoded:
        """Decode one clip; when the child dies of it, again in a new child, at most twice.

        A child that was killed or too slow may have met another's misfortune: the same once more, so that it
        leaves no trace in the data. One that crashed, and whatever died twice, goes on by ffmpeg alone, unless
        decord was asked for and nothing else.
        """
        only = request.decoder == "decord" and not request.decoder_fallback
        try:
            return self._try(request)
        except ChildDied as death:
            first, again = death, request if death.by_chance or only else by_ffmpeg_alone(request)
        with suppress(ChildDied):
            return self._try(again)
        if only:
            raise GaveUp(first.cause, f"decord: {first}", DECORD_REMEDY) from None
        try:
            return self._try(by_ffmpeg_alone(request))
        except ChildDied as death:
            raise GaveUp(death.cause, str(death)) from None

    def close(self) -> None:
        """End the child and whatever it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _try(self, request: Request) -> Decoded:
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            write_message(process.stdin, vars(request), [])
            head, arrays = _Deadline(process.stdout, request.timeout_s + GRACE).message()
        except TimeoutError:
            self.close()
            raise ChildDied(TIMED_OUT, f"not decoded in {request.timeout_s:g} s", by_chance=True) from None
        except (EOFError, BrokenPipeError):
            process.wait()
            status = process.returncode
            self.close()
            raise _death(status) from None
        if "errno" in head:
            raise MachineError(head["errno"], head["message"])
        if "cause" in head:
            raise DecodeError(head["cause"], head["message"], head.get("remedy"))
        return _unpack(head, arrays)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.decoder_child", str(self.memory_mb), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **threads, "PYTHONPATH": path},
            start_new_session=True,  # a group of its own, to kill it together with its ffmpeg
        )
        assert self._process.stdout is not None
        try:
            _Deadline(self._process.stdout, START_SECONDS).message()
        except (TimeoutError, EOFError):
            self.close()
            remedy = "correct the installation, or raise memory_mb"
            raise InputError("no decoder starts; see its message above", remedy=remedy) from None
        return self._process


class GaveUp(DecodeError):
    """The clip ended the child each time."""


class ChildDied(Exception):
    """The child had to be killed, was killed by others (``by_chance`` covers both), or crashed."""

    def __init__(self, cause: str, message: str, *, by_chance: bool):
        super().__init__(message)
        self.cause, self.by_chance = cause, by_chance


def _death(status: int) -> ChildDied:
    if status in KILLED:
        return ChildDied(TOO_LARGE, "the decoder was killed, as it happens out of memory", by_chance=True)
    name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return ChildDied(UNDECODABLE, f"the decoder crashed ({name})", by_chance=False)


def pack(clip: Decoded) -> tuple[dict[str, Any], list[np.ndarray]]:
    """A decoded clip as json and arrays (no pickle: what comes from hostile media is only ever data)."""
    arrays = {name: array for name in ("audio", "frames") if (array := getattr(clip, name)) is not None}
    head = {
        "arrays": {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()},
        "audio_info": clip.audio_info.model_dump(),
        "visual_info": clip.visual_info.model_dump(),
        "frame_times": clip.frame_times,
        "sha256": clip.sha256,
    }
    return head, list(arrays.values())


def _unpack(head: dict[str, Any], data: bytes) -> Decoded:
    arrays, at = {}, 0
    for name, (dtype, shape) in head["arrays"].items():
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(data, dtype, count, at).reshape(shape)
        at += arrays[name].nbytes
    return Decoded(
        arrays.get("audio"),
        arrays.get("frames"),
        StreamInfo(**head["audio_info"]),
        StreamInfo(**head["visual_info"]),
        tuple(head["frame_times"]),
        head["sha256"],
    )


def write_message(pipe: IO[bytes], head: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Lengths, json, then the arrays' bytes."""
    text = json.dumps(head).encode()
    pipe.write(_LENGTH.pack(len(text)) + _LENGTH.pack(sum(array.nbytes for array in arrays)) + text)
    for array in arrays:
        pipe.write(np.ascontiguousarray(array).data)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> dict[str, Any] | None:
    """The json of one message without arrays; ``None`` at the end of the stream."""
    lengths = pipe.read(2 * _LENGTH.size)
    if len(lengths) < 2 * _LENGTH.size:
        return None
    return json.loads(pipe.read(_LENGTH.unpack_from(lengths)[0]))


class _Deadline:
    """Reads from a pipe until a moment in time.

    Raises:
        TimeoutError: nothing more came in time.
        EOFError: the other side is gone.
    """

    def __init__(self, pipe: IO[bytes], seconds: float):
        self.descriptor, self.end = pipe.fileno(), time.monotonic() + seconds

    def message(self) -> tuple[dict[str, Any], bytes]:
        lengths = self.read(2 * _LENGTH.size)
        text, size = (_LENGTH.unpack_from(lengths, at)[0] for at in (0, _LENGTH.size))
        return json.loads(self.read(text)), self.read(size)

    def read(self, size: int) -> bytes:
        buffer = bytearray(size)
        view, at = memoryview(buffer), 0
        while at < size:
            left = self.end - time.monotonic()
            if left <= 0 or not select.select([self.descriptor], [], [], left)[0]:
                raise TimeoutError
            got = os.readv(self.descriptor, [view[at:]])
            if not got:
                raise EOFError
            at += got
        return bytes(buffer) if size < 1 << 16 else buffer  # type: ignore[return-value]
