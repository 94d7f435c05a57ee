"""Ways to ruin a media file: bytes in, bytes out, drawn from a generator.

An mp4 is a tree of boxes: four bytes of size (big-endian, header included), four of type, then the content.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta"}
Box = tuple[int, int]  # begin and end, bytes


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut anywhere; one in three near an end, where the headers are."""
    near = int(rng.integers(1, 200))
    cut = [int(rng.integers(1, len(data))), near, len(data) - near][int(rng.choice(3, p=[2 / 3, 1 / 6, 1 / 6]))]
    return data[: max(cut, 1)]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """1 to 64 bits, anywhere or all of them in the headers."""
    found = np.frombuffer(data, np.uint8).copy()
    span = len(found) if rng.random() < 0.5 else min(len(found), 2048)
    at = rng.integers(0, span, int(2 ** rng.integers(0, 7)))
    np.bitwise_xor.at(found, at, (1 << rng.integers(0, 8, len(at))).astype(np.uint8))
    return found.tobytes()


def overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    """A stretch of noise or zeros."""
    at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 4000))
    filling = rng.bytes(length) if rng.random() < 0.5 else bytes(length)
    return data[:at] + filling + data[at + length :]


def pieces(data: bytes, rng: np.random.Generator) -> bytes:
    """Two stretches change places, or one comes twice, or not at all."""
    a, b, c, d = sorted(int(x) for x in rng.integers(0, len(data) + 1, 4))
    kinds = (
        data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:],
        data[:b] + data[a:b] + data[b:],
        data[:a] + data[b:],
    )
    return kinds[int(rng.integers(3))]


def boxes(data: bytes, begin: int = 0, end: int | None = None) -> list[list[Box]]:
    """Groups of sibling boxes of an mp4, the outermost first; what is no mp4 has few or none."""
    end = len(data) if end is None else end
    siblings: list[Box] = []
    groups = [siblings]
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        if size < 8 or begin + size > end:
            break
        siblings.append((begin, begin + size))
        if kind in _CONTAINERS:
            groups += boxes(data, begin + 8, begin + size)
        begin += size
    return [group for group in groups if group]


def boxed(data: bytes, rng: np.random.Generator) -> bytes:
    """Sibling boxes change places, one comes twice, is gone, or lies about its size. No mp4: ``pieces``."""
    groups = boxes(data)
    if len(groups) < 2:
        return pieces(data, rng)
    group = groups[int(rng.integers(len(groups)))]
    (a, b), (c, d) = (group[i] for i in sorted(rng.integers(0, len(group), 2)))
    sizes = (0, 1, 7, 8, b - a + 1, 2 * (b - a), 2**31, 2**32 - 1)
    size = struct.pack(">I", sizes[int(rng.integers(len(sizes)))] % 2**32)
    kinds = (
        data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:] if a != c else data[:a] + data[b:],
        data[:b] + data[a:b] + data[b:],
        data[:a] + data[b:],
        data[:a] + size + data[a + 4 :],
    )
    return kinds[int(rng.integers(4))]


def lying(data: bytes, rng: np.random.Generator) -> bytes:
    """Another duration, number of samples or size in the headers (mp4, Matroska, wav), else ``flipped``."""
    value = int(rng.choice([0, 1, 10**6, 2**31 - 1, 2**32 - 1]))
    places = [m.start() + 4 + at for name, at in _FIELDS for m in re.finditer(name, data)]
    if places:
        at = places[int(rng.integers(len(places)))]
        return data[:at] + struct.pack(">I", value) + data[at + 4 :]
    if (at := data.find(b"\x44\x89\x88")) >= 0:  # Matroska: Duration, a float64
        return data[: at + 3] + struct.pack(">d", float(value)) + data[at + 11 :]
    if (at := data.find(b"data")) >= 0 and data[:4] == b"RIFF":
        return data[: at + 4] + struct.pack("<I", value) + data[at + 8 :]
    return flipped(data, rng)


# Where in a full box (after its type) the field lies: durations; counts of stts, stsz, stco; stts's delta.
_FIELDS = [
    (b"mvhd", 16),
    (b"mdhd", 16),
    (b"tkhd", 20),
    (b"stts", 4),
    (b"stts", 12),
    (b"stsz", 8),
    (b"stco", 4),
]


def resized(data: bytes, rng: np.random.Generator) -> bytes:
    """Another picture size in an mp4's sample description, up to 65,535 a side, else ``flipped``."""
    sides = struct.pack(">HH", *(int(x) for x in rng.choice([0, 1, 4096, 16384, 65535], 2)))
    found = data
    for kind in (b"avc1", b"hev1", b"hvc1", b"mp4v"):
        for match in re.finditer(kind, data):
            found = found[: match.start() + 28] + sides + found[match.start() + 32 :]
    return found if found != data else flipped(data, rng)


MUTATIONS: dict[str, Mutation] = {
    "truncated": truncated,
    "bits flipped": flipped,
    "overwritten": overwritten,
    "pieces moved": pieces,
    "boxes moved": boxed,
    "false lengths": lying,
    "false sizes": resized,
}


def text(rng: np.random.Generator) -> bytes:
    """No media at all: words, a playlist, a script for ffmpeg's concat, zeros or noise."""
    kinds = (
        b"no video at all\n" * 99,
        b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='100000' height='100000'/>",
        bytes(5000),
        rng.bytes(5000),
    )
    return kinds[int(rng.integers(len(kinds)))]


def png_bomb(side: int, rows: int | None = None) -> bytes:
    """A black one-bit PNG of side x side; with ``rows`` of content (default: all)."""
    squeeze = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    content = b"".join(squeeze.compress(row) for _ in range(side if rows is None else rows)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", content), (b"IEND", b""))
    parts = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
