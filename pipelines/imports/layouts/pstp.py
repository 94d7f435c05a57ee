"""PSTP-Net's features (GeWu-Lab/PSTP-Net): VGGish, CLIP's class token with its 49 patches, and CLIP's question and word
files: ``clip_qst/<question_id>.npy`` [1, 512], ``clip_word/<question_id>.npy`` [1, 77, 512]."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipelines.imports.layout import Form, Found, Layout, Part
from pipelines.imports.npy_folders import find_clips
from pipelines.imports.settings import ImportConfig

PATCHES = "clip_patch-level_vit_b32"
VISUAL: dict[str, tuple[Form, tuple[int, ...]]] = {
    PATCHES: ("places", (50, 512)),
    "clip_vit_b32": ("rows", (512,)),
    "res18": ("rows", (512,)),
}
QUESTION, WORDS = (1, 512), (1, 77, 512)


class PstpLayout(ImportConfig):
    """Folders vggish and clip_patch-level_vit_b32 of PSTP-Net, and its question and word files.

    Attributes:
        audio: folder of the sound's features.
        visual: folder of the picture's: CLIP's class token and patches (row 0 becomes the frame token), CLIP's frames
            alone, or pooled ResNet-18.
        questions: folders of the questions' and of the words' features; empty: none. They become shards of their own,
            in the folder `questions` of the dataset.
    """

    rows: int = Field(default=60, ge=1)
    audio: str = Field(default="vggish", min_length=1)
    visual: Literal["clip_patch-level_vit_b32", "clip_vit_b32", "res18"] = "clip_patch-level_vit_b32"
    questions: tuple[str, str] | tuple[()] = ("clip_qst", "clip_word")


def find(config: PstpLayout, source: Path) -> Found:
    """The clips of both folders, and the questions where there are folders of them.

    Raises:
        InputError: a folder of the clips is not there, or one of the questions' without the other.
    """
    form, shape = VISUAL[config.visual]
    members = {
        "audio": (Part(config.audio, "rows", (config.rows, 128)),),
        "visual": (Part(config.visual, form, (config.rows, *shape)),),
    }
    entries, notes = find_clips(source, (config.audio, config.visual))
    token = config.visual == PATCHES
    if not config.questions or not any((source / name).exists() for name in config.questions):
        return Found(members, token, entries, notes)
    question, words = config.questions
    asked, more = find_clips(source, (question, words))
    parts = {"question": (Part(question, "rows", QUESTION),), "words": (Part(words, "places", WORDS),)}
    return Found(members, token, entries, (*notes, *more), parts, asked)


LAYOUT = Layout("PSTP-Net: vggish, CLIP class token and patches, question and word files", PstpLayout, find)
