"""A backbone with what belongs to it: labels, input sizes, normalisation, fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.cavmae import CAVMAE
from models.inputs import Normalisation
from models.sequence import Sound
from models.settings import BackboneConfig

DENSE_HEADS = "dense."  # weights that a dense checkpoint holds besides the network's


@dataclass(frozen=True)
class Backbone:
    """A classifier and everything that is needed to feed it.

    Attributes:
        net: the network.
        labels: class names in the order of the logits.
        normalisation: of its inputs.
        fingerprint: sha256 of weights and sizes, "" for a fresh one.
        loss: "ce", or "bce" of a head whose logits are independent (clips with several labels).
        sound: what sequence features take of a step's sound tokens, see `models.sequence`.
        dense: it learnt densely, for sequence features; its joint encoder and head did not.
    """

    net: CAVMAE
    labels: tuple[str, ...]
    normalisation: Normalisation
    fingerprint: str = ""
    loss: Literal["ce", "bce"] = "ce"
    sound: Sound = "mean"
    dense: bool = False

    def meta(self) -> dict:
        """What a checkpoint must say besides the weights; `from_checkpoint` reads it."""
        usual = {"loss": "ce", "sound": "mean", "dense": False}
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
        weights = {name: x for name, x in weights.items() if not name.startswith(DENSE_HEADS)}
        try:
            net.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"weights do not fit the backbone's sizes: {error}") from None
        normalisation = Normalisation.from_dict(meta["normalisation"])
        sound = meta.get("sound", "mean")
        layout = {"sound": sound} if sound != "mean" else {}
        fingerprint = weights_fingerprint(weights, meta["backbone"] | layout)
        loss, dense = meta.get("loss", "ce"), meta.get("dense", False)
        return cls(net, tuple(meta["labels"]), normalisation, fingerprint, loss, sound, dense)


def weights_fingerprint(weights: dict[str, Tensor], config: dict) -> str:
    """sha256 over the config's canonical json and each tensor's name, dtype, shape and bytes, by name."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
