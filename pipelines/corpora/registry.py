"""Registry of the corpora: the command line, presets, studies and sweeps name a corpus by its key here."""

from __future__ import annotations

import difflib
import importlib
import os
from typing import Any

from pipelines.corpora.corpus import Corpus
from pipelines.corpora.public import (
    avdigits,
    avqa,
    cavmae_json,
    folders,
    music_avqa,
    music_avqa_r,
    music_avqa_v2,
    vggsound_csv,
    vggsounder,
)
from pipelines.corpora.synthetic import ensemble_corpus, ensembles_2, scenes, solos
from shards.errors import InputError

PLUGINS = "AVMEND_PLUGINS"  # environment variable: modules that register more, separated by commas

CORPORA: dict[str, Corpus[Any]] = {
    "scenes": Corpus(scenes.ScenesConfig, scenes.build),
    "ensembles": Corpus(ensemble_corpus.EnsemblesConfig, ensemble_corpus.build, asks=True),
    "ensembles-2": Corpus(ensembles_2.Ensembles2Config, ensembles_2.build, asks=True),
    "solos": Corpus(solos.SolosConfig, solos.build),
    "music_avqa": Corpus(music_avqa.MusicAvqaConfig, music_avqa.build, ("official", "disjoint"), asks=True),
    "music_avqa_v2": Corpus(music_avqa_v2.MusicAvqaV2Config, music_avqa_v2.build, ("official", "disjoint"), asks=True),
    "music_avqa_r": Corpus(music_avqa_r.MusicAvqaRConfig, music_avqa_r.build, ("official", "head", "tail"), asks=True),
    "avqa": Corpus(avqa.AvqaConfig, avqa.build, ("official",), asks=True),
    "avdigits": Corpus(avdigits.AvdigitsConfig, avdigits.build, ("official", "speakers")),
    "urbansound8k-av": folders.corpus("urbansound8k-av"),
    "cifar10-av": folders.corpus("cifar10-av"),
    "cavmae-json": Corpus(cavmae_json.CavmaeJsonConfig, cavmae_json.build),
    "vggsounder": Corpus(vggsounder.VggsounderConfig, vggsounder.build),
    "vggsound-csv": Corpus(vggsound_csv.VggsoundCsvConfig, vggsound_csv.build),
}


def register(name: str, corpus: Corpus[Any]) -> None:
    """Add a corpus, from a plugin module.

    Raises:
        ValueError: another corpus has this name.
    """
    if CORPORA.setdefault(name, corpus) is not corpus:
        raise ValueError(f"there is a corpus '{name}' already")


def corpora() -> dict[str, Corpus[Any]]:
    """All corpora by name, those of plugins too.

    Raises:
        InputError: a plugin can't be imported.
    """
    load_plugins()
    return CORPORA


def find_corpus(name: str) -> Corpus[Any]:
    """The corpus of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    known = corpora()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise InputError(f"unknown corpus '{name}'", remedy=f"{hint}choose from: {', '.join(known)}")


def load_plugins() -> None:
    """Import the modules that the environment variable names; each registers what it brings.

    Raises:
        InputError: one of them can't be imported.
    """
    for module in filter(None, (part.strip() for part in os.environ.get(PLUGINS, "").split(","))):
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a module of somebody else's does
            reason = str(error).partition("\n")[0]
            remedy = f"correct {PLUGINS}, or put the module on PYTHONPATH"
            raise InputError(f"plugin '{module}': {reason}", field=PLUGINS, remedy=remedy) from error
