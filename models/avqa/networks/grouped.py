"""Attending around what is absent: samples in groups by the modalities that they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from models.avqa.contract import Losses
from models.host import take
from models.modality import groups
from models.settings import MODALITIES


class GroupedNetwork(nn.Module):
    """A network that answers each group of samples from the modalities that the group has.

    A subclass writes `respond`, for samples that all have the same modalities; what they lack is None there,
    so it can't be read. It is CAV-MAE's bypass (`models.cavmae`): an absent modality is never computed.
    """

    loss_names: ClassVar[Mapping[str, float]] = {}
    takes_negatives: ClassVar[bool] = False

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        present: Tensor,
        question: Tensor,
        negative: Tensor | None = None,
        **taught: Tensor,
    ) -> tuple[Tensor, Losses]:
        """Logits [B, A] and the network's own losses [B], 0 for samples that have none.

        Args:
            audio: [B, T, Da].
            visual, negative: [B, T, rows, Dv].
            present: bool [B, 2]; rows of an absent modality are not read.
            question: int64 [B, L], 0 pads.
            taught: `answer` [B], for a network that takes it.

        Raises:
            ValueError: a sample has neither modality.
        """
        out: dict[str, Tensor] = {}
        for there, rows in groups(present):
            heard, seen = (
                take(x, rows) if m in there else None for m, x in zip(MODALITIES, (audio, visual), strict=True)
            )
            drawn = None if negative is None else take(negative, rows)
            more = {name: take(x, rows) for name, x in taught.items()}
            logits, losses = self.respond(heard, seen, take(question, rows), drawn, **more)
            if len(rows) == len(present):
                return logits, losses
            for name, part in {"": logits, **losses}.items():
                whole = out.get(name, part.new_zeros(len(present), *part.shape[1:]))
                out[name] = whole.index_copy(0, rows, part)
        return out.pop(""), out

    def respond(
        self, audio: Tensor | None, visual: Tensor | None, question: Tensor, negative: Tensor | None
    ) -> tuple[Tensor, Losses]:
        """Logits [R, A] and losses [R] of samples that have the same modalities; None is absent, one of the
        two is not."""
        raise NotImplementedError
