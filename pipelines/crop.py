"""Whether a container asks for a part of its picture: ``clap`` of mp4, ``PixelCrop`` of Matroska.

PyAV does not pass this on, and FFmpeg's libraries leave it to the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pipelines.container import Media

_BOXES = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"stsd": 8}  # bytes before the boxes inside
_SAMPLE_ENTRY = 78  # bytes of a visual sample entry before the boxes inside
_SEGMENT, _TRACKS, _ENTRY, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_CROPS = {0x54AA, 0x54BB, 0x54CC, 0x54DD}
_HEAD = 1 << 20  # bytes of a Matroska file in which its tracks are looked for


def has_crop(media: Media) -> bool:
    """Whether any track of the file is cropped by the container."""
    if "mov" in media.formats:
        with media.reopen() as file:
            return _clap(file, 0, media.size, 0)
    if "matroska" in media.formats:
        with media.reopen() as file:
            return _pixel_crop(file.read(_HEAD))
    return False


def _boxes(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte inside, and end of each box."""
    while begin + 8 <= end:
        file.seek(begin)
        head = file.read(16)
        if len(head) < 8:
            return
        size, inside = int.from_bytes(head[:4], "big"), begin + 8
        if size == 1:
            size, inside = int.from_bytes(head[8:], "big"), begin + 16
        stop = min(begin + size, end) if size else end
        if stop < inside:
            return
        yield head[4:8], inside, stop
        begin = stop


def _clap(file: BinaryIO, begin: int, end: int, depth: int) -> bool:
    for name, inside, stop in _boxes(file, begin, end):
        if name in _BOXES and depth < len(_BOXES):
            if name == b"stsd":
                entries = _boxes(file, inside + _BOXES[name], stop)
                if any(_clap(file, at + _SAMPLE_ENTRY, last, depth + 1) for _, at, last in list(entries)):
                    return True
            elif _clap(file, inside + _BOXES[name], stop, depth + 1):
                return True
        elif name == b"clap" and depth:
            return True
    return False


def _elements(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first byte inside, and end of each EBML element."""
    while begin < end:
        width = 9 - data[begin].bit_length()
        if width > 4 or begin + width >= end:
            return
        name = int.from_bytes(data[begin : begin + width], "big")
        at = begin + width
        length = 9 - data[at].bit_length()
        if length > 8:
            return
        size = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
        unknown = size == (1 << 7 * length) - 1
        stop = end if unknown else min(at + length + size, end)
        yield name, at + length, stop
        begin = stop


def _pixel_crop(data: bytes) -> bool:
    spans = [(0, len(data))]
    for wanted in (_SEGMENT, _TRACKS, _ENTRY, _VIDEO):
        spans = [(a, b) for begin, end in spans for name, a, b in _elements(data, begin, end) if name == wanted]
    return any(name in _CROPS and any(data[a:b]) for begin, end in spans for name, a, b in _elements(data, begin, end))
