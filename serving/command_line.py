"""Command line of ``avmend predict``; free of torch, Ray and MLflow, so that help is fast."""

from __future__ import annotations

from pathlib import Path

from configs.command_line import CommandParser

PREDICT = """What finished runs answer about clips, with probabilities, what was present, and which module answered.

  avmend predict RUN [RUN...] CLIP...                a file with sound, picture or both; a folder; a manifest
  avmend predict RUN --audio FILE --image FILE       two files, or one of them
  avmend predict RUN CLIP --question TEXT            of a question-answering run

Clips are decoded and normalised as the run's own data were. One line per run and clip; several runs stand below
each other. Exit status 1: a clip failed; the others are answered."""
BATCH = 16


def predict_parser() -> CommandParser:
    """``avmend predict RUN ... CLIP ...``."""
    parser = CommandParser("avmend predict", PREDICT)
    parser.add_argument("words", nargs="+", metavar="RUN|CLIP", help="folders of finished runs; then clips")
    parser.add_argument("--audio", type=Path, metavar="FILE", help="the sound of one clip")
    parser.add_argument("--image", type=Path, metavar="FILE", help="the picture of that clip, a still one")
    parser.add_argument("--question", action="append", default=[], metavar="TEXT", help="about every clip; repeatable")
    parser.add_argument("--split", metavar="NAME", help="of a manifest, the rows of this split alone")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="answers that are printed (default: 3)")
    parser.add_argument("--json", action="store_true", help="one JSON object per clip and line, with all probabilities")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument(
        "--batch-size", type=int, default=BATCH, metavar="N", help=f"clips at a time (default: {BATCH})"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="the runs' shards or features, if they were moved")
    parser.add_argument("--backbone", type=Path, metavar="RUN", help="finetune run behind the features of questions")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="public weights behind the features of questions")
    return parser
