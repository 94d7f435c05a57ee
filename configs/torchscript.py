"""Tensors of a TorchScript archive, read without its code: ``torch.jit.load`` would run what the archive's
classes define (``__setstate__``), which is whatever the file's author likes."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_SCALARS = {  # storage classes by their dtype
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}


class _Module:
    """An object of a class that the archive defines, as the attributes that were saved; none of its code."""

    def __setstate__(self, attributes: Any) -> None:
        if not isinstance(attributes, dict):
            raise pickle.UnpicklingError("a class of the archive restores itself by code, which is not run")
        self.attributes = attributes


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """All tensors of the archive's modules, by their dotted names, on the CPU.

    Raises:
        pickle.UnpicklingError: it names anything but modules of its own, tensors and plain values.
        ValueError: damaged.
    """
    with zipfile.ZipFile(path) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
        with archive.open(member) as file:
            top = _Unpickler(file, archive, member.removesuffix(".pkl")).load()
    return dict(_tensors(top))


def _tensors(module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in module.attributes.items() if isinstance(module, _Module) else ():
        if isinstance(value, Tensor):
            yield prefix + name, value
        else:
            yield from _tensors(value, f"{prefix}{name}.")


class _Unpickler(pickle.Unpickler):
    """A pickle's plain values; of names only those that `find_class` knows."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str):
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        """Stands for a class or function of the pickle.

        Raises:
            pickle.UnpicklingError: one that is not needed for tensors.
        """
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _SCALARS:
            return _SCALARS[name]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _view,
            ("collections", "OrderedDict"): dict,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, tag: value,
        }
        known |= {("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "double", "bool", "tensor")}
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"names {module}.{name}, which is no part of a tensor")
        return known[module, name]

    def persistent_load(self, key: Any) -> Tensor:
        """A storage, as a flat tensor."""
        kind, dtype, name, _, count = key
        member = self._archive.getinfo(f"{self._folder}/{name}")
        size = torch.empty(0, dtype=dtype).element_size()
        if kind != "storage" or (member.compress_type, member.file_size) != (zipfile.ZIP_STORED, count * size):
            raise pickle.UnpicklingError(f"{member.filename} is not {count} numbers of {dtype}")
        return torch.frombuffer(bytearray(self._archive.read(member)), dtype=dtype) if count else torch.empty(0)


def _view(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor of a storage; out of its bounds is refused by torch."""
    return flat.as_strided(tuple(size), tuple(stride), offset)
