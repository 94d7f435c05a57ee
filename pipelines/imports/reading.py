"""One clip's array from a ``.npy`` file or a row of an HDF5 file: plain numbers alone, never a pickle."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipelines.causes import DecodeError
from pipelines.imports.layout import Entry
from shards.causes import Cause
from shards.errors import InputError

MAX_HEADER = 10_000  # bytes, numpy's own limit
AGAIN = "download or extract the file again"
PLAIN = "save it again as an array of floats (numpy.save(path, array.astype('float32')))"
MACHINE = {errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ESTALE}


class ArrayReader:
    """Reads the arrays of a source; HDF5 files stay open until it is closed. Memory is used again: an array holds until
    the next of the same name is read.

    Args:
        source: folder that the entries' files are relative to.
    """

    def __init__(self, source: Path):
        self.source = source
        self._open: dict[tuple[str, str], tuple[Any, Any]] = {}  # (file, dataset) -> both, open
        self._rooms: dict[str, np.ndarray] = {}

    def __enter__(self) -> ArrayReader:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1][0].close()

    def read(self, entry: Entry, name: str) -> np.ndarray:
        """The array of an entry, as stored.

        Args:
            name: of the part; the dataset within an HDF5 file.

        Raises:
            DecodeError: missing, cut short, no array of floats; says what to do.
            InputError: an HDF5 file that is no longer what it was.
            OSError: the machine is at fault.
        """
        if entry.row is not None:
            return self._row(entry.file, name, entry.row)
        try:
            with (self.source / entry.file).open("rb", buffering=0) as file:
                return _read_npy(file, lambda size: self._room(name, size))
        except OSError as error:
            if error.errno in MACHINE:
                raise
            raise DecodeError(Cause.MISSING_FILE, f"can't be opened: {error.strerror}", AGAIN) from None

    def ahead(self, entry: Entry) -> None:
        """Have the system begin to read a ``.npy`` file; nothing where it can't."""
        if entry.row is not None or not hasattr(os, "posix_fadvise"):
            return
        try:
            descriptor = os.open(self.source / entry.file, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)

    def _room(self, name: str, size: int) -> np.ndarray:
        """Memory for so many bytes."""
        if name not in self._rooms or len(self._rooms[name]) != size:
            self._rooms[name] = np.empty(size, np.uint8)
        return self._rooms[name]

    def _row(self, file: str, name: str, row: int) -> np.ndarray:
        if (file, name) not in self._open:
            path = self.source / file
            opened = open_hdf5(path)
            self._open[file, name] = opened, checked_dataset(opened, name, path)
        try:
            return self._open[file, name][1][row]
        except (OSError, IndexError, ValueError) as error:
            message = f"row {row} can't be read: {str(error)[:200]}"
            raise DecodeError(Cause.TRUNCATED, message, AGAIN) from None


def npy_shape(path: Path) -> tuple[int, ...] | None:
    """Shape of a ``.npy`` file from its header; None where it can't be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return _header(file)[0]
    except (OSError, DecodeError):
        return None


def _read_npy(file: Any, room: Callable[[int], np.ndarray]) -> np.ndarray:
    shape, fortran, dtype = _header(file)
    begin, size = file.tell(), os.fstat(file.fileno()).st_size
    wanted = math.prod(shape) * dtype.itemsize
    if size - begin != wanted:
        what = "cut short" if size - begin < wanted else "longer than its header says"
        message = f"{what}: {size - begin} bytes of data, the header says {wanted}"
        raise DecodeError(Cause.TRUNCATED, message, AGAIN)
    values, got = room(wanted), 0
    while got < wanted:
        if not (more := file.readinto(values[got:])):
            raise DecodeError(Cause.TRUNCATED, f"ends after {got} of {wanted} bytes", AGAIN)
        got += more
    return values.view(dtype).reshape(shape, order="F" if fortran else "C")


def _header(file: BinaryIO | Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=MAX_HEADER)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, EOFError) as error:
        said = str(error).partition("\n")[0][:200]
        raise DecodeError(Cause.UNDECODABLE, f"no .npy of numbers: {said}", AGAIN) from None
    if dtype.hasobject:
        raise DecodeError(Cause.UNDECODABLE, "holds pickled objects, which are never loaded", PLAIN)
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise DecodeError(Cause.WRONG_ARRAY, f"holds {dtype}, not floats", PLAIN)
    return shape, fortran, dtype


def open_hdf5(path: Path) -> Any:
    """An HDF5 file, open for reading.

    Raises:
        InputError: h5py is not installed; not there, or no such file.
    """
    try:
        import h5py
    except ImportError:
        remedy = "install the extra 'hdf5': pip install 'avmend[hdf5]'"
        raise InputError("HDF5 files need h5py, which is not installed", file=path, remedy=remedy) from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        message = f"can't be read as HDF5: {str(error)[:200]}"
        raise InputError(message, file=path, remedy="download it again, and check its size") from None


def checked_dataset(file: Any, name: str, path: Path) -> Any:
    """A dataset of plain numbers that lies in the file itself.

    Raises:
        InputError: there is none of that name, or its values lie in another file, or are no plain numbers.
    """
    import h5py

    link = file.get(name, getlink=True)
    found = file.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset):
        there = ", ".join(sorted(file)[:10]) or "nothing"
        raise InputError(f"has no dataset '{name}'", file=path, field=name, remedy=f"it holds: {there}")
    if found.is_virtual or found.external:
        message = f"'{name}' takes its values from other files"
        raise InputError(message, file=path, field=name, remedy="copy the values into one file (h5repack)")
    if found.dtype.kind not in "iuf":
        raise InputError(f"'{name}' holds {found.dtype}, not numbers", file=path, field=name, remedy=PLAIN)
    return found
