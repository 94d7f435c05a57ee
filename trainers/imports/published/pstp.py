"""PSTP-Net's weights, as GeWu-Lab/PSTP-Net saves them: with CLIP's question, or the LSTM's.

What its forward leaves out (all selection, all layers of the last self-attention but one) has no weights here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from configs.public import CLIP, read_state
from models.avqa.batch import FeatureSpec
from models.clip import text_weights
from shards.errors import InputError
from trainers.imports.names import Names, begins, shape_of
from trainers.imports.published.avst import PADDING
from trainers.imports.published.network import PublishedNetwork
from trainers.imports.weights import State

WHAT = "PSTP-Net"
STEPS, PLACES = 60, 49  # seconds; patches of CLIP ViT-B/32, after its class token
LAYERS = "GlobalSelf_Module.layers"
UNUSED = (
    *("fc_p", "fc_spat_q", "audio_fusion", "visual_fusion", "SM_fusion", "fc_av_fusion"),
    *("TempSegsSelect_Module", "SpatRegsSelect_Module", "AudioGuidedVisualAttn", "GlobalLocal_Module"),
    "GlobalSelf_Module",
)


def pstp(path: Path, state: State, arguments: argparse.Namespace) -> PublishedNetwork:
    """The network of a file of PSTP-Net's weights; its text tower is of `arguments.weights`.

    Raises:
        InputError: it holds something else, or CLIP's weights are not there.
    """
    dim, audio = shape_of(path, WHAT, state, "fc_a.weight", 2)
    layers = {int(name.split(".")[2]) for name in state if begins(name, LAYERS) and name.split(".")[2].isdigit()}
    lstm = any(begins(name, "fc_q.lstm") for name in state)
    words = shape_of(path, WHAT, state, "fc_q.word2vec.weight", 2)[0] if lstm else 1
    tower_sizes, tower = _text_tower(arguments.weights)
    sizes = {"dim": dim, "mode": "released", "text": "lstm+clip" if lstm else "clip", "clip": tower_sizes}
    return PublishedNetwork(
        what=WHAT,
        network="pstp",
        sizes=sizes | ({"lstm_words": words, "padding": PADDING} if lstm else {}),
        state=state,
        names=Names(_parts(max(layers, default=0), lstm), UNUSED),
        spec=FeatureSpec(audio, shape_of(path, WHAT, state, "fc_v.weight", 2)[1], STEPS, PLACES, frame_token=True),
        words=words,
        answers=shape_of(path, WHAT, state, "fc_answer_pred.weight", 2)[0],
        rule="released+clip" if lstm else "clip",
        length=PADDING,
        extra={f"question.tower.{name}": x for name, x in tower.items()},
    )


def _parts(layer: int, lstm: bool) -> dict[str, str]:
    """Only the last layer's output is used, and its input is not the one before's."""
    last = f"{LAYERS}.{layer}"
    parts = {
        "fc_a": "audio",
        "fc_v": "frame",
        "fc_word": "word",
        "fc_answer_pred": "answer",
        f"{last}.self_attn": "fuse.0.own",
        f"{last}.linear1": "fuse.0.feed_forward.layers.0",
        f"{last}.linear2": "fuse.0.feed_forward.layers.3",
        f"{last}.norm1": "fuse.0.norm",
        f"{last}.norm2": "fuse.0.feed_forward.norm",
    }
    if not lstm:
        return {**parts, "fc_q": "question.question"}
    asked = {"word2vec": "words.embed", "lstm": "words.lstm", "fc": "out"}
    return {**parts, **{f"fc_q.{theirs}": f"question.question.{ours}" for theirs, ours in asked.items()}}


def _text_tower(folder: Path | None) -> tuple[dict[str, int], State]:
    path = CLIP.find(folder)
    try:
        sizes, weights = text_weights(read_state(path))
    except Exception as error:  # whatever a damaged file makes of the readers
        reason = str(error).partition("\n")[0]
        raise InputError(f"can't be used: {reason}", file=path, field="weights", remedy=f"give {CLIP.source}") from None
    return sizes, weights
