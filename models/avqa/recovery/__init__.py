"""What stands in for a missing modality: zero fill, RMM, AVR; one file each, one line in `RECOVERIES`."""

from __future__ import annotations

from models.avqa.contract import Recovery
from models.avqa.recovery.avr import AVR
from models.avqa.recovery.both import RMMAVR
from models.avqa.recovery.rmm import RMM
from models.avqa.recovery.zero import ZeroFill
from models.registry import Registry

RECOVERIES: Registry[type[Recovery]] = Registry(
    "recovery method", {"zero": ZeroFill, "rmm": RMM, "avr": AVR, "rmm_avr": RMMAVR}
)
