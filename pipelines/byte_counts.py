"""Bytes and pieces that containers count: a file that has all of them lacks nothing, whatever length it promises.

Headers are often written with a wrong length (by recorders that leave a stream out, by muxers that can't store a late
start); a file that was cut lacks bytes.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

_SEGMENT, _EBML = 0x18538067, 0x1A45DFA3
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_HEAD = 1 << 16
_PIECES = (188, 192, 204)  # bytes of a piece of a transport stream
_MOST = 16 << 20
_LARGEST_PAGE = 27 + 255 + 255 * 255  # bytes of a page of Ogg


def has_all_bytes(file: BinaryIO, formats: tuple[str, ...], size: int) -> bool:
    """Whether an AVI, a Matroska, an ASF or a Flash file of ``size`` bytes says how many it has, and has them."""
    if "avi" in formats:
        return _riff(file, size)
    if "matroska" in formats:
        return _matroska(file.read(_HEAD), size)
    if "flv" in formats:
        return _flash(file.read(_HEAD), size)
    return "asf" in formats and _asf(file.read(_HEAD), size)


def lacks_samples(file: BinaryIO, formats: tuple[str, ...], size: int) -> bool:
    """Whether the samples' chunk of a WAV or CAF claims bytes that the file of ``size`` lacks; a recorder that writes
    to a pipe claims the most that there can be, or none."""
    if "wav" in formats:
        name, first, width, order, most = b"data", 12, 4, "little", 0x7FFFF000
    elif "caf" in formats:
        name, first, width, order, most = b"data", 8, 8, "big", 1 << 62
    else:
        return False
    head, at = file.read(_HEAD), first
    while at + 4 + width <= len(head):
        inside = at + 4 + width
        length = int.from_bytes(head[at + 4 : inside], order)  # type: ignore[arg-type]
        if head[at : at + 4] == name:
            return 0 < length < most and inside + length > size
        at = inside + length + (length % 2 if name == b"data" and width == 4 else 0)
    return False


def _riff(file: BinaryIO, size: int) -> bool:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):
            return at > 0 and head[:4] != b"RIFF"  # something behind the last one
        at += 8 + length + length % 2
    return 0 < at <= size + 1


def _matroska(head: bytes, size: int) -> bool:
    at = 0
    while at < len(head):
        name, at = _number(head, at, keep_marker=True)
        length, at = _number(head, at)
        if name == _SEGMENT:
            return length >= 0 and at + length <= size
        if name != _EBML or length < 0:
            return False
        at += length
    return False


def _number(data: bytes, at: int, keep_marker: bool = False) -> tuple[int, int]:
    """A number of EBML and the byte behind it; -1 for an unknown one."""
    width = 9 - data[at].bit_length() if at < len(data) else 9
    if width > 8 or at + width > len(data):
        return -1, len(data)
    value = int.from_bytes(data[at : at + width], "big")
    if keep_marker:
        return value, at + width
    value &= (1 << 7 * width) - 1
    return (-1 if value == (1 << 7 * width) - 1 else value), at + width


def _flash(head: bytes, size: int) -> bool:
    at = head.find(b"\0\x08filesize\0") + 11  # a number of the first tag, onMetaData
    return at > 10 and head[at : at + 8] == struct.pack(">d", size)


def _asf(head: bytes, size: int) -> bool:
    at = head.find(_ASF_PROPERTIES)
    fields = io.BytesIO(head[at + 40 : at + 96])
    counted = int.from_bytes(fields.read(8), "little")
    flags = int.from_bytes(head[at + 88 : at + 92], "little")
    return at >= 0 and not flags & 1 and counted == size  # bit 0: a broadcast, whose fields mean nothing


def ends_within_page(file: BinaryIO, size: int) -> bool:
    """Whether an Ogg file of ``size`` bytes ends before its last page does."""
    begin = max(0, size - _LARGEST_PAGE)
    file.seek(begin)
    data = file.read()
    at = data.rfind(b"OggS\0")
    count = data[at + 26] if at >= 0 and at + 26 < len(data) else 0
    return at >= 0 and at + 27 + count + sum(data[at + 27 : at + 27 + count]) > len(data)


def ends_within_piece(file: BinaryIO, size: int) -> bool:
    """Whether a transport stream of ``size`` bytes ends before its last piece does."""
    head = file.read(2 * max(_PIECES) + 1)
    step = next((n for n in _PIECES if head[:1] == head[n : n + 1] == head[2 * n : 2 * n + 1] == b"\x47"), None)
    if step is None or not size % step:
        return False
    file.seek(size - size % step)
    return file.read(1) == b"\x47"


def counts_anew(file: BinaryIO, begin: int, end: int) -> bool:
    """Whether a transport stream that was joined to another one begins between two packets of one of its streams
    (the bytes at which they begin): its table of contents and that stream count their pieces from 0 again."""
    if not 0 <= begin < end:
        return False
    file.seek(begin)
    data = file.read(min(end - begin, _MOST) + max(_PIECES))
    first = data.find(b"\x47")
    step = next((n for n in _PIECES if data[first + n : first + n + 1] == b"\x47"), None) if first >= 0 else None
    if step is None:
        return False
    pieces = [data[at : at + 4] for at in range(first, len(data) - 3, step)]
    own, anew = _piece(pieces[0])[0], False
    for name, starts, number in map(_piece, pieces[1:]):
        if name == own and starts:
            return anew and number == 0
        anew |= name == 0 and number == 0
    return False


def _piece(head: bytes) -> tuple[int, bool, int]:
    """Stream, whether a packet starts there, and number of a piece."""
    return int.from_bytes(head[1:3], "big") & 0x1FFF, bool(head[1] & 0x40), head[3] & 0x0F
