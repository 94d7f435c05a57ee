"""AVST as GeWu-Lab/MUSIC-AVQA publishes it (`net_grd_avst/avst_models/avst.pt`, `avst_update.pt`)."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.avqa.batch import FeatureSpec
from trainers.imports.names import Names, shape_of
from trainers.imports.published.network import PublishedNetwork
from trainers.imports.weights import State

WHAT = "AVST"
STEPS, PLACES, PADDING = 10, 196, 14  # every 6th of 60 seconds; 14 x 14; ids of a question
PARTS = {
    "question_encoder.word2vec": "question.words.embed",
    "question_encoder.lstm": "question.words.lstm",
    "question_encoder.fc": "question.out",
    "fc_a1": "audio.0",
    "fc_a2": "audio.2",
    "fc_gl": "frame",
    "fc1": "match.0",
    "fc2": "match.2",
    "fc3": "match.4",
    "fc4": "match.6",
    "attn_a": "attend_audio.attend",
    "linear21": "attend_audio.feed_forward.layers.0",
    "linear22": "attend_audio.feed_forward.layers.3",
    "norm2": "attend_audio.feed_forward.norm",
    "attn_v": "attend_visual.attend",
    "linear11": "attend_visual.feed_forward.layers.0",
    "linear12": "attend_visual.feed_forward.layers.3",
    "norm1": "attend_visual.feed_forward.norm",
    "fc_fusion": "fuse",
    "fc_ans": "answer",
}
UNUSED = ("fc", "fc_v", "fc_a1_pure", "fc_a2_pure", "fc_aq", "fc_vq", "fc_st", "norm3", "visual_net")


def avst(path: Path, state: State, arguments: argparse.Namespace) -> PublishedNetwork:
    """The network of a file of AVST's weights.

    Raises:
        InputError: it holds something else.
    """
    dim, audio = shape_of(path, WHAT, state, "fc_a1.weight", 2)
    return PublishedNetwork(
        what=WHAT,
        network="avst",
        sizes={"dim": dim, "padding": PADDING},
        state=state,
        names=Names(PARTS, UNUSED),
        spec=FeatureSpec(audio=audio, visual=dim, steps=STEPS, places=PLACES),
        words=shape_of(path, WHAT, state, "question_encoder.word2vec.weight", 2)[0],
        answers=shape_of(path, WHAT, state, "fc_ans.weight", 2)[0],
        length=PADDING,
        steps=STEPS,
        steps_at="starts",
    )
