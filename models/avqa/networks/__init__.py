"""The networks: AVST, AVSD, Pano-AVQA (LAViT), PSTP-Net; one file each."""

from models.avqa.networks.avsd import AVSD
from models.avqa.networks.avst import AVST
from models.avqa.networks.lavit import LAViT
from models.avqa.networks.pstp import PSTPNet

NETWORKS: dict[str, type] = {"avst": AVST, "avsd": AVSD, "lavit": LAViT, "pstp": PSTPNet}
