"""Registry of the corpora: the command line, presets, studies and sweeps name a corpus by its key here."""

from __future__ import annotations

from typing import Any

from models.registry import VARIABLE, PluginError, Registry
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
from pipelines.corpora.synthetic import ensemble_corpus, ensembles, ensembles_2, scenes, scenes_multi, solos
from shards.errors import InputError, nearest

CORPORA: Registry[Corpus[Any]] = Registry(
    "corpus",
    {
        "scenes": Corpus(scenes.ScenesConfig, scenes.build),
        "scenes-multi": Corpus(scenes_multi.ScenesMultiConfig, scenes_multi.build),
        "ensembles": Corpus(ensembles.EnsemblesConfig, ensemble_corpus.build, asks=True, dense=True),
        "ensembles-2": Corpus(ensembles_2.Ensembles2Config, ensembles_2.build, asks=True, dense=True),
        "solos": Corpus(solos.SolosConfig, solos.build),
        "music_avqa": Corpus(music_avqa.MusicAvqaConfig, music_avqa.build, ("official", "disjoint"), asks=True),
        "music_avqa_v2": Corpus(
            music_avqa_v2.MusicAvqaV2Config, music_avqa_v2.build, ("official", "disjoint"), asks=True
        ),
        "music_avqa_r": Corpus(
            music_avqa_r.MusicAvqaRConfig, music_avqa_r.build, ("official", "head", "tail"), asks=True
        ),
        "avqa": Corpus(avqa.AvqaConfig, avqa.build, ("official",), asks=True),
        "avdigits": Corpus(avdigits.AvdigitsConfig, avdigits.build, ("official", "speakers")),
        "urbansound8k-av": folders.corpus("urbansound8k-av"),
        "cifar10-av": folders.corpus("cifar10-av"),
        "cavmae-json": Corpus(cavmae_json.CavmaeJsonConfig, cavmae_json.build),
        "vggsounder": Corpus(vggsounder.VggsounderConfig, vggsounder.build),
        "vggsound-csv": Corpus(vggsound_csv.VggsoundCsvConfig, vggsound_csv.build),
    },
)


def corpora() -> dict[str, Corpus[Any]]:
    """All corpora by name, those of plugins too.

    Raises:
        InputError: a plugin can't be imported.
    """
    try:
        return dict(CORPORA)
    except PluginError as error:
        remedy = f"correct {VARIABLE}, or put the module on PYTHONPATH"
        raise InputError(str(error), field=VARIABLE, remedy=remedy) from error


def find_corpus(name: str) -> Corpus[Any]:
    """The corpus of that name.

    Raises:
        InputError: there is none; names the nearest.
    """
    known = corpora()
    if name in known:
        return known[name]
    hint = nearest(name, known)
    raise InputError(f"unknown corpus '{name}'", remedy=f"{hint}choose from: {', '.join(known)}")
