"""``.npy`` bytes to and from arrays, without pickle and without ``np.load``'s 55 us a call."""

from __future__ import annotations

import ast
import io
import math
import re
from functools import lru_cache

import numpy as np

MAGIC = b"\x93NUMPY\x01\x00"
DESCR = re.compile(r"<f[248]|<[iu][248]|\|[iub]1")  # plain little-endian numbers, nothing that holds an object
LONGEST = 1 << 48  # of an axis: beyond any file


def npy_bytes(array: np.ndarray) -> bytes:
    """The array as the bytes of a version 1.0 ``.npy`` file (C order)."""
    return b"".join(npy_parts(array))


def npy_parts(array: np.ndarray) -> tuple[bytes, memoryview]:
    """The same as header and data; the data are the array's own memory where it is little-endian and in C order."""
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    if not DESCR.fullmatch(array.dtype.str):
        raise ValueError(f"arrays of {array.dtype} are not stored")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue(), array.reshape(-1).view(np.uint8).data


def array_layout(buffer: np.ndarray, size: int) -> tuple[np.dtype, tuple[int, ...], int]:
    """Element type, shape, and the byte at which the array begins.

    Args:
        buffer: the beginning of the file (uint8 [bytes]), with all of its header.
        size: bytes of the whole file.

    Raises:
        ValueError: no ``.npy`` of plain numbers, or too short or too long for its header.
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
    if not DESCR.fullmatch(descr):
        raise ValueError(f"arrays of {descr} are not read")
    if len(shape) > 32 or not all(type(n) is int and 0 <= n < LONGEST for n in shape):
        raise ValueError(f"arrays of shape {shape} are not read")
    dtype = np.dtype(descr)
    return dtype, shape, math.prod(shape) * dtype.itemsize
