"""Config class of every recipe by its name; needs no torch until a recipe is trained."""

from __future__ import annotations

from models.registry import Registry
from trainers.config import TrainConfig

CONFIGS: Registry[type[TrainConfig]] = Registry(
    {
        "finetune": "trainers.config:FinetuneConfig",
        "prompt": "trainers.config:PromptConfig",
        "lora": "trainers.config:LoraConfig",
        "adapter": "trainers.config:AdapterConfig",
        "avqa": "trainers.avqa.config:AVQAConfig",
        "rmm": "trainers.avqa.config:RMMConfig",
        "avr": "trainers.avqa.config:AVRConfig",
    }
)
