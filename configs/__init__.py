"""Typed, frozen configs; presets as YAML files beside this one; overrides as ``key.sub=value``."""

from configs.loading import Config, config_hash, config_to_dict, digest, load_config
from configs.presets import PRESET_FOLDER, preset_names, read_preset

__all__ = [
    "PRESET_FOLDER",
    "Config",
    "config_hash",
    "config_to_dict",
    "digest",
    "load_config",
    "preset_names",
    "read_preset",
]
