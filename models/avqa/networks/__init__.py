"""The networks: AVST (with missing-aware prompts, too), AVSD, Pano-AVQA (LAViT), PSTP-Net; one file each."""

from models.avqa.contract import Network
from models.avqa.networks.avsd import AVSD
from models.avqa.networks.avst import AVST
from models.avqa.networks.avst_prompts import PromptedAVST
from models.avqa.networks.lavit import LAViT
from models.avqa.networks.pstp import PSTPNet
from models.registry import Registry

NETWORKS: Registry[type[Network]] = Registry(
    "network", {"avst": AVST, "avsd": AVSD, "lavit": LAViT, "pstp": PSTPNet, "avst_prompts": PromptedAVST}
)
