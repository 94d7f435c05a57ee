"""Uploads as clips: held in memory alone, decoded in children that can be killed."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from pipelines.decoder_process import Decoder
from pipelines.settings import IngestConfig
from serving.model import Media, read_clip
from serving.prediction import Failure
from serving.request import PredictRequest, Upload
from serving.sources import is_picture, unlabelled
from shards.reader import Sample


@contextmanager
def in_memory(upload: Upload) -> Iterator[str]:
    """The path of an upload for the processes of this user. There is no file: the memory is the kernel's, and it is
    free when the block ends or this process does, however that happens (Linux)."""
    descriptor = os.memfd_create("upload")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(upload.data)
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


class Decoders:
    """A few decoding children that take clips in turn, from any thread.

    Args:
        count: children.
        memory_mb: of each, MiB; 0: no limit.
    """

    def __init__(self, count: int, memory_mb: int):
        self._free: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
        self.all = [Decoder(memory_mb) for _ in range(count)]
        for decoder in self.all:
            self._free.put(decoder)

    def read(self, request: PredictRequest, ingestion: IngestConfig) -> Media:
        """A request's clip as media shards would hold it, or why it can't be had.

        Raises:
            InputError: no decoder starts.
            MachineError: the machine is at fault, not the clip.
        """
        decoder = self._free.get()
        try:
            with ExitStack() as stack:
                paths = {name: stack.enter_context(in_memory(upload)) for name, upload in request.files.items()}
                found = read_clip(_clip(request, paths), ingestion, decoder)
                return _named(found, request, paths)
        finally:
            self._free.put(decoder)

    def close(self) -> None:
        """End the children."""
        for decoder in self.all:
            decoder.close()


def _clip(request: PredictRequest, paths: Mapping[str, str]):
    """As `avmend predict` takes a file by its name, or two."""
    if "clip" not in paths:
        return unlabelled(request.name, audio=paths.get("audio"), image=paths.get("image"))
    image = is_picture(request.name)
    return unlabelled(request.name, path=None if image else paths["clip"], image=paths["clip"] if image else None)


def _named(found: Media, request: PredictRequest, paths: Mapping[str, str]) -> Media:
    """With the names that the files were sent under, in place of where they lie."""
    if isinstance(found, Failure):
        message = found.message
        for field, path in paths.items():
            message = message.replace(path, request.files[field].name)
        return replace(found, message=message)
    if found.meta.visual.codec == "":  # of a still picture, which is told by its suffix
        name = request.files.get("image", next(iter(request.files.values()))).name
        visual = found.meta.visual.model_copy(update={"codec": name.rpartition(".")[2].lower()})
        return Sample(found.meta.model_copy(update={"visual": visual}), found.arrays)
    return found
