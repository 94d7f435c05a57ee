"""Command lines of ``avmend predict``, ``export``, ``serve``; free of torch, Ray and MLflow, so that help is fast."""

from __future__ import annotations

from pathlib import Path

from configs.command_line import CommandParser
from serving.settings import ServeConfig
from shards.command import location

PREDICT = """What finished runs answer about clips, with probabilities, what was present, and which module answered.

  avmend predict RUN [RUN...] CLIP...                a file with sound, picture or both; a folder; a manifest
  avmend predict RUN --audio FILE --image FILE       two files, or one of them
  avmend predict RUN CLIP --question TEXT            of a question-answering run

Clips are decoded and normalised as the run's own data were. One line per run and clip; several runs stand below
each other. Exit status 1: a clip failed; the others are answered."""
EXPORT = """A finished run or a dataset as a folder that others can take in: files, hashes, a card that says what it is.

  avmend export RUN DIR       weights, config, the run that it stands on, a model card
  avmend export SHARDS DIR    shards, a dataset card, Croissant metadata; `datasets` and `webdataset` read it

No path, name or secret of this machine is in it. What a stopped export left is used by the next. Taken in again, with
every hash checked: avmend import DIR"""
SERVE = """Finished runs as a service: an address that answers about clips, and a page to try them with.

  avmend serve RUN [RUN...]                          on this machine alone, at http://127.0.0.1:8000/
  avmend serve RUN --host 0.0.0.0 --token FILE       for others, who send the token
  avmend serve RUN replicas=2 max_mb=20              with fields of the config

Prints the address. Uploads are held in memory alone and never kept."""
BATCH = 16
HOST, PORT = "127.0.0.1", 8000


def predict_parser() -> CommandParser:
    """``avmend predict RUN ... CLIP ...``."""
    parser = CommandParser("avmend predict", PREDICT)
    parser.add_argument("words", nargs="+", metavar="RUN|CLIP", help="folders or URLs of finished runs; then clips")
    parser.add_argument("--audio", type=Path, metavar="FILE", help="the sound of one clip")
    parser.add_argument("--image", type=Path, metavar="FILE", help="the picture of that clip, a still one")
    parser.add_argument("--question", action="append", default=[], metavar="TEXT", help="about every clip; repeatable")
    parser.add_argument("--split", metavar="NAME", help="of a manifest, the rows of this split alone")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="answers that are printed (default: 3)")
    parser.add_argument("--abstain-below", type=float, metavar="P", help="mark answers of a lower probability, 0 to 1")
    parser.add_argument("--json", action="store_true", help="one JSON object per clip and line, with all probabilities")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument(
        "--batch-size", type=int, default=BATCH, metavar="N", help=f"clips at a time (default: {BATCH})"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="the runs' shards or features, if they were moved")
    parser.add_argument(
        "--backbone", type=Path, metavar="RUN", help="finetune or dense run behind the features of questions"
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="public weights behind the features of questions")
    return parser


def export_parser() -> CommandParser:
    """``avmend export RUN|SHARDS DIR``."""
    parser = CommandParser("avmend export", EXPORT)
    parser.add_argument("source", type=location, metavar="RUN|SHARDS", help="folder or URL of a finished run or shards")
    parser.add_argument("out", type=location, metavar="DIR", help="new folder, or its URL")
    parser.add_argument("--license", metavar="NAME", help="licence, as in apache-2.0 or cc-by-4.0 (default: unknown)")
    parser.add_argument("--name", metavar="NAME", help="of shards: the dataset's name (default: its folder's)")
    parser.add_argument("--link", action="store_true", help="of shards: hard links instead of copies, where possible")
    parser.add_argument(
        "--results",
        action="append",
        default=[],
        type=location,
        metavar="DIR",
        help="of a run: evaluations for the card",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="of a run: its shards or features, if they were moved")
    parser.add_argument("--backbone", type=Path, metavar="RUN", help="of a run: the one that it stands on, if moved")
    parser.add_argument("--without-backbone", action="store_true", help="of a run: leave out the one it stands on")
    return parser


def serve_parser() -> CommandParser:
    """``avmend serve RUN ... key=value ...``."""
    parser = CommandParser("avmend serve", SERVE, lambda words: {"service": ServeConfig})
    parser.add_argument(
        "words", nargs="+", metavar="RUN|key=value", help="folders of finished runs; fields of the config"
    )
    parser.add_argument("--host", default=HOST, metavar="ADDRESS", help=f"where to listen (default: {HOST})")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"0: any free one (default: {PORT})")
    parser.add_argument(
        "--token", type=Path, metavar="FILE", help="file with the token that requests must send, mode 600"
    )
    parser.add_argument(
        "--examples", type=Path, metavar="DIR", help="clips that the page offers (default: drawn scenes)"
    )
    parser.add_argument("--replicas", type=int, metavar="N", help="processes that answer (default: 1)")
    return parser
