"""Registry of the layouts: one file each."""

from __future__ import annotations

from models.registry import Registry
from pipelines.imports.layout import Layout

LAYOUTS: Registry[Layout] = Registry(
    "layout",
    {
        "music-avqa": "pipelines.imports.layouts.music_avqa:LAYOUT",
        "pstp": "pipelines.imports.layouts.pstp:LAYOUT",
        "avqa-hdf5": "pipelines.imports.layouts.avqa_hdf5:LAYOUT",
        "plain": "pipelines.imports.layouts.plain:LAYOUT",
    },
)
