"""Test-time adaptation: what changes a trained network on the unlabelled samples it is tested on; one file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.registry import Registry

if TYPE_CHECKING:
    from models.adaptation.contract import Adaptation

ADAPTATIONS: Registry[type[Adaptation]] = Registry(
    "test-time adaptation",
    {
        "read": "models.adaptation.read:READ",
        "tent": "models.adaptation.tent:Tent",
        "prompts": "models.adaptation.prompts:READPrompts",
    },
)
