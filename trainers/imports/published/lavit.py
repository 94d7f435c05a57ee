"""LAViT's weights, as HS-YN/PanoAVQA saves them ({args, epoch, loss, model}; the dict under `model`).

Its features hold coordinates in their last channels: sound [18, left 2048 + right 2048 + 3], picture [18, 2, 2048 + 6],
two of the 36 regions in each of the 18 steps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from models.avqa.batch import FeatureSpec
from models.avqa.networks.lavit import REGION_AT, SOUND_AT
from shards.errors import InputError
from shards.published_words import START
from shards.questions import Vocabulary
from trainers.imports.names import Names, shape_of
from trainers.imports.published.network import PublishedNetwork
from trainers.imports.weights import State

WHAT = "LAViT"
SOUNDS, ROWS, EPS = 18, 2, 1e-12  # 36 regions as two rows of each of 18 steps
PIECES = 60  # of a question, [CLS] and [SEP] with them
TEXT, INSIDE = "bert.embeddings", "bert.encoder"
STREAMS = {"l": "language", "a": "audio", "v": "visual"}
LOOKS = {"la_attention": "language", "av_attention": "audio", "vl_attention": "visual"}
UNUSED = (
    *("cls", "v_head", "a_head", "vl_head", "al_head", "ground"),
    *(f"{TEXT}.position_embeddings", f"{TEXT}.token_type_embeddings"),
)


def lavit(path: Path, state: State, arguments: argparse.Namespace) -> PublishedNetwork:
    """The network of a file of LAViT's weights, with the answers and word pieces of `arguments`.

    Raises:
        InputError: it holds something else; lists of answers or pieces are missing or of another length.
    """
    words, dim = shape_of(path, WHAT, state, f"{TEXT}.word_embeddings.weight", 2)
    stereo = f"{INSIDE}.a_fc.left_fc.weight" in state
    sound = shape_of(path, WHAT, state, f"{INSIDE}.a_fc.{'left' if stereo else 'feat'}_fc.weight", 2)[1]
    region = shape_of(path, WHAT, state, f"{INSIDE}.v_fc.feature_fc.weight", 2)[1]
    answers = shape_of(path, WHAT, state, "answer_head.logit_fc.3.weight", 2)[0]
    vocabulary = _vocabulary(arguments.pieces, arguments.answers)
    counts = {kind: _layers(state, kind) for kind in ("layer", "v_layers", "a_layers", "x_layers")}
    sizes = {"dim": dim, "text": PIECES - 1, "eps": EPS, "pool": "first", "coordinates": "features", "stereo": stereo}
    sizes |= dict(zip(("language", "visual", "audio", "cross"), counts.values(), strict=True))
    return PublishedNetwork(
        what=WHAT,
        network="lavit",
        sizes=sizes,
        state=_converted(path, state, vocabulary),
        names=Names(dict(_parts(counts, stereo)), UNUSED),
        spec=FeatureSpec(sound * (1 + stereo) + SOUND_AT, region + REGION_AT, SOUNDS, ROWS),
        words=words,
        answers=answers,
        rule="pieces",
        length=PIECES - 1,
        vocabulary=vocabulary,
    )


def _layers(state: State, kind: str) -> int:
    prefix = f"{INSIDE}.{kind}."
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def _converted(path: Path, state: State, vocabulary: Vocabulary) -> State:
    """Query, key and value as one projection; the embedding of [CLS] with its place and type as one vector."""
    out = {**state}
    for name in [name for name in state if name.endswith(".self.query.weight")]:
        part = name.removesuffix(".query.weight")
        for kind in ("weight", "bias"):
            three = [out.pop(f"{part}.{x}.{kind}", None) for x in ("query", "key", "value")]
            if all(x is not None for x in three):
                out[f"{part}.in_proj_{kind}"] = torch.cat([x for x in three if x is not None])
    shape_of(path, WHAT, state, f"{TEXT}.position_embeddings.weight", 2)
    shape_of(path, WHAT, state, f"{TEXT}.token_type_embeddings.weight", 2)
    place = state[f"{TEXT}.position_embeddings.weight"] + state[f"{TEXT}.token_type_embeddings.weight"][0]
    first = state[f"{TEXT}.word_embeddings.weight"][vocabulary.words.index(START)]
    return {**out, f"{TEXT}.summary": first + place[0], f"{TEXT}.position": place[1:PIECES]}


def _parts(counts: dict[str, int], stereo: bool) -> Iterator[tuple[str, str]]:
    names = {"word_embeddings": "word", "LayerNorm": "norm", "summary": "summary", "position": "position"}
    yield from ((f"{TEXT}.{theirs}", f"embed.{ours}") for theirs, ours in names.items())
    seen = {
        "feature_fc": "feature.0",
        "feature_ln": "feature.1",
        "coord_fc": "coordinate.0",
        "coord_in": "coordinate.1",
    }
    heard = {"cord_fc": "coordinate.0", "cord_ln": "coordinate.1"}
    channels = {"left": "feature", "righ": "others.0"} if stereo else {"feat": "feature"}
    heard |= {f"{c}_{kind}": f"{ours}.{i}" for c, ours in channels.items() for i, kind in enumerate(("fc", "ln"))}
    yield from ((f"{INSIDE}.v_fc.{theirs}", f"visual_in.{ours}") for theirs, ours in seen.items())
    yield from ((f"{INSIDE}.a_fc.{theirs}", f"audio_in.{ours}") for theirs, ours in heard.items())
    for kind, ours in (("layer", "language"), ("v_layers", "visual"), ("a_layers", "audio")):
        for i in range(counts[kind]):
            theirs = f"{INSIDE}.{kind}.{i}"
            yield from _attention(f"{theirs}.attention", f"{ours}.{i}.attend")
            yield from _feed_forward(f"{theirs}.intermediate", f"{theirs}.output", f"{ours}.{i}.feed_forward")
    for i in range(counts["x_layers"]):
        theirs = f"{INSIDE}.x_layers.{i}"
        for look, ours in LOOKS.items():
            yield from _attention(f"{theirs}.{look}", f"cross.{i}.look.{ours}")
        for short, ours in STREAMS.items():
            own = f"cross.{i}.own.{ours}"
            yield from _attention(f"{theirs}.{short}_self_att", f"{own}.attend")
            yield from _feed_forward(f"{theirs}.{short}_inter", f"{theirs}.{short}_output", f"{own}.feed_forward")
    yield from ((f"bert.{pooler}.dense", f"pool.{i}.0") for i, pooler in enumerate(("pooler", "a_pooler", "v_pooler")))
    yield from ((f"answer_head.logit_fc.{i}", f"head.{i}") for i in (0, 2, 3))


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    yield f"{theirs}.self", f"{ours}.attention"
    yield f"{theirs}.output.dense", f"{ours}.attention.out_proj"
    yield f"{theirs}.output.LayerNorm", f"{ours}.norm"


def _feed_forward(inner: str, outer: str, ours: str) -> Iterator[tuple[str, str]]:
    yield f"{inner}.dense", f"{ours}.layers.0"
    yield f"{outer}.dense", f"{ours}.layers.3"
    yield f"{outer}.LayerNorm", f"{ours}.norm"


def _vocabulary(pieces: Path | None, answers: Path | None) -> Vocabulary:
    if pieces is None or answers is None:
        field = "pieces" if pieces is None else "answers"
        remedy = "give --pieces (bert-base-uncased's vocab.txt) and --answers (Pano-AVQA's answer_2020.json)"
        raise InputError("LAViT's words and answers are lists of their own", field=field, remedy=remedy)
    try:
        words = pieces.read_text(encoding="utf-8").splitlines()
        classes = json.loads(answers.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", file=error.filename, remedy="check the path") from None
    except ValueError as error:
        raise InputError(f"can't be read: {error}", file=answers, remedy="give a JSON list of answers") from None
    if START not in words:
        raise InputError(f"has no {START}", file=pieces, remedy="give bert-base-uncased's vocab.txt, a piece a line")
    if not isinstance(classes, list) or not all(isinstance(x, str) for x in classes):
        raise InputError("no list of answers", file=answers, remedy='the form is ["yes", "no", ...]')
    return Vocabulary(words=tuple(words), answers=tuple(classes), rule="pieces")
