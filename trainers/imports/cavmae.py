"""``avmend import cavmae FILE --labels LIST``: a published, fine-tuned CAV-MAE as a backbone that stays as it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from models.registry import deferred
from shards.class_order import KNOWN
from trainers.imports.kinds import ImportKind


def _arguments(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(KNOWN)
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="state dict (.pth, .safetensors) of a fine-tuned CAV-MAE"
    )
    parser.add_argument(
        "--labels", metavar="LIST", help=f"classes in the order of its head: {known}, or a file of them"
    )
    parser.add_argument(
        "--loss",
        choices=("ce", "bce"),
        help="that it was tuned by: bce for several labels a clip (default of audioset)",
    )
    parser.add_argument(
        "--alone",
        choices=("averaged", "own"),
        default="averaged",
        help="way of a modality whose other one is missing: averaged for a model of both, own for one of it alone",
    )
    parser.add_argument("--heads", type=int, metavar="N", help="attention heads; default: one per 64 channels")
    parser.add_argument("--data", type=Path, metavar="DIR", help="media shards that it is evaluated on unless told")


CAVMAE = ImportKind(
    about="A fine-tuned CAV-MAE with its head, for features, prompts, evaluation and prediction as it is",
    arguments=_arguments,
    run=deferred("trainers.imports.cavmae_run:take_in"),
)
