"""The networks: AVST (with prompts, with DrFuse, with released RMM and AVR), AVSD, Pano-AVQA (LAViT), PSTP-Net; a file
each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.registry import Registry

if TYPE_CHECKING:
    from models.avqa.contract import Network

NETWORKS: Registry[type[Network]] = Registry(
    "network",
    {
        "avst": "models.avqa.networks.avst:AVST",
        "avsd": "models.avqa.networks.avsd:AVSD",
        "lavit": "models.avqa.networks.lavit:LAViT",
        "pstp": "models.avqa.networks.pstp:PSTPNet",
        "avst_prompts": "models.avqa.networks.avst_prompts:PromptedAVST",
        "avst_drfuse": "models.avqa.networks.avst_drfuse:DrFuseAVST",
        "missing_avqa": "models.avqa.networks.missing_avqa:MissingAVQA",
    },
)
