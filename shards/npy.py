"""``.npy`` bytes to and from arrays, without pickle and without ``np.load``'s 55 us a call."""

from __future__ import annotations

import ast
import io
from functools import lru_cache

import numpy as np

MAGIC = b"\x93NUMPY\x01\x00"
KINDS = "fiub"  # float, int, uint, bool: nothing that could hold an object


def npy_bytes(array: np.ndarray) -> bytes:
    """The array as the bytes of a version 1.0 ``.npy`` file (C order)."""
    if array.dtype.kind not in KINDS:
        raise ValueError(f"arrays of {array.dtype} are not stored")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def parse_npy(buffer: np.ndarray) -> np.ndarray:
    """The array that ``buffer`` (uint8 [bytes], the whole file) holds: a view of it, nothing is copied.

    Raises:
        ValueError: no ``.npy`` of plain numbers, or too short or too long for its header.
    """
    dtype, shape, start = array_layout(buffer, len(buffer))
    return buffer[start:].view(dtype).reshape(shape)


def array_layout(buffer: np.ndarray, size: int) -> tuple[np.dtype, tuple[int, ...], int]:
    """Element type, shape, and the byte at which the array begins.

    Args:
        buffer: the beginning of the file (uint8 [bytes]), with all of its header.
        size: bytes of the whole file.

    Raises:
        ValueError: as `parse_npy`.
    """
    start = header_length(buffer)
    dtype, shape, wanted = _parse_header(buffer[10:start].tobytes())
    if size - start != wanted:
        raise ValueError(f"{size - start} bytes of data, the header says {wanted}")
    return dtype, shape, start


def header_length(buffer: np.ndarray) -> int:
    """Bytes before the array's own, from the first ten.

    Raises:
        ValueError: no version 1.0 ``.npy``.
    """
    prefix = buffer[:10].tobytes()
    if len(prefix) < 10 or prefix[:8] != MAGIC:
        raise ValueError("not a version 1.0 .npy file")
    return 10 + int.from_bytes(prefix[8:10], "little")


@lru_cache(maxsize=4096)
def _parse_header(header: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    try:
        fields = ast.literal_eval(header.decode("latin1"))
        descr, order, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        raise ValueError("unreadable .npy header") from None
    if not isinstance(descr, str) or order is not False or not isinstance(shape, tuple):
        raise ValueError("only plain C-order arrays are read")
    dtype = np.dtype(descr)
    if dtype.kind not in KINDS or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"arrays of {descr} are not read")
    size = dtype.itemsize
    for n in shape:
        size *= n
    return dtype, shape, size
