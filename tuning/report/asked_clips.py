"""A few questions about clips, with every method's answer: complete, without sound, without picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from models.noise import generator
from models.settings import MODALITIES, Modality
from pipelines.thumbnails import heat, photo
from shards.errors import InputError
from shards.questions import Question, load_questions
from shards.reader import Sample, ShardDataset
from shards.schema import DatasetInfo
from trainers.avqa.clips import Clips
from trainers.avqa.config import QuestionEvaluation
from trainers.avqa.items import AnswerableQuestions, QuestionItems
from trainers.avqa.predict import QuestionPredictor
from trainers.avqa.results import line_name
from tuning.report.clips import first_seed, load_run
from tuning.report.evaluations import Evaluation
from tuning.report.parts import Answer, Clip, View
from tuning.report.provenance import media_folder
from tuning.steps import config_at

CASES: tuple[Modality | None, ...] = (None, *MODALITIES)


def asked_clips(found: Evaluation, count: int) -> tuple[Clip, ...]:
    """`count` questions about clips.

    Raises:
        InputError: features, media, questions or runs are not here as they were.
    """
    if not found.config:
        raise InputError("the evaluation's folder is not here", file=found.name)
    config = config_at("evaluation", QuestionEvaluation, found.config)
    assert config.data is not None
    assert config.questions is not None
    folders = [found.runs[run] for run in first_seed(found.rows)]
    predictors = [load_run(folder) for folder in folders]
    clips = {p.config.choice: p.clips(config.data, resident=False) for p in predictors}
    whole = next(iter(clips.values()))
    asked = AnswerableQuestions.of(load_questions(config.questions), config.split, whole)
    chosen = choose_questions(asked.questions, count)
    said = {
        missing: [
            (_called(p), answers_of(p, clips[p.config.choice], chosen, missing)) for p in predictors if p.sees(missing)
        ]
        for missing in CASES
    }
    media = Media(media_folder(config.data))
    return tuple(_clip(q, i, said, media) for i, q in enumerate(chosen))


def choose_questions(questions: Sequence[Question], count: int) -> list[Question]:
    """A seeded draw, of other kinds of questions and other clips first."""
    order = generator("questions of a report", len(questions)).permutation(len(questions)).tolist()
    by_kind: dict[str, Question] = {}
    for i in order:
        by_kind.setdefault(questions[i].type, questions[i])
    mixed = sorted(by_kind.values(), key=lambda q: q.type.split(" ")[-1])  # not all of one family
    ranked = {q.id: q for q in (*mixed, *(questions[i] for i in order))}
    return list({q.clip: q for q in reversed(ranked.values())}.values())[::-1][:count]


def _called(p: QuestionPredictor) -> str:
    return line_name(p.config.network, p.config.method, p.config.train_missing.said)


@torch.inference_mode()
def answers_of(
    p: QuestionPredictor, clips: Clips, questions: Sequence[Question], missing: Modality | None
) -> list[str]:
    """Its answers; "" where nothing is left of the clip."""
    items = QuestionItems(clips, questions, p.vocabulary, p.words, absent=missing)
    left = [i for i, q in enumerate(questions) if clips.left(q.clip, missing)]
    out = [""] * len(questions)
    if left:
        for i, answer in zip(left, p(items.batch(left)).argmax(dim=1).tolist(), strict=True):
            out[i] = p.vocabulary.answers[answer]
    return out


class Media:
    """Frames and spectrograms of a media dataset by the clip's id."""

    def __init__(self, folder: Path):
        info = DatasetInfo.load(folder)
        self._splits = [ShardDataset(folder, name, info=info) for name in info.splits]

    def sample(self, clip: str) -> Sample | None:
        """The clip's sample, None if it is not there."""
        for data in self._splits:
            if (at := data.ids.position(clip)) is not None:
                return data[at]
        return None


def _clip(question: Question, at: int, said: dict, media: Media) -> Clip:
    sample = media.sample(question.clip)
    views = tuple(_view(question, at, missing, said[missing], sample) for missing in CASES)
    return Clip(question.question, f"{question.type}; clip {question.clip}; answer: {question.answer}", views)


def _view(
    question: Question,
    at: int,
    missing: Modality | None,
    told: Sequence[tuple[str, list[str]]],
    sample: Sample | None,
) -> View:
    arrays = sample.arrays if sample is not None else {}
    frames, sound = arrays.get("frames"), arrays.get("audio")
    seen = frames is not None and missing != "visual"
    heard = sound is not None and missing != "audio"
    return View(
        f"{missing} missing" if missing else "complete",
        photo(frames[len(frames) // 2]) if seen and frames is not None else None,
        heat(sound, float(sound.min()), float(sound.max())) if heard and sound is not None else None,
        "middle frame and spectrogram" if sample is not None else "the clip is not in the media shards",
        tuple(_answer(name, answers[at], question) for name, answers in told),
    )


def _answer(method: str, said: str, question: Question) -> Answer:
    return Answer(method, said, said == question.answer) if said else Answer(method, "nothing left", None)
