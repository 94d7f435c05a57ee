"""Public weights on disk: which file an extractor needs, found in a folder, read without running its code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.torchscript import is_torchscript, read_torchscript
from models.clip import import_clip
from models.resnet import import_resnet18
from models.vggish import VGGish, import_vggish
from shards.errors import InputError

BuiltT = TypeVar("BuiltT")


@dataclass(frozen=True)
class PublicFile:
    """A published file: the names it may have, and where it comes from."""

    pattern: str
    source: str

    def find(self, folder: Path | None) -> Path:
        """The file in `folder`.

        Raises:
            InputError: no folder given, or not exactly one such file in it.
        """
        remedy = f"put {self.source} into a folder and give it with --weights"
        if folder is None:
            raise InputError(f"needs {self.pattern}, and no folder was given", field="weights", remedy=remedy)
        found = sorted(Path(folder).glob(self.pattern))
        if len(found) != 1:
            message = f"{len(found)} files named {self.pattern}, one is needed"
            raise InputError(message, file=folder, field="weights", remedy=remedy)
        return found[0]


VGGISH = PublicFile("vggish-*.pth", "vggish-10086976.pth (release v0.1 of harritaylor/torchvggish)")
VGGISH_PCA = PublicFile("vggish_pca_params*.npz", "AudioSet's vggish_pca_params.npz (storage.googleapis.com/audioset)")
RESNET18 = PublicFile("resnet18-*.pth", "torchvision's resnet18-f37072fd.pth (download.pytorch.org/models)")
CLIP = PublicFile("ViT-B-32*.pt", "OpenAI's ViT-B-32.pt (the address is in clip/clip.py of openai/CLIP)")


def load_vggish(folder: Path | None, pca: bool = False) -> VGGish:
    """VGGish of `folder`; `pca`: with the post-processing of AudioSet's release.

    Raises:
        InputError: a file is missing, unreadable or something else.
    """
    path = VGGISH.find(folder)
    parameters = _read(VGGISH_PCA.find(folder), _npz) if pca else None
    return _build(path, lambda state: import_vggish(state, parameters), VGGISH)


def load_resnet18(folder: Path | None) -> nn.Module:
    """ResNet-18 of `folder`, with 14x14 places.

    Raises:
        InputError: as above.
    """
    return _build(RESNET18.find(folder), import_resnet18, RESNET18)


def load_clip(folder: Path | None) -> Any:
    """CLIP ViT-B/32 of `folder`.

    Raises:
        InputError: as above.
    """
    return _build(CLIP.find(folder), import_clip, CLIP)


def _build(path: Path, build: Callable[[Mapping[str, Tensor]], BuiltT], file: PublicFile) -> BuiltT:
    try:
        return build(_read(path, read_state))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(error), file=path, field="weights", remedy=f"give {file.source}") from None


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except Exception as error:  # whatever a damaged file makes of the readers
        reason = str(error).partition("\n")[0]
        raise InputError(f"can't be read: {reason}", file=path, remedy="fetch the file again") from None


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Tensors by name: of safetensors, of a state dict, of a TorchScript archive (as OpenAI's files are), told
    by its content. No code of the file is run.

    Raises:
        Exception: whatever a damaged file makes of the readers; ValueError: no state dict.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_torchscript(path):
        return read_torchscript(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise ValueError(f"not a state dict but a {type(state).__name__}")
    return state


def _npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as values:
        return {name: torch.from_numpy(values[name]) for name in values.files}
