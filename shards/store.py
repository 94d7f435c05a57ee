"""Object stores as places for what commands read and write: a `Place` is a local `Path`, or a `StorePath` (``s3://...``,
any address that fsspec knows) with the same few names.

An object appears whole or not at all, and is asked for by its name: listings, which may be stale, decide nothing.
Every request is tried several times, with growing pauses. Credentials come from the environment (``AWS_*``, instance
roles, ``FSSPEC_*``), never from an address.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeVar

from shards.errors import InputError
from shards.hashes import differs, md5
from shards.redaction import holds_credentials
from shards.scratch import process_scratch, scratch
from shards.store_errors import StoreUnreachable, TooManyBytes, failure_of, retry_after

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

TRIES = 7  # of a request
FIRST, LONGEST = 0.2, 10.0  # seconds between them, doubled each time
PATIENCE = 300.0  # seconds that a store may ask to be left alone (Retry-After)
AHEAD = 16  # requests that are under way together
SMALL = 4 << 20  # bytes of an object that is read at once
BLOCK = 1 << 20
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_LOCAL = ("file", "local")
_T = TypeVar("_T")
_S = TypeVar("_S")


def url_of(name: str | Path | StorePath) -> str | None:
    """The URL that a text, a path or an address stands for; None for a local path. The one way of asking.

    A URL begins with a scheme of two letters or more (one is a drive) and ``:/``; ``file:`` is one, too. A setting
    that is a path may hold a URL: `pathlib` folds its two slashes to one, and what it says of parents, names and
    joined paths stays right.

    >>> url_of(Path("s3://bucket/scenes") / "features")
    's3://bucket/scenes/features'
    """
    if (found := _SCHEME.match(text := str(name))) is None:
        return None
    scheme, rest = found[1], text[found.end() :].rstrip("/")
    return f"{scheme}:///{rest}" if scheme in _LOCAL else f"{scheme}://{rest}"


def place(name: str | Path | StorePath) -> Place:
    """A local path (that of a ``file:`` URL, too), or the address of a store.

    Raises:
        InputError: an address that holds a password, a key or a signature.
    """
    if isinstance(name, StorePath):
        return name
    if (url := url_of(name)) is None:
        return Path(name)
    scheme, _, path = url.partition("://")
    return Path(path) if scheme in _LOCAL else StorePath.of(url)


def absolute(folder: Path) -> Path:
    """The same as every process sees it; a URL stays as it is."""
    return folder if url_of(folder) else folder.absolute()


def refuse_credentials(url: str) -> None:
    """Refuse an address that holds a password, a key or a signature.

    Raises:
        InputError: it does.
    """
    if holds_credentials(url):
        remedy = "take them out; credentials come from the environment (AWS_ACCESS_KEY_ID, ...) alone"
        raise InputError("the address holds a password, a key or a signature", file=url, remedy=remedy)


@dataclass(frozen=True)
class Requests:
    """How requests are made.

    Attributes:
        tries: of each.
        turn: entered for each try; it may wait.
        hold: is given the seconds for which the store asks to be left alone, by all who ask it.
    """

    tries: int = field(default_factory=lambda: TRIES)
    turn: Callable[[], AbstractContextManager[Any]] = nullcontext
    hold: Callable[[float], None] | None = None


@dataclass(frozen=True)
class StorePath:
    """The address of an object, or of what the names of objects begin with. Picklable; other processes ask with
    credentials of their own.

    Every method that asks the store raises StoreRefused, StoreUnreachable and MachineRefused.
    """

    url: str

    @classmethod
    def of(cls, url: str) -> StorePath:
        """From what a user gave.

        Raises:
            InputError: it holds credentials.
        """
        refuse_credentials(url)
        address = cls(url.rstrip("/"))
        return address / "" if "/." in url else address

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str | os.PathLike[str]) -> StorePath:
        root, path = self._split()
        joined = posixpath.normpath(f"{path}/{os.fspath(name)}").lstrip("/")
        return StorePath(f"{root}{'' if joined == '.' else joined}")

    def _split(self) -> tuple[str, str]:
        """``s3://bucket/`` and what follows it."""
        scheme, _, rest = self.url.partition("://")
        bucket, _, path = rest.partition("/")
        return f"{scheme}://{bucket}/", path

    @property
    def parent(self) -> StorePath:
        """What it lies in."""
        root, path = self._split()
        return StorePath((root + posixpath.dirname(path)).rstrip("/"))

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The last part without what follows its last dot."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The last dot of the last part and what follows."""
        return self._pure.suffix

    @property
    def _pure(self) -> PurePosixPath:
        path = self._split()[1]
        return PurePosixPath(path.partition("?")[0] if self.url.startswith("http") else path)

    @property
    def source(self) -> str:
        """Who is asked: ``s3://bucket``, ``https://host``."""
        return self._split()[0].rstrip("/")

    def with_suffix(self, suffix: str) -> StorePath:
        """The same with another one."""
        return self.parent / self._pure.with_suffix(suffix).name

    def absolute(self) -> StorePath:
        """Itself: an address is."""
        return self

    def relative_to(self, other: Place) -> PurePosixPath:
        """What it is called within ``other``.

        Raises:
            ValueError: it does not lie there.
        """
        return PurePosixPath(self.url).relative_to(PurePosixPath(str(other)))

    def exists(self) -> bool:
        """Whether there is an object of this name."""
        return self.info() is not None

    is_file = exists

    def info(self) -> dict[str, Any] | None:
        """What the store says of the object (``size``, ``ETag``, ...); None: there is none."""
        try:
            found = self._asked(lambda system, path: system.info(path))
        except FileNotFoundError:
            return None
        return found if found["type"] == "file" else None

    def read_bytes(self) -> bytes:
        """The object.

        Raises:
            FileNotFoundError: there is none.
        """
        return self._asked(lambda system, path: system.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text.

        Raises:
            FileNotFoundError: there is none.
        """
        return self.read_bytes().decode(encoding)

    def open(self) -> IO[bytes]:
        """To be read from any byte on; a large one is not fetched whole.

        Raises:
            FileNotFoundError: there is none.
        """
        if (info := self.info()) is None:
            raise FileNotFoundError(2, "no such object", self.url)
        if info["size"] <= SMALL:
            return io.BytesIO(self.read_bytes())
        return io.BufferedReader(_Ranges(self, info["size"]), BLOCK)

    def range(self, start: int, end: int) -> bytes:
        """Some bytes of the object.

        Raises:
            FileNotFoundError: there is none.
        """

        def read(system: AbstractFileSystem, path: str) -> bytes:
            data = system.cat_file(path, start=start, end=end)
            return _whole(data, len(data), end - start)

        return self._asked(read)

    def download(self, file: Path, limit: int | None = None, requests: Requests | None = None) -> None:
        """Fetch the object into a local file, whole.

        Raises:
            FileNotFoundError: there is none.
            TooManyBytes: it has more than ``limit``.
        """

        def load(system: AbstractFileSystem, path: str) -> None:
            counter = _counter(limit)
            system.get_file(path, str(file), callback=counter)
            _whole(None, file.stat().st_size, counter.size)

        self._asked(load, requests, file)

    def put(self, file: Path) -> None:
        """Make the object from a local file: whole or not at all, in the place of another; then compare its size,
        and its MD5 where the store tells one."""

        def upload(system: AbstractFileSystem, path: str) -> None:
            system.put_file(str(file), path)
            system.invalidate_cache(path)
            info = system.info(path)
            _whole(None, info["size"], file.stat().st_size)
            if differs(info, file) and path.partition("/")[0] not in _NO_MD5:
                _read_back(self, file)
                _NO_MD5.add(path.partition("/")[0])  # encrypted with a key of the store's

        self._asked(upload, file=file)

    def create(self, data: bytes) -> bool:
        """Make the object unless there is one, in one step where the store can; whether it is there as `data` now."""
        try:
            self._asked(lambda system, path: system.pipe_file(path, data, mode="create"))
        except FileExistsError:
            return self._is(data)  # ours, if the answer to an earlier try was lost
        except NotImplementedError:
            if not self.exists():
                self.write_bytes(data)
            return self._is(data)
        return True

    def _is(self, data: bytes) -> bool:
        try:
            return self.read_bytes() == data
        except FileNotFoundError:
            return False

    def write_bytes(self, data: bytes) -> None:
        """Make the object, in the place of another."""
        self._asked(lambda system, path: system.pipe_file(path, data))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object.

        Raises:
            FileNotFoundError: there is none, unless that is right.
        """
        try:
            self._asked(lambda system, path: system.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _asked(
        self,
        request: Callable[[AbstractFileSystem, str], _T],
        requests: Requests | None = None,
        file: Path | None = None,
    ) -> _T:
        """The answer to a request, which is made again when it fails in a way that may pass, not before the store
        wants it; `file` as `failure_of` takes it."""
        (system, path), how = self._system(), requests or Requests()
        for number in range(how.tries):
            wait = 0.0
            try:
                with how.turn():
                    return request(system, path)
            except Exception as error:
                failure = failure_of(error, self.url, file)
                if not isinstance(failure, StoreUnreachable) or number == how.tries - 1:
                    raise failure from error
                wait = min(retry_after(error) or 0.0, PATIENCE)
            if wait and how.hold:
                how.hold(wait)
            time.sleep(max(wait, min(FIRST * 2**number, LONGEST) * random.uniform(0.5, 1.0)))
        raise AssertionError

    def _system(self) -> tuple[AbstractFileSystem, str]:
        scheme, _, _ = self.url.partition("://")
        told = tuple(item for item in sorted(os.environ.items()) if item[0].startswith(("AWS_", "FSSPEC_")))
        system = _opened(scheme, os.getpid(), told)
        return system, system._strip_protocol(self.url)


Place = Path | StorePath
PlaceT = TypeVar("PlaceT", Path, StorePath, Path | StorePath)
_NO_MD5: set[str] = set()  # buckets whose ETags are no MD5


@lru_cache(maxsize=8)
def _opened(scheme: str, pid: int, environment: tuple[tuple[str, str], ...]) -> AbstractFileSystem:
    """The store as the environment has it; one connection pool for all threads of a process."""
    import fsspec

    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        config = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "max_pool_connections": 4 * AHEAD}
        config |= fsspec.config.conf.get(scheme, {}).get("config_kwargs", {})
        options = {"max_concurrency": 1, "use_listings_cache": False, "config_kwargs": config}
    try:
        return fsspec.filesystem(scheme, skip_instance_cache=True, **options)
    except (ImportError, ValueError) as error:
        remedy = "install the package that the message names, or correct the address"
        raise InputError(str(error), file=f"{scheme}://", remedy=remedy) from None


def _whole(data: Any, found: int, wanted: int | None) -> Any:
    if wanted is not None and found != wanted:
        raise OSError(f"{found} bytes arrived, not {wanted}")
    return data


def _counter(limit: int | None) -> Any:
    from fsspec.callbacks import Callback

    class Counter(Callback):  # type: ignore[misc]
        """Notes the size that is promised, and stops what is too large."""

        def set_size(self, size: int | None) -> None:
            super().set_size(size)
            self.check(size or 0)

        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            self.check(self.value)

        def check(self, size: int) -> None:
            if limit is not None and size > limit:
                raise TooManyBytes(f"{size} bytes")

    return Counter()


def _read_back(address: StorePath, file: Path) -> None:
    """Raises OSError: the object is not what the file is."""
    with scratch() as folder:
        address.download(folder / "back")
        if md5(folder / "back") != md5(file):
            raise OSError("other bytes arrived")


class _Ranges(io.RawIOBase):
    """An object to read from and to move about in."""

    def __init__(self, address: StorePath, size: int):
        self._address, self._size, self._at = address, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        data = self._address.range(self._at, end) if end > self._at else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def content(file: Place) -> bytes | None:
    """Bytes of a file or object; None: there is none."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def size_of(file: Place) -> int | None:
    """How many bytes a file or object has; None: there is none."""
    if isinstance(file, Path):
        return file.stat().st_size if file.is_file() else None
    info = file.info()
    return None if info is None else int(info["size"] or 0)


def version_of(file: Place) -> str:
    """Changes when a file or object does.

    Raises:
        FileNotFoundError: there is none.
    """
    if isinstance(file, Path):
        return str(file.stat().st_mtime_ns)
    if (info := file.info()) is None:
        raise FileNotFoundError(2, "no such object", file.url)
    return f"{info['size']} {info.get('ETag')} {info.get('LastModified')} {info.get('created')}"


def at_hand(file: Place) -> Path:
    """A file, or a copy of an object that stays as long as this process; fetched anew when the object has changed.

    Raises:
        FileNotFoundError: there is none.
    """
    return file if isinstance(file, Path) else _copy(file, version_of(file))


@lru_cache(maxsize=4)
def _copy(file: StorePath, version: str) -> Path:
    name = hashlib.sha256(f"{file.url}\0{version}".encode()).hexdigest()[:16]
    copy = process_scratch() / name / file.name
    copy.parent.mkdir(exist_ok=True)
    file.download(copy)
    return copy


@contextmanager
def whole_file(path: Place) -> Iterator[Path]:
    """A local file to write what `path` on a store is to be; it is put there when the block ends without an error,
    if it exists then."""
    with scratch() as folder:
        file = folder / path.name
        yield file
        if file.exists() and isinstance(path, StorePath):
            path.put(file)


def each(function: Callable[[_S], _T], items: Iterable[_S], at: Place) -> Iterator[_T]:
    """``map``, in order; where it asks a store, some requests ahead of what is taken."""
    return map(function, items) if isinstance(at, Path) else in_order(function, items, AHEAD)


def in_order(function: Callable[[_S], _T], items: Iterable[_S], ahead: int) -> Iterator[_T]:
    """``map`` by as many threads as items are worked on ahead."""
    waiting: deque[Future[_T]] = deque()
    pool = ThreadPoolExecutor(ahead)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
