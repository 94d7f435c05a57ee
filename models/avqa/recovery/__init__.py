"""What stands in for a missing modality: one file each, one line in `RECOVERIES`."""

from __future__ import annotations

from models.avqa.contract import Recovery
from models.avqa.recovery.actionmae import ActionMAE
from models.avqa.recovery.avr import AVR
from models.avqa.recovery.both import RMMAVR
from models.avqa.recovery.dropout import ModalityDropout
from models.avqa.recovery.masking import Masking
from models.avqa.recovery.retrieval import Retrieval
from models.avqa.recovery.rmm import RMM
from models.avqa.recovery.shaspec import ShaSpec
from models.avqa.recovery.zero import ZeroFill
from models.registry import Registry

RECOVERIES: Registry[type[Recovery]] = Registry(
    "recovery method",
    {
        "zero": ZeroFill,
        "rmm": RMM,
        "avr": AVR,
        "rmm_avr": RMMAVR,
        "dropout": ModalityDropout,
        "masking": Masking,
        "retrieval": Retrieval,
        "shaspec": ShaSpec,
        "actionmae": ActionMAE,
    },
)
