"""Where every member of a shard lies: read once from the tar's headers, strictly; nothing is extracted."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import InputError
from shards.writer import KEY, MEMBER

BLOCK = 512
RECORD = 20 * BLOCK  # tars end in zeros up to a multiple of this
MAX_JSON = 1 << 20  # bytes; a sample's json has hundreds
OCTAL = re.compile(rb" *[0-7]+[ \0]*")


@dataclass(frozen=True)
class ShardIndex:
    """Samples of one shard in order.

    Attributes:
        keys: one per sample.
        names: kinds of member that occur in the shard (``json``, ``audio.npy``, ...).
        offsets: int64 [samples, names], bytes into the file; -1 where the sample has no such member.
        sizes: int64 [samples, names], bytes.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    offsets: np.ndarray
    sizes: np.ndarray


def read_index(path: str | Path) -> ShardIndex:
    """Index of the tar at ``path``.

    Raises:
        InputError: the tar is missing, cut short, damaged in a header, or holds anything but plain files
            named ``key.member``, the members of a key side by side with ``json`` first.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not hold us up
    except OSError as error:
        remedy = "fetch or make the shard again"
        raise InputError(f"can't be read: {error.strerror}", file=path, remedy=remedy) from None
    try:
        return index_at(descriptor, path)
    finally:
        os.close(descriptor)


def index_at(descriptor: int, path: str | Path) -> ShardIndex:
    """Index of an open tar.

    Args:
        path: for messages.

    Raises:
        InputError: as `read_index`.
    """
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is no regular file")
        return _index(_entries(descriptor, status.st_size))
    except ValueError as error:
        remedy = "the shard is damaged: delete it, then fetch or make it again"
        raise InputError(str(error), file=path, remedy=remedy) from None


Entry = tuple[str, int, int]


def _entries(descriptor: int, size: int) -> list[Entry]:
    """(name, offset, bytes) of every member."""
    entries: list[Entry] = []
    at = 0
    while at + BLOCK <= size:
        header = os.pread(descriptor, BLOCK, at)
        if not any(header):
            if not 2 * BLOCK <= size - at < 2 * BLOCK + RECORD or any(os.pread(descriptor, size - at, at)):
                raise ValueError(f"the tar's end mark at byte {at} is damaged")
            return entries
        name, length = parse_header(header, at)
        if at + BLOCK + length > size:
            raise ValueError(f"cut short: '{name}' ends beyond the file")
        entries.append((name, at + BLOCK, length))
        at += BLOCK + -(-length // BLOCK) * BLOCK
    raise ValueError("cut short: the tar has no end mark")


def parse_header(header: bytes, at: int) -> tuple[str, int]:
    """Name and size of the member whose tar header lies at byte ``at``.

    Raises:
        ValueError: damaged, or no plain file.
    """
    length, checksum = header[124:136], header[148:156]
    try:
        name = header[:100].rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"damaged tar header at byte {at}") from None
    if not OCTAL.fullmatch(length) or not OCTAL.fullmatch(checksum):
        raise ValueError(f"damaged tar header at byte {at}, or a member of more than 8 GiB")
    if int(checksum.rstrip(b" \0"), 8) != sum(header) - sum(checksum) + 8 * 32:
        raise ValueError(f"damaged tar header at byte {at}: wrong checksum")
    if header[156:157] != b"0" or header[257:263] != b"ustar\0" or any(header[345:500]):
        raise ValueError(f"'{name}' is no plain file")
    return name, int(length.rstrip(b" \0"), 8)


def _index(entries: list[Entry]) -> ShardIndex:
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    last = None
    for name, offset, length in entries:
        key, _, member = name.partition(".")
        if not KEY.fullmatch(key) or not MEMBER.fullmatch(member):
            raise ValueError(f"'{name}' is not of the schema")
        if (key in samples) != (key == last) or member in samples.get(key, ()):
            raise ValueError(f"'{name}' occurs twice, or apart from its sample")
        if member == "json" and length > MAX_JSON:
            raise ValueError(f"'{name}' has {length} bytes")
        if key not in samples and member != "json":
            raise ValueError(f"sample '{key}' does not begin with its json")
        samples.setdefault(key, {})[member] = (offset, length)
        last = key
    return _to_arrays(samples)


def _to_arrays(samples: dict[str, dict[str, tuple[int, int]]]) -> ShardIndex:
    names = tuple(dict.fromkeys(member for members in samples.values() for member in members))
    table = np.full((2, len(samples), len(names)), -1, np.int64)
    for row, members in enumerate(samples.values()):
        for column, name in enumerate(names):
            if name in members:
                table[:, row, column] = members[name]
    return ShardIndex(tuple(samples), names, table[0], table[1])
