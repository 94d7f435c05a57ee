"""A backbone with what belongs to it: labels, input sizes, normalisation, fingerprint."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from models.cavmae import CAVMAE, BackboneConfig
from models.inputs import Normalisation


@dataclass(frozen=True)
class Backbone:
    """A classifier and everything that is needed to feed it.

    Attributes:
        net: the network.
        labels: class names in the order of the logits.
        normalisation: of its inputs.
        fingerprint: sha256 of weights and sizes, "" for a fresh one.
    """

    net: CAVMAE
    labels: tuple[str, ...]
    normalisation: Normalisation
    fingerprint: str = ""

    def meta(self) -> dict:
        """What a checkpoint must say besides the weights; `from_checkpoint` reads it."""
        return {
            "kind": "backbone",
            "backbone": self.net.config.as_dict(),
            "labels": list(self.labels),
            "normalisation": self.normalisation.as_dict(),
        }

    @classmethod
    def from_checkpoint(cls, weights: dict[str, Tensor], meta: dict, fingerprint: str) -> Backbone:
        """Build the network and load its weights.

        Raises:
            ValueError: this is no checkpoint of a backbone, or the weights do not fit its sizes.
        """
        if meta.get("kind") != "backbone":
            raise ValueError(f"holds {meta.get('kind', 'something else')}, not a backbone")
        net = CAVMAE(BackboneConfig(**meta["backbone"]), len(meta["labels"]))
        try:
            net.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"weights do not fit the backbone's sizes: {error}") from None
        return cls(net, tuple(meta["labels"]), Normalisation.from_dict(meta["normalisation"]), fingerprint)
