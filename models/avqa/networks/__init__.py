"""The networks: AVST, AVSD, Pano-AVQA (LAViT), PSTP-Net; one file each."""
