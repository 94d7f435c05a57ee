"""One clip's arrays as its member of a shard: places side by side, checked for what no feature is.

Shapes: T rows, P places of all parts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.causes import DecodeError
from pipelines.imports.layout import AXES, Part
from pipelines.running_stats import Moments
from shards.causes import Cause

HALF = float(torch.finfo(torch.float16).max)


@dataclass(frozen=True)
class Converted:
    """A member of a sample.

    Attributes:
        array: float16 or float32, [T, P, D].
        moments: of every channel.
        zero_rows: rows that hold nothing but zeros, in any of the parts.
        fitted: rows that the arrays had, where these were cut or the last one was repeated.
    """

    array: np.ndarray
    moments: Moments
    zero_rows: tuple[int, ...]
    fitted: int | None


def convert(
    parts: Sequence[tuple[Part, np.ndarray]],
    rows: int,
    dtype: str,
    fit: bool = False,
    room: np.ndarray | None = None,
) -> Converted:
    """A member from the arrays of its parts.

    Args:
        rows: T.
        dtype: "float16" or "float32".
        fit: cut a longer array, repeat the last row of a shorter one.
        room: an array of this result's shape and dtype, to be filled.

    Raises:
        DecodeError: wrong shape, NaN or infinity, or values that the dtype can't hold; names the part.
    """
    width = parts[0][0].width
    shape = (rows, sum(part.places for part, _ in parts), width)
    out = torch.from_numpy(room if room is not None and room.shape == shape else np.empty(shape, dtype))
    total, squares = np.zeros(width), np.zeros(width)
    zeros: set[int] = set()
    fitted, place = None, 0
    for part, array in parts:
        if (there := _checked_shape(part, array, rows, fit)) != rows:
            fitted = there
        view = _view(part, array, rows)  # [<= T, P, D]
        sums, norms = _finite(part, view)
        if dtype == "float16":
            _check_half(part, view, norms)
        target = out[:, place : place + part.places]
        target[: len(view)].copy_(view)
        target[len(view) :].copy_(target[len(view) - 1])
        again = np.ones(len(view))
        again[-1] += rows - len(view)  # the last row counts as often as it is repeated
        total += again @ sums
        squares += again @ np.square(norms)
        zeros |= {row for row in np.flatnonzero(~norms.any(axis=1)).tolist() if not view[row].any()}
        place += part.places
    count = rows * out.shape[1]
    moments = Moments(samples=1, count=count, total=tuple(total.tolist()), squares=tuple(squares.tolist()))
    return Converted(out.numpy(), moments, tuple(sorted(zeros)), fitted)


def _checked_shape(part: Part, array: np.ndarray, rows: int, fit: bool) -> int:
    """Rows that the array has."""
    if part.form == "clip":
        fine, there = array.shape == part.shape, rows
    else:
        fine = array.ndim == AXES[part.form] and array.shape[1:] == part.shape[1:] and len(array) > 0
        there = len(array) if array.ndim else 0
        fine = fine and (fit or there == rows)
    if fine:
        return there
    wanted = list(part.shape)
    other_rows = array.ndim == len(wanted) and array.shape[1:] == part.shape[1:] and len(array) > 0
    remedy = (
        "cut or pad it with length=fit" if other_rows else "extract it again, or give the layout that has this shape"
    )
    raise DecodeError(Cause.WRONG_ARRAY, f"'{part.name}' is {list(array.shape)}, not {wanted}", remedy)


def _view(part: Part, array: np.ndarray, rows: int) -> Tensor:
    """The array as [T, P, D], without a copy where it is float16 or float32 in this machine's order."""
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if part.form == "clip":
        return torch.from_numpy(native).expand(rows, 1, -1)
    x = torch.from_numpy(native[:rows])
    if part.form == "maps":
        return x.flatten(2).transpose(1, 2)
    return x[:, None] if part.form == "rows" else x


def _finite(part: Part, view: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Sums and Euclidean norms over places, float64 [T, D]; both are finite where every value is."""
    values = view.float() if view.dtype == torch.float16 else view
    sums, norms = values.sum(dim=1).double().numpy(), torch.linalg.vector_norm(values, dim=1).double().numpy()
    if np.isfinite(sums).all() and np.isfinite(norms).all():
        return sums, norms
    wrong = ~view.isfinite()
    if not wrong.any():  # it was the sum that float32 can't hold
        wide = view.double()
        return wide.sum(dim=1).numpy(), torch.linalg.vector_norm(wide, dim=1).numpy()
    rows = torch.nonzero(wrong.flatten(1).any(dim=1)).flatten().tolist()
    message = f"'{part.name}' has {int(wrong.sum())} values that are NaN or infinite, in rows {_some(rows)}"
    raise DecodeError(Cause.NOT_FINITE, message, "extract the clip again")


def _check_half(part: Part, view: Tensor, norms: np.ndarray) -> None:
    if norms.max() > HALF and (peak := float(view.abs().max())) > HALF:
        message = f"'{part.name}' reaches {peak:g}, float16 ends at {HALF:g}"
        raise DecodeError(Cause.TOO_LARGE, message, "import with dtype=float32, or look at how it was extracted")


def _some(rows: Sequence[int]) -> str:
    """The first of them."""
    return ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
