"""``avmend predict RUN ... CLIP ...``: what finished runs answer about clips."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.causes import MachineError
from pipelines.manifest import Clip
from pipelines.settings import IngestConfig
from serving.command_line import predict_parser
from serving.model import Media, Model, load, read_clip
from serving.prediction import Prediction
from serving.sources import named_clips, pair_of
from serving.text import clip_block, clip_record
from shards.command import command
from shards.errors import InputError
from shards.store import Place, StorePath, place
from trainers.runs import is_run

Asked = tuple[Clip, str | None]  # a clip, and a question about it


def split_words(words: Sequence[str]) -> tuple[list[Place], list[Path]]:
    """Folders and addresses of runs, and what names clips.

    Raises:
        InputError: there is no run; an address that is none's.
    """
    places = [place(word) for word in words]
    runs = [found for found in places if is_run(found)]
    if not runs:
        remedy = "give the folder that 'avmend train' printed, then clips"
        raise InputError(f"no run's folder among: {' '.join(words)}", field="runs", remedy=remedy)
    clips = [found for found in places if found not in runs]
    for address in (found for found in clips if isinstance(found, StorePath)):
        remedy = "correct the address; clips are asked about where they lie on a disk"
        raise InputError("there is no run", file=address, field="runs", remedy=remedy)
    return runs, [path for path in clips if isinstance(path, Path)]


def wanted_clips(args: argparse.Namespace, words: Sequence[Path]) -> list[Clip]:
    """The clips of a command line; says on standard error what was left out.

    Raises:
        InputError: none, or a wrong manifest.
    """
    clips, notes = named_clips(words, args.split)
    if args.audio is not None or args.image is not None:
        clips.append(pair_of(args.audio, args.image))
    if not clips:
        raise InputError("no clips", field="clips", remedy="give files, a folder, a manifest, or --audio and --image")
    print(*(f"{note}\n" for note in notes), sep="", end="", file=sys.stderr)
    return clips


def side_by_side(
    models: Sequence[Model], asked: Sequence[Asked], batch_size: int
) -> Iterator[tuple[Asked, list[Prediction]]]:
    """What every run answers, clip by clip in order; a clip is decoded once per way of decoding.

    Raises:
        InputError: clips can't be decoded on this machine.
        FloatingPointError: logits are NaN.
    """
    for at in range(0, len(asked), batch_size):
        part = asked[at : at + batch_size]
        read: dict[tuple[Clip, IngestConfig], Media] = {}
        columns = []
        for model in models:
            for clip, _ in part:
                if (key := (clip, model.ingestion)) not in read:
                    read[key] = _read(clip, model.ingestion)
            media = [read[clip, model.ingestion] for clip, _ in part]
            columns.append(model.answer([clip.id for clip, _ in part], media, [q for _, q in part if q is not None]))
        yield from zip(part, map(list, zip(*columns, strict=True)), strict=True)


def _read(clip: Clip, ingestion: IngestConfig) -> Media:
    try:
        return read_clip(clip, ingestion)
    except MachineError as error:
        remedy = "correct the machine (files, processes, room), then the same command again"
        raise InputError(f"clips can't be decoded here: {error.strerror}", remedy=remedy) from error


def bought_notes(models: Sequence[Model]) -> Iterator[str]:
    """What abstaining bought each calibrated run on its validation data."""
    for model in models:
        if model.abstain_below is None or model.calibration is None:
            continue
        selection = "detected" if "detected" in model.calibration.groups else ""
        if (found := model.calibration.bought(selection, model.abstain_below)) is not None:
            coverage, error = found
            said = f"answered {100 * coverage:.0f} % of its validation samples, {100 * error:.1f} % of these wrong"
            yield f"note: {model.name}, abstaining below {model.abstain_below:g}, {said} (all conditions together)"


def _check_questions(models: Sequence[Model], questions: Sequence[str]) -> None:
    for model in models:
        if model.asks and not questions:
            remedy = "give --question TEXT"
            raise InputError(
                "answers questions about clips", file=model.loaded.run.folder, field="question", remedy=remedy
            )
        if questions and not model.asks:
            remedy = "leave --question out, or give runs of question answering alone"
            raise InputError("takes no question", file=model.loaded.run.folder, field="question", remedy=remedy)


@command
def main(argv: list[str]) -> int:
    """1 where a clip failed; else as `shards.command.command` has it."""
    args = predict_parser().parse(argv)
    if args.batch_size < 1 or args.top < 1:
        raise InputError("a count below 1", field="--batch-size, --top", remedy="give 1 or more")
    runs, words = split_words(args.words)
    clips = wanted_clips(args, words)
    where = {"data": args.data, "backbone": args.backbone, "weights": args.weights}
    models = [load(run, args.device, **where, abstain_below=args.abstain_below) for run in runs]
    _check_questions(models, args.question)
    print(*(f"{note}\n" for note in bought_notes(models)), sep="", end="", file=sys.stderr)
    asked: list[Asked] = [(clip, question) for clip in clips for question in (args.question or [None])]
    failed: set[Clip] = set()
    for (clip, question), found in side_by_side(models, asked, args.batch_size):
        failed |= {clip} if any(p.failure is not None for p in found) else set()
        line = json.dumps(clip_record(clip.id, question, found)) if args.json else clip_block(found, args.top)
        print(line, flush=True)
    if failed:
        print(f"{len(failed)} of {len(clips)} clips failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
