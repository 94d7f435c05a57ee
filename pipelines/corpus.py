"""``avmend corpus``: make a corpus (clips and manifest), or a manifest for one that is there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from configs.cluster import lasting
from pipelines.corpora.public import avqa, music_avqa
from pipelines.corpora.public.avdigits import build_avdigits, choose, find_recordings
from pipelines.corpora.public.cavmae_json import MIDDLE_FRAME, cavmae_manifest, vggsound_manifest
from pipelines.corpora.public.folders import build_folders
from pipelines.corpora.question_report import table
from pipelines.corpora.synthetic.ensemble_corpus import build_ensembles, build_solos
from pipelines.corpora.synthetic.ensembles import EnsemblesConfig
from pipelines.corpora.synthetic.scenes import ScenesConfig, build_scenes
from shards.errors import InputError
from shards.progress import Progress


def main(argv: list[str] | None = None) -> int:
    """Run ``avmend corpus``; 0 if all went well, 2 if the input is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        lasting(arguments.out, "--out")
        arguments.run(arguments)
    except InputError as error:
        print(f"avmend corpus {arguments.corpus}: {error}", file=sys.stderr)
        return 2
    return 0


def _scenes(arguments: argparse.Namespace) -> None:
    config = ScenesConfig(arguments.clips, arguments.seed, arguments.seconds, arguments.size, arguments.fps)
    with Progress("scenes", config.clips) as progress:
        manifest = build_scenes(arguments.out, config, jobs=arguments.jobs, advance=progress.advance)
    print(f"{config.clips} clips: {manifest}")


def _ensembles(arguments: argparse.Namespace) -> None:
    config = EnsemblesConfig(
        arguments.clips,
        arguments.questions,
        arguments.seed,
        arguments.seconds,
        arguments.size,
        arguments.fps,
    )
    with Progress("ensembles", config.clips) as progress:
        told = build_ensembles(arguments.out, config, jobs=arguments.jobs, advance=progress.advance)
    print(f"{config.clips} clips: {arguments.out / 'manifest.csv'}")
    print(f"{sum(told['questions'].values())} questions: {arguments.out / 'questions.jsonl'}\n{table(told)}")


def _solos(arguments: argparse.Namespace) -> None:
    config = EnsemblesConfig(arguments.clips, seed=arguments.seed, size=arguments.size, fps=arguments.fps)
    with Progress("solos", config.clips) as progress:
        build_solos(arguments.out, config, jobs=arguments.jobs, advance=progress.advance)
    print(f"{config.clips} clips: {arguments.out / 'manifest.csv'}")


def _music_avqa(arguments: argparse.Namespace) -> None:
    files = arguments.json or music_avqa.official_files(_source(arguments))
    told = music_avqa.build_music_avqa(files, arguments.out, videos=arguments.videos, seed=arguments.seed)
    _tell_questions(arguments, told)


def _avqa(arguments: argparse.Namespace) -> None:
    files = arguments.json or avqa.official_files(_source(arguments))
    _tell_questions(arguments, avqa.build_avqa(files, arguments.out, videos=arguments.videos))


def _source(arguments: argparse.Namespace) -> Path:
    if arguments.source is None:
        raise InputError("no question files", field="--source", remedy="give --source or --json SPLIT=FILE")
    return arguments.source


def _tell_questions(arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    print(f"read {', '.join(told['files'])}")
    if told.get("synthetic_train_only"):
        print("the only train file here is that of synthetic videos: no train questions about real ones")
    for ending in ("", "-disjoint"):
        if report := told.get(f"splits{ending}"):
            counts = ", ".join(f"{count} {split}" for split, count in report["questions"].items())
            print(f"{counts}: {arguments.out / f'questions{ending}.jsonl'}\n{table(report)}")


def _avdigits(arguments: argparse.Namespace) -> None:
    total = len(choose(find_recordings(arguments.source), arguments.limit, arguments.seed))
    with Progress("avdigits", total) as progress:
        manifests = build_avdigits(
            arguments.source,
            arguments.out,
            limit=arguments.limit,
            seed=arguments.seed,
            jobs=arguments.jobs,
            advance=progress.advance,
        )
    print(f"{total} clips: {manifests[0]} and {manifests[1]}")


def _folders(arguments: argparse.Namespace) -> None:
    report = build_folders(arguments.source, arguments.out, name=arguments.corpus, seed=arguments.seed)
    print(f"{report['clips']} clips: {arguments.out / 'official.csv'} and {arguments.out / 'group.csv'}")
    counts = {
        "without sound": report["without_sound"],
        "without picture": report["without_picture"],
        "other files ignored": report["ignored_files"],
    }
    for what, names in counts.items():
        if names:
            print(f"{len(names)} {what} (see {arguments.out / 'corpus.json'}): {', '.join(names[:3])}")


def _cavmae_json(arguments: argparse.Namespace) -> None:
    clips = cavmae_manifest(
        arguments.json,
        arguments.labels,
        arguments.out,
        audio_root=arguments.audio_root,
        visual_root=arguments.visual_root,
        frame=arguments.frame,
    )
    print(f"{len(clips)} clips: {arguments.out / 'manifest.csv'}")


def _vggsound_csv(arguments: argparse.Namespace) -> None:
    clips = vggsound_manifest(arguments.csv, arguments.videos, arguments.out, split=arguments.split)
    print(f"{len(clips)} clips: {arguments.out / 'manifest.csv'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="avmend corpus", description=__doc__)
    commands = parser.add_subparsers(dest="corpus", required=True, metavar="CORPUS")

    scenes = commands.add_parser("scenes", help="drawn and synthesised clips with their ground truth")
    scenes.add_argument("--clips", type=int, required=True, help="how many (multiples of 80: exact splits)")
    scenes.add_argument("--seconds", type=float, default=2.0, help="length of a clip")
    scenes.add_argument("--size", type=int, default=96, help="width and height in pixels")
    scenes.add_argument("--fps", type=int, default=8, help="frames per second")
    scenes.set_defaults(run=_scenes)

    ensembles = commands.add_parser("ensembles", help="scenes of several performers, with questions about them")
    ensembles.add_argument("--clips", type=int, required=True, help="how many (multiples of 10: exact splits)")
    ensembles.add_argument("--questions", type=int, default=5, help="most questions about a clip")
    ensembles.add_argument("--seconds", type=float, default=5.0, help="length of a clip, whole seconds")
    ensembles.set_defaults(run=_ensembles)

    solos = commands.add_parser("solos", help="a second of one small performer, to learn features from")
    solos.add_argument("--clips", type=int, required=True, help="how many (multiples of 80: exact splits)")
    solos.set_defaults(run=_solos)
    for command in (ensembles, solos):
        command.add_argument("--size", type=int, default=96, help="width and height in pixels")
        command.add_argument("--fps", type=int, default=4, help="frames per second")

    for name, run in (("music_avqa", _music_avqa), ("avqa", _avqa)):
        questions = commands.add_parser(name, help=f"the questions of {name.upper().replace('_', '-')}")
        questions.add_argument("--source", type=Path, help="folder of the published JSON files")
        questions.add_argument(
            "--json", type=_split_and_file, action="append", metavar="SPLIT=FILE", help="instead; repeat"
        )
        questions.add_argument("--videos", type=Path, help="folder of the videos; makes the manifest, too")
        questions.set_defaults(run=run)

    avdigits = commands.add_parser("avdigits", help="spoken and handwritten digits")
    avdigits.add_argument("--source", type=Path, required=True, help="folder of recordings/, mnist_10k.npz")
    avdigits.add_argument("--limit", type=int, help="make only so many clips, evenly chosen")
    avdigits.set_defaults(run=_avdigits)

    for name in ("urbansound8k-av", "cifar10-av"):
        folders = commands.add_parser(name, help="vision/<class>/<id>.jpg with sound/<class>/<id>.wav")
        folders.add_argument("--source", type=Path, required=True, help="folder of vision/ and sound/")
        folders.set_defaults(run=_folders)

    cavmae = commands.add_parser("cavmae-json", help="CAV-MAE's JSON of AudioSet or VGGSound")
    cavmae.add_argument(
        "--json",
        type=_split_and_file,
        action="append",
        required=True,
        metavar="SPLIT=FILE",
        help="repeat per split",
    )
    cavmae.add_argument("--labels", type=Path, required=True, help="CSV of index,mid,display_name")
    cavmae.add_argument("--audio-root", type=Path, help="folder of the sound files here")
    cavmae.add_argument("--visual-root", type=Path, help="folder of frame_0 ... frame_9 here")
    cavmae.add_argument("--frame", type=int, default=MIDDLE_FRAME, help="which of the 10 frames to name")
    cavmae.set_defaults(run=_cavmae_json)

    vggsound = commands.add_parser("vggsound-csv", help="VGGSound's CSV")
    vggsound.add_argument("--csv", type=Path, required=True, help="id,start,label,split or file,label")
    vggsound.add_argument("--videos", type=Path, required=True, help="folder of <id>_<start>.mp4")
    vggsound.add_argument("--split", help="split of a CSV that has none")
    vggsound.set_defaults(run=_vggsound_csv)

    for name, command in commands.choices.items():
        command.add_argument("--out", type=Path, required=True, help="folder to make")
        if name not in ("cavmae-json", "vggsound-csv", "avqa"):
            command.add_argument("--seed", type=int, default=0)
        if name in ("scenes", "avdigits", "ensembles", "solos"):
            command.add_argument("--jobs", type=int, default=2, help="processes")
    return parser


def _split_and_file(text: str) -> tuple[str, Path]:
    split, equals, file = text.partition("=")
    if not (split and equals and file):
        raise argparse.ArgumentTypeError(f"'{text}' is not SPLIT=FILE, such as train=train.json")
    return split, Path(file)


if __name__ == "__main__":
    raise SystemExit(main())
