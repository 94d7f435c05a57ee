"""Questions with features as items: NaN where absent, unit scale, seeded negatives, choices; nothing lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.avqa.batch import NO_ANSWER, AVQABatch
from models.avqa.scale import Scale, Standardise
from shards.errors import InputError
from shards.questions import Question, Vocabulary, load_questions
from tests.fixtures.asking import (
    AUDIO,
    KINDS,
    PLACES,
    STEPS,
    VISUAL,
    features,
    questions_about,
    sequence_dataset,
    there,
)
from tests.fixtures.builders import LABELS
from trainers.avqa.clips import Clips, scale_of
from trainers.avqa.items import AnswerableQuestions, QuestionItems, longest
from trainers.data import batches

pytestmark = pytest.mark.unit
SIZES = {"train": 21, "val": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    sequence_dataset(folder, SIZES)
    return folder


QUESTIONS = list(questions_about(SIZES))
TRAIN = [q for q in QUESTIONS if q.split == "train"]
VOCABULARY = Vocabulary.of(QUESTIONS)


def items(clips: Clips, questions: list[Question] = TRAIN, **kwargs) -> QuestionItems:
    return QuestionItems(clips, questions, VOCABULARY, longest(TRAIN), **kwargs)


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Equal to the bit, NaN included, or both left out."""
    if a is None or b is None:
        return a is b
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def read(made: QuestionItems, order: list[int], size: int, loaders: int = 0) -> dict[int, list]:
    """Every row by its index."""
    rows = {}
    for batch in batches(made, order, size, loaders, drop_last=False):
        assert isinstance(batch, AVQABatch)
        for i, index in enumerate(batch.index.tolist()):
            rows[index] = [None if x is None else x[i] for x in vars(batch).values()]
    return rows


def test_a_batch_is_what_its_type_says(data):
    (batch,) = batches(items(Clips(data), negatives=True), [0, 4, 14, 24], 4, 0, drop_last=True)
    assert isinstance(batch, AVQABatch)
    assert batch.negative is not None
    assert batch.visual.shape == batch.negative.shape == (4, STEPS, PLACES, VISUAL)
    assert batch.audio.dtype == batch.visual.dtype == batch.negative.dtype == torch.float16
    assert batch.question.dtype == torch.int64
    assert batch.question.shape == (4, 8)
    assert batch.allowed is None
    assert batch.index.tolist() == [0, 4, 14, 24]
    some = batch.select(torch.tensor([2, 0]))
    assert some.index.tolist() == [14, 0]
    assert some.allowed is None
    assert same(some.negative, batch.negative[[2, 0]])


def test_features_are_of_unit_scale_and_nan_where_absent(data):
    clips = Clips(data)
    stored = items(clips, TRAIN[::3]).batch(range(SIZES["train"]))
    whole = Standardise(scale_of(clips.info))(stored)
    for batch in (stored, whole):
        for i, (audio, visual) in enumerate(zip(batch.audio, batch.visual, strict=True)):
            assert batch.present[i].tolist() == list(there(i))
            assert audio.isfinite().all() if there(i)[0] else audio.isnan().all()
            assert visual.isfinite().all() if there(i)[1] else visual.isnan().all()
    for place, values in enumerate((whole.audio, whole.visual)):
        x = values[whole.present[:, place]].flatten(0, -2)
        torch.testing.assert_close(x.mean(0), torch.zeros(x.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(x.std(0, correction=0), torch.ones(x.shape[1]), atol=1e-3, rtol=0)


def test_a_channel_that_never_varies_is_only_centred():
    mean, inverse = Scale(((2.0, 5.0), (0.5, 0.0)), ((0.0,), (1.0,))).tensors("audio")
    assert mean.tolist() == [2.0, 5.0]
    assert inverse.tolist() == [2.0, 1.0]


def test_a_specialist_never_gets_its_absent_modality(data):
    clips = Clips(data)
    asked = AnswerableQuestions.of(QUESTIONS, "train", clips, "audio")
    assert {q.clip for q in TRAIN} - {q.clip for q in asked.questions} == {"clip train007", "clip train016"}
    assert len(asked.lost) == 6  # of the two dark clips nothing is left
    made = items(clips, list(asked.questions), absent="audio")
    batch = made.batch(range(len(made)))
    assert batch.audio.isnan().all()
    assert batch.visual.isfinite().all()
    assert batch.present.tolist() == [[False, True]] * len(made)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("loaders", [0, 2])
def test_a_row_does_not_depend_on_order_neighbours_loaders_or_memory(data, loaders, resident):
    def made(kept: bool) -> QuestionItems:
        out = items(Clips(data, resident=kept), seed=3, negatives=True)
        out.epoch = 2
        return out

    forward = read(made(True), list(range(len(TRAIN))), 4)
    torch.manual_seed(9)
    other = read(made(resident), list(range(len(TRAIN) - 1, -1, -1)), 7, loaders)
    assert forward.keys() == other.keys()
    assert all(same(a, b) for i in forward for a, b in zip(forward[i], other[i], strict=True))


def test_negative_frames_are_other_clips_and_change_with_epoch_and_seed(data):
    clips = Clips(data)
    frames = {  # every visual step of every clip that has some
        q.clip: clips.features("visual", [i])[0] for i, q in enumerate(TRAIN[::3]) if there(i)[1]
    }

    def negatives(seed: int, epoch: int) -> list[Tensor]:
        made = items(clips, seed=seed, negatives=True)
        made.epoch = epoch
        return list(made.batch(range(len(made))).negative)  # type: ignore[arg-type]

    first = negatives(0, 0)
    for question, drawn in zip(TRAIN, first, strict=True):
        for frame in drawn:
            (owner,) = [clip for clip, of in frames.items() if any(torch.equal(frame, x) for x in of)]
            assert owner != question.clip
    assert all(torch.equal(a, b) for a, b in zip(first, negatives(0, 0), strict=True))
    for other in (negatives(0, 1), negatives(1, 0)):
        assert sum(not torch.equal(a, b) for a, b in zip(first, other, strict=True)) > len(first) // 2
    assert len({tuple(x.flatten().tolist()) for x in first}) > len(first) // 2
    assert items(clips).batch([0]).negative is None


@pytest.mark.parametrize("resident", [True, False])
def test_stored_bits_are_read_and_a_single_frame_is_that_of_the_whole(data, resident):
    clips, silent = Clips(data, resident=resident), 4
    stored = {i: {m: torch.from_numpy(x) for m, x in features(i, "train").items()} for i in (0, 3)}
    found = {m: clips.features(m, [3, silent, 0]) for m in ("audio", "visual")}  # type: ignore[arg-type]
    assert found["audio"][1].isnan().all()
    for m, x in found.items():
        assert torch.equal(x[[0, 2]], torch.stack([stored[3][m], stored[0][m]]))
    frames = clips.frames([0, 3, 0], [1, 1, 0])
    assert torch.equal(frames, torch.stack([stored[i]["visual"][t] for i, t in ((0, 1), (3, 1), (0, 0))]))
    clips.features("visual", [0]).zero_()
    assert torch.equal(clips.features("visual", [0])[0], stored[0]["visual"]), "what is given out is a copy"


def test_standardising_is_in_float32_and_leaves_the_batch_as_it_is(data):
    clips = Clips(data)
    made = items(clips, negatives=True)
    batch, again = made.batch([0, 12]), made.batch([0, 12])
    scale = scale_of(clips.info)
    unit = Scale(((0.0,) * AUDIO, (1.0,) * AUDIO), ((0.0,) * VISUAL, (1.0,) * VISUAL))
    for given in (batch, Standardise(unit)(batch)):  # float16, float32
        kept = {name: getattr(given, name).clone() for name in ("audio", "visual", "negative")}
        whole = Standardise(scale)(given)
        for name, modality in (("audio", "audio"), ("visual", "visual"), ("negative", "visual")):
            mean, inverse = scale.tensors(modality)  # type: ignore[arg-type]
            assert same(getattr(whole, name), (getattr(again, name).float() - mean) * inverse)
            assert same(getattr(given, name), kept[name])
    assert not Standardise(scale).state_dict(), "the scale is in a checkpoint's JSON"


def test_negative_frames_are_uniform_over_the_other_clips(data):
    made = items(Clips(data), negatives=True)
    pictures = [i for i in range(SIZES["train"]) if there(i)[1]]
    for number in (0, 10, 7):  # the first and a later clip with pictures, one without
        drawn = []
        for made.epoch in range(300):
            drawn.append(made._drawn(3 * number, np.array(pictures)))
        clips, steps = (np.concatenate(column) for column in zip(*drawn, strict=True))
        others = [i for i in pictures if i != number]
        seen = np.bincount(clips, minlength=SIZES["train"])
        assert set(seen.nonzero()[0]) == set(others)
        assert seen[others].max() < 2 * 300 * STEPS / len(others)
        assert 0.4 < steps.mean() < 0.6


def test_choices_allow_only_themselves_and_unknown_answers_are_none(data):
    asked = list(questions_about({"train": 6}, choices=True))
    vocabulary = Vocabulary.of(asked)
    strange = asked[0].model_copy(update={"answer": "gong", "choices": ("gong", "lyre")})
    made = QuestionItems(Clips(data), [*asked, strange], vocabulary, 5)
    batch = made.batch(range(len(made)))
    for row, question in zip(batch.allowed, [*asked, strange], strict=True):  # type: ignore[arg-type]
        allowed = {a for a, may in zip(vocabulary.answers, row.tolist(), strict=True) if may}
        assert allowed == (set(question.choices or ()) & set(vocabulary.answers) or set(vocabulary.answers))
    assert batch.label[-1] == NO_ANSWER
    assert (batch.label[:-1] >= 0).all()


def test_questions_about_clips_that_are_not_here_are_told_and_none_at_all_refused(data):
    stray = TRAIN[0].model_copy(update={"id": "stray", "clip": "clip elsewhere"})
    asked = AnswerableQuestions.of([*QUESTIONS, stray], "train", Clips(data))
    assert asked.lost == ("stray",)
    assert len(asked.questions) == len(TRAIN)
    with pytest.raises(InputError, match="all questions of split 'train' ask about clips that are not here"):
        AnswerableQuestions.of([stray], "train", Clips(data))
    with pytest.raises(InputError, match="all questions of split 'final' do not exist"):
        AnswerableQuestions.of(QUESTIONS, "final", Clips(data))


def test_a_question_of_another_split_than_its_clips_finds_it(data):
    """MUSIC-AVQA asks about one clip in several splits: the question's split decides."""
    asked = AnswerableQuestions.of([TRAIN[0].model_copy(update={"split": "test"})], "test", Clips(data))
    assert [q.clip for q in asked.questions] == ["clip train000"]


def test_features_of_another_kind_are_refused(tmp_path):
    from tests.fixtures.builders import SMALL, feature_dataset

    feature_dataset(tmp_path, SIZES, SMALL, "f" * 64)
    with pytest.raises(InputError, match="not sequence features"):
        Clips(tmp_path)


def test_the_builder_asks_every_kind_and_reads_back(tmp_path):
    from shards.questions import save_questions

    assert load_questions(save_questions(tmp_path / "q.jsonl", QUESTIONS)) == tuple(QUESTIONS)
    assert {q.type for q in QUESTIONS} == set(KINDS)
    assert {q.answer for q in QUESTIONS} == {*LABELS, "yes", "no"}
