"""What stands in for a missing modality: one file each, one line in `RECOVERIES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.registry import Registry

if TYPE_CHECKING:
    from models.avqa.contract import Recovery

RECOVERIES: Registry[type[Recovery]] = Registry(
    "recovery method",
    {
        "zero": "models.avqa.recovery.zero:ZeroFill",
        "rmm": "models.avqa.recovery.rmm:RMM",
        "avr": "models.avqa.recovery.avr:AVR",
        "avr_released": "models.avqa.recovery.avr_released:ReleasedAVR",
        "rmm_avr": "models.avqa.recovery.both:RMMAVR",
        "dropout": "models.avqa.recovery.dropout:ModalityDropout",
        "masking": "models.avqa.recovery.masking:Masking",
        "retrieval": "models.avqa.recovery.retrieval:Retrieval",
        "shaspec": "models.avqa.recovery.shaspec:ShaSpec",
        "actionmae": "models.avqa.recovery.actionmae:ActionMAE",
    },
)
