"""A published network as a finished run of `avqa`: its weights by our names, its words and answers, its identity."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.public import CLIP
from models.avqa.answerer import Answerer, Design
from models.avqa.batch import FeatureSpec
from models.avqa.scale import Scale
from shards.errors import InputError
from shards.hashes import file_sha256
from shards.questions import QUESTIONS_FILE, Question, Vocabulary, load_questions
from shards.schema import DatasetInfo
from shards.sequence import StepChoice
from trainers.avqa.clips import feature_spec
from trainers.avqa.config import AVQAConfig
from trainers.avqa.warm_start import IMPORTED, KIND, READING
from trainers.imports.job import save_imported
from trainers.imports.published.network import PublishedNetwork
from trainers.imports.weights import few, read_tensors
from trainers.recipe import NO_DATA

Reader = Callable[[Path, dict, argparse.Namespace], PublishedNetwork]


def import_network(reader: Reader, arguments: argparse.Namespace) -> Path:
    """The folder of the run; the same file with the same questions and features gives the same, once.

    Args:
        reader: of the kind's file.
        arguments: of ``avmend import KIND``.

    Raises:
        InputError: a file that is not what it should be; questions of other words or answers; features of other sizes.
    """
    questions_file = _questions_file(arguments.questions)
    published = reader(arguments.file, read_tensors(arguments.file), arguments)
    questions = load_questions(questions_file)
    vocabulary = _vocabulary(published, questions, questions_file)
    published = _all_steps_of_few(published, arguments.data)
    spec, extractor = _features(published, arguments.data)
    files = [arguments.file, questions_file, *_more_files(arguments)]
    content = [arguments.kind, [file_sha256(path) for path in files], vars(spec), extractor]
    config = _config(published, arguments, questions_file)
    answerer, left = _answerer(published, arguments.file, spec, vocabulary, config)
    _tell(published, arguments, left)
    source = {"kind": arguments.kind, "file": arguments.file.name, "unused": left}
    meta = _meta(published, answerer, vocabulary, extractor, config)
    return save_imported(config, Path(arguments.runs), content, source, answerer.state_dict(), meta)


def _questions_file(path: Path) -> Path:
    found = path / QUESTIONS_FILE if path.is_dir() else path
    if found.suffix == ".json" or not found.is_file():
        remedy = f"make {QUESTIONS_FILE} of the published files: avmend corpus music_avqa --source DIR --out DIR"
        raise InputError(f"no {QUESTIONS_FILE} here", file=path, field="questions", remedy=remedy)
    return found.absolute()


def _more_files(arguments: argparse.Namespace) -> list[Path]:
    """What else the kind is imported with."""
    given = [getattr(arguments, name, None) for name in ("pieces", "answers", "weights")]
    return [CLIP.find(path) if path.is_dir() else path for path in given if path is not None]


def _vocabulary(published: PublishedNetwork, questions: tuple[Question, ...], path: Path) -> Vocabulary:
    """Words and answers in the released order, as many as the weights have."""
    found = published.vocabulary or Vocabulary.released(questions, published.rule)
    for kind, ours, theirs in (
        ("words", len(found.words), published.words),
        ("answers", len(found.answers), published.answers),
    ):
        if ours != theirs:
            message = f"{ours} {kind} here, {theirs} in the weights"
            remedy = (
                "give the train file that it was trained on, whole (MUSIC-AVQA: avqa-train.json as first published)"
            )
            raise InputError(message, file=path, field=kind, remedy=remedy)
    return found


def _all_steps_of_few(published: PublishedNetwork, data: Path | None) -> PublishedNetwork:
    """Without a choice of time steps where the features have fewer than its loader takes; that is told."""
    stored = None if data is None else feature_spec(DatasetInfo.load(data)).steps
    if stored is None or published.steps is None or stored >= published.steps:
        return published
    print(f"note: features of {stored} time steps; {published.what} was trained on {published.steps}", file=sys.stderr)
    return replace(published, steps=None)


def _features(published: PublishedNetwork, data: Path | None) -> tuple[FeatureSpec, str]:
    """Sizes of the features, and the fingerprint of what made them ("" where none were named)."""
    if data is None:
        return published.spec, ""
    info = DatasetInfo.load(data)
    stored = feature_spec(info)
    taken = StepChoice(published.steps, published.steps_at).of(stored.steps)  # type: ignore[arg-type]
    spec = FeatureSpec(**{**vars(stored), "steps": len(taken) if taken is not None else stored.steps})
    widths, wanted = (spec.audio, spec.visual), (published.spec.audio, published.spec.visual)
    if widths != wanted:
        message = f"sound and picture of widths {widths}; {published.what} takes {wanted}"
        remedy = "give features of the networks that it was trained with (avmend features import)"
        raise InputError(message, file=data, field="data", remedy=remedy)
    return spec, info.backbone.fingerprint if info.backbone is not None else ""


def _config(published: PublishedNetwork, arguments: argparse.Namespace, questions: Path) -> AVQAConfig:
    return AVQAConfig(
        data=NO_DATA if arguments.data is None else arguments.data.absolute(),
        questions=questions,
        network=published.network,
        sizes=dict(published.sizes),
        recovery=published.recovery,
        label=arguments.label or arguments.file.stem,
        words=published.length,
        steps=published.steps,
        steps_at=published.steps_at,  # type: ignore[arg-type]
        standardise=False,
    )


def _answerer(
    published: PublishedNetwork, path: Path, spec: FeatureSpec, vocabulary: Vocabulary, config: AVQAConfig
) -> tuple[Answerer, list[str]]:
    """The network with its weights, and the published names that it has no use for."""
    identity = Scale(*(((0.0,) * width, (1.0,) * width) for width in (spec.audio, spec.visual)))
    sizes = (vocabulary.size, len(vocabulary.answers), config.network, config.sizes)
    try:
        answerer = Answerer(Design(spec, *sizes, config.recovery, {}), identity).eval()
    except ValueError as error:
        remedy = "give features and weights that belong together"
        raise InputError(f"can't be built: {error}", file=path, field="sizes", remedy=remedy) from None
    assert answerer.network is not None
    own = {n: x for n, x in answerer.network.named_parameters() if n not in published.extra}
    weights, left = published.names.taken(path, published.what, published.state, own)
    answerer.network.load_state_dict({**answerer.network.state_dict(), **weights, **published.extra})
    return answerer, left


def _tell(published: PublishedNetwork, arguments: argparse.Namespace, left: list[str]) -> None:
    """What the user should know, on standard error."""
    notes = (
        [f"{len(left)} of {len(published.state)} tensors have no effect on its answers: {few(left, 3)}"] if left else []
    )
    if arguments.data is None:
        notes.append("no --data: features of its widths are taken for those that it was trained on, unseen")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _meta(
    published: PublishedNetwork, answerer: Answerer, vocabulary: Vocabulary, extractor: str, config: AVQAConfig
) -> dict[str, Any]:
    """As `trainers.avqa.stages` has it, and how the network reads its inputs, for runs that start from it."""
    count = sum(p.numel() for p in answerer.parameters())
    return {
        "kind": KIND,
        "design": answerer.design.as_dict(),
        "vocabulary": vocabulary.record(),
        "words": published.length,
        "scale": {"audio": answerer.scale.audio, "visual": answerer.scale.visual},
        "extractor": extractor,
        "trained": count - sum(x.numel() for x in published.extra.values()),
        "parameters": count,
        "lost_questions": [],
        IMPORTED: {name: getattr(config, name) for name in READING},
    }
