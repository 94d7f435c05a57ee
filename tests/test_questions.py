"""Questions on disk and their vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import InputError
from shards.questions import Question, Vocabulary, load_questions, save_questions, words_of

pytestmark = pytest.mark.unit


def question(number: int = 0, text: str = "Where is the cat?", answer: str = "left", **changes) -> Question:
    fields = {"id": f"q{number}", "clip": "c", "type": "Visual Location", "split": "train"}
    return Question(**(fields | {"question": text, "answer": answer} | changes))


def test_questions_come_back_as_they_were_and_repeat_in_bytes(tmp_path: Path):
    questions = (question(0), question(1, "Ça va？", "été", choices=("été", "hiver"), clip="a.b/ c"))
    path = save_questions(tmp_path / "questions.jsonl", questions)
    assert load_questions(path) == questions
    assert save_questions(tmp_path / "again.jsonl", questions).read_bytes() == path.read_bytes()
    assert '"choices"' not in path.read_text("utf-8").splitlines()[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"q\.jsonl:2: Invalid JSON"),
        ('{"id": "x"}', r"q\.jsonl:2: field 'clip': Field required"),
        (
            question(5).model_dump_json(exclude={"choices"})[:-1] + ', "anser": 1}',
            r"field 'anser': Extra inputs",
        ),
        (question(0).model_dump_json(), r"q\.jsonl:2: field 'id': 'q0' is the id of lines 1 and 2"),
        (question(5).model_dump_json().replace("Where is the cat?", "?"), "field 'question'.*has words"),
        (question(5).model_dump_json().replace("null", '["right"]'), "'left' is not among the choices"),
        (question(5).model_dump_json().replace("train", "a/b"), "field 'split'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str):
    path = tmp_path / "q.jsonl"
    path.write_text(f"{question(0).model_dump_json()}\n{line}\n")
    with pytest.raises(InputError, match=message):
        load_questions(path)


def test_files_that_hold_no_questions_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="can't be read"):
        load_questions(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no questions"):
        load_questions(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(InputError, match="not UTF-8"):
        load_questions(tmp_path / "latin.jsonl")


def test_words_are_lower_case_and_free_of_punctuation():
    assert words_of("Is the acoustic_guitar, what's-it, on the LEFT？ ") == [
        *("is", "the", "acoustic_guitar", "what's", "it", "on", "the", "left")
    ]


def test_the_vocabulary_is_the_train_splits_alone():
    asked = [
        question(0, "the cat, the bird", "two"),
        question(1, "a cat", "one", choices=("one", "none")),
        question(2, "the test", "three", split="test"),
    ]
    words = Vocabulary.of(asked)
    assert words.words == ("<pad>", "<unknown>", "cat", "the", "a", "bird")
    assert words.answers == ("none", "one", "two")
    assert words == Vocabulary.of(reversed(asked)) == Vocabulary.model_validate_json(words.model_dump_json())
    with pytest.raises(InputError, match="no questions of split 'val'"):
        Vocabulary.of(asked, "val")


def test_encodes_to_a_fixed_length():
    words = Vocabulary.of([question(0, "where is the cat")])
    assert words.encode("The CAT where?", 5) == [4, 2, 5, 0, 0]
    assert words.encode("the dog is here", 3) == [4, 1, 3]
    assert words.encode("<pad> <unknown>", 2) == [1, 1]
    with pytest.raises(ValueError, match="length 0"):
        words.encode("the", 0)


def test_answers_have_places_and_choices_limit_them():
    words = Vocabulary.of([question(0, answer="left"), question(1, answer="right", choices=("right", "up"))])
    assert [words.answer(text) for text in ("left", "right", "up")] == [0, 1, 2]
    assert words.allowed(question(2)) == [True, True, True]
    assert words.allowed(question(3, answer="up", choices=("up", "left", "elsewhere"))) == [True, False, True]
    assert words.allowed(question(4, answer="nowhere", choices=("nowhere", "elsewhere"))) == [True, True, True]
    with pytest.raises(InputError, match="did you mean 'left'"):
        words.answer("lefty")
    assert words.knows("up")
    assert not words.knows("lefty")
