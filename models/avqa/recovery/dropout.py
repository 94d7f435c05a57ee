"""Modality dropout: zero fill by a network that has met the missing cases in training."""

from __future__ import annotations

from models.avqa.recovery.zero import ZeroFill


class ModalityDropout(ZeroFill):
    """Zeros (the mean of the training data) where a modality is absent, like `zero`.

    The difference is in training, and ours: Eq. 8's three cross-entropies (complete, without sound, without
    picture), as RMM and AVR have them. So it is the baseline that says whether recalling a modality adds
    anything to having met its absence. Dropping modalities in training is as old as ModDrop (Neverova et al.,
    PAMI 2016), which draws the case of each sample; here each sample is seen in all three, or, with
    `alternate_missing`, in two.
    """
