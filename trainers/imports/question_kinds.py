"""Published question-answering networks as kinds of import; free of torch until one is imported."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from models.registry import deferred
from trainers.imports.kinds import ImportKind

Arguments = Callable[[argparse.ArgumentParser], None]


def question_arguments(parser: argparse.ArgumentParser) -> None:
    """What every network is imported with."""
    parser.add_argument("file", type=Path, metavar="FILE", help="its weights: .pt, .pth or .safetensors")
    parser.add_argument(
        "--questions",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of questions.jsonl (made by avmend corpus), or that file: words and answers in released order",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="sequence features that it is to answer from; without, any of its widths are taken for these",
    )
    parser.add_argument("--label", metavar="NAME", help="its name in tables (default: the file's)")


def _pstp_arguments(parser: argparse.ArgumentParser) -> None:
    question_arguments(parser)
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="folder of OpenAI's ViT-B-32.pt, which reads questions"
    )


def _lavit_arguments(parser: argparse.ArgumentParser) -> None:
    question_arguments(parser)
    parser.add_argument(
        "--pieces", type=Path, metavar="FILE", help="bert-base-uncased's vocab.txt, a word piece a line"
    )
    parser.add_argument("--answers", type=Path, metavar="FILE", help="answer_2020.json: the answers in their order")


def _kind(about: str, reader: str, arguments: Arguments = question_arguments) -> ImportKind:
    run = deferred("trainers.imports.question_run:import_network")
    return ImportKind(about, arguments, partial(run, deferred(f"trainers.imports.published.{reader}")))


AVST = _kind("AVST (GeWu-Lab/MUSIC-AVQA): avst.pt, avst_update.pt", "avst:avst")
MISSING_AVQA = _kind(
    "Missing-AVQA (VisualAIKHU): AVST with the slot memory and the diffusion as released", "missing_avqa:missing_avqa"
)
PSTP = _kind("PSTP-Net (GeWu-Lab), with CLIP's or the LSTM's question", "pstp:pstp", _pstp_arguments)
LAVIT = _kind("LAViT, the network of Pano-AVQA (HS-YN/PanoAVQA)", "lavit:lavit", _lavit_arguments)
