"""What stands between the encoders of a CAV-MAE and its answer: one file each, one line in `FUSIONS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.registry import Registry

if TYPE_CHECKING:
    from models.fusion.contract import Fusion

FUSIONS: Registry[type[Fusion]] = Registry(
    "fusion method",
    {
        "dropout": "models.fusion.dropout:ModalityDropout",
        "masking": "models.fusion.masking:Masking",
        "shaspec": "models.fusion.shaspec:ShaSpec",
        "actionmae": "models.fusion.actionmae:ActionMAE",
        "drfuse": "models.fusion.drfuse:DrFuse",
    },
)
