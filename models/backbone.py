"""A backbone with what belongs to it: labels, input sizes, normalisation, fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.cavmae import CAVMAE
from models.inputs import Normalisation
from models.sequence import band_mixture
from models.settings import BackboneConfig

DENSE = "dense."  # weights of a dense checkpoint beside the network's: its mixture of bands, and its heads
BANDS = f"{DENSE}bands."


@dataclass(frozen=True)
class Backbone:
    """A classifier and everything that is needed to feed it.

    Attributes:
        net: the network.
        labels: class names in the order of the logits.
        normalisation: of its inputs.
        fingerprint: sha256 of weights and sizes, "" for a fresh one.
        loss: "ce", or "bce" of a head whose logits are independent (clips with several labels).
        bands: of one that learnt densely, for sequence features: its mixture of bands, see `models.sequence`. Its joint
            encoder and head did not learn with it.
    """

    net: CAVMAE
    labels: tuple[str, ...]
    normalisation: Normalisation
    fingerprint: str = ""
    loss: Literal["ce", "bce"] = "ce"
    bands: nn.Linear | None = None

    @property
    def dense(self) -> bool:
        """It learnt densely."""
        return self.bands is not None

    def meta(self) -> dict:
        """What a checkpoint must say besides the weights; `from_checkpoint` reads it."""
        usual = {"loss": "ce", "dense": False}
        return {
            "kind": "backbone",
            "backbone": self.net.config.as_dict(),
            "labels": list(self.labels),
            "normalisation": self.normalisation.as_dict(),
        } | {name: value for name in usual if (value := getattr(self, name)) != usual[name]}

    @classmethod
    def from_checkpoint(cls, weights: dict[str, Tensor], meta: dict) -> Backbone:
        """Build the network of a checkpoint of kind "backbone" and load its weights.

        Raises:
            ValueError: the weights do not fit the sizes in `meta`.
        """
        net = CAVMAE(BackboneConfig(**meta["backbone"]), len(meta["labels"]))
        bands = band_mixture(net.config.dim) if meta.get("dense") else None
        own = {name: x for name, x in weights.items() if not name.startswith(DENSE)}
        mixture = {name: x for name, x in weights.items() if name.startswith(BANDS)}
        try:
            net.load_state_dict(own)
            if bands is not None:
                bands.load_state_dict({name.removeprefix(BANDS): x for name, x in mixture.items()})
        except RuntimeError as error:
            raise ValueError(f"weights do not fit the backbone's sizes: {error}") from None
        normalisation = Normalisation.from_dict(meta["normalisation"])
        fingerprint = weights_fingerprint(own | mixture, meta["backbone"])
        return cls(net, tuple(meta["labels"]), normalisation, fingerprint, meta.get("loss", "ce"), bands)


def weights_fingerprint(weights: dict[str, Tensor], config: dict) -> str:
    """sha256 over the config's canonical json and each tensor's name, dtype, shape and bytes, by name."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
