"""GPUs of cloud machines by their names, for the check of a cluster's file: Amazon's, from its list of
accelerated computing instances. A machine that is not here is not judged."""

from __future__ import annotations

_ONE = dict.fromkeys(("xlarge", "2xlarge", "4xlarge", "8xlarge", "16xlarge"), 1)
_FOUR = {**_ONE, "12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
GPUS: dict[str, dict[str, int]] = {
    "g4dn": {**_ONE, "12xlarge": 4, "metal": 8},
    "g5": _FOUR,
    "g6": _FOUR,
    "g6e": _FOUR,
    "p3": {"2xlarge": 1, "8xlarge": 4, "16xlarge": 8},
    "p3dn": {"24xlarge": 8},
    "p4d": {"24xlarge": 8},
    "p4de": {"24xlarge": 8},
    "p5": {"4xlarge": 1, "48xlarge": 8},
    "p5e": {"48xlarge": 8},
    "p5en": {"48xlarge": 8},
}
GENERAL = ("c", "m", "r", "t")  # families without any: c7i, m6i, r8g, t3, ...


def gpus_of(machine: str) -> int | None:
    """GPUs of an instance type such as ``g6.2xlarge``; None where it is not known."""
    family, _, size = machine.partition(".")
    if family in GPUS:
        return GPUS[family].get(size)
    return 0 if len(family) > 1 and family[0] in GENERAL and family[1].isdigit() else None
