"""Shards are plain WebDataset tars: bytes that depend on content alone, and appear whole or not at all."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import pydantic

from shards.atomic import replacing
from shards.npy import npy_parts
from shards.schema import ShardInfo
from shards.store import Place, place

Member = bytes | np.ndarray | pydantic.BaseModel
Record = tuple[str, Mapping[str, Member]]

KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
MEMBER = re.compile(r"json|[a-z0-9_]{1,12}\.npy")
AT_ONCE = 1 << 20  # bytes that are hashed and written together


def write_shard(
    path: str | Place,
    samples: Iterable[Record],
    *,
    root: str | Place | None = None,
    look: Callable[[Path, ShardInfo], None] | None = None,
) -> ShardInfo:
    """Write ``samples``, each ``(key, {member: value})``, as one tar, in the order given.

    Members are named as in the tar without the key (``json``, ``audio.npy``, ``frames.npy``); ``json`` comes
    first, then the order of the names. Values are a pydantic model, an array, or ready bytes. The samples
    are taken one at a time. With no samples at all no file is written and the info says ``samples=0``.

    Args:
        path: where the tar will be; its folder is made.
        root: the dataset's folder; the info's name is relative to it (default: the bare file name).
        look: gets the finished file and what it is, before it is where it will be.

    Raises:
        ValueError: a key or member name that a reader would refuse, or a key that came before.
        OSError: disk full and the like; then nothing is left behind.
    """
    path = place(path)
    name = path.relative_to(place(root)).as_posix() if root is not None else path.name  # type: ignore[arg-type]
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            hashing = _Hashing(file)
            count = _write_all(hashing, samples)
        size = hashing.size if count else 0
        shard = ShardInfo(name=name, samples=count, bytes=size, sha256=hashing.digest.hexdigest())
        if not count:
            temporary.unlink()
        elif look is not None:
            look(temporary, shard)
    return shard


class _Hashing:
    """A file to write to that keeps the size and sha256 of what was written."""

    def __init__(self, file: IO[bytes]):
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.size


def _write_all(file: _Hashing, samples: Iterable[Record]) -> int:
    seen: set[str] = set()
    how = {"mode": "w", "format": tarfile.USTAR_FORMAT, "copybufsize": AT_ONCE}
    with tarfile.open(fileobj=file, **how) as tar:  # type: ignore[call-overload]
        for key, members in samples:
            if not KEY.fullmatch(key) or key in seen:
                raise ValueError(f"key {key!r} is unsafe, or was written before")
            seen.add(key)
            _write_sample(tar, key, members)
            tar.members.clear()  # else every header stays in memory
    return len(seen)


def _write_sample(tar: tarfile.TarFile, key: str, members: Mapping[str, Member]) -> None:
    if "json" not in members:
        raise ValueError(f"sample {key!r} has no json")
    for name in sorted(members, key=lambda member: (member != "json", member)):
        if not MEMBER.fullmatch(name):
            raise ValueError(f"member {name!r} of {key!r} is not of the schema")
        source = _Source(members[name])
        info = tarfile.TarInfo(f"{key}.{name}")  # mtime 0, owner 0, mode 0644: nothing but content
        info.size = source.size
        tar.addfile(info, source)  # type: ignore[arg-type]


class _Source:
    """A member's bytes to read from; of an array without a copy of it, but for what shares a read with its header."""

    def __init__(self, value: Member):
        self.head, self.data = _parts(value)
        self.size, self.at = len(self.head) + len(self.data), 0

    def read(self, size: int) -> bytes | memoryview:
        """The next bytes: exactly so many, unless there are fewer left."""
        begin, end = self.at - len(self.head), self.at + size - len(self.head)
        self.at += size
        if begin >= 0:
            return self.data[begin:end]
        return self.head[begin : end if end < 0 else None] + bytes(self.data[: max(end, 0)])


def _parts(value: Member) -> tuple[bytes, memoryview]:
    """What a member begins with, and the rest."""
    if isinstance(value, np.ndarray):
        return npy_parts(value)
    return b"", memoryview(value.model_dump_json().encode() if isinstance(value, pydantic.BaseModel) else value)
