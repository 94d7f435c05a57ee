"""MUSIC-AVQA v2.0 and R: on small files of their forms, and v2.0 on the real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.corpora.public.music_avqa_r import frequent
from pipelines.corpora.registry import CORPORA
from pipelines.corpus import main
from shards.errors import InputError
from shards.questions import Question, load_questions
from tests.fixtures.corpora import facts_of
from tests.fixtures.tiers import told_by
from tests.test_music_avqa import entry

unit, integration = pytest.mark.unit, pytest.mark.integration


def write(folder: Path, **files: Sequence[dict]) -> Path:
    """JSON files by name, without ending, dashes as two underscores."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name.replace('__', '-')}.json").write_text(json.dumps(content))
    return folder


def unnumbered(**changes) -> dict:
    return {name: value for name, value in entry(0, **changes).items() if name != "question_id"}


def ids(path: Path, split: str = "test") -> list[str]:
    return [question.id for question in load_questions(path) if question.split == split]


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    """v2.0's files: test questions 1 (of v1's test), 2 (its val), 3 (its train), 4 (unknown), and a new one."""
    added = unnumbered(templ_values=["flute", "left", "tuba", "right"])
    test = [*(entry(number) for number in (1, 2, 3, 4)), added]
    return write(tmp_path / "v2", test_balance=test, train_balance=[entry(9)], test_bias=[entry(1)])


@unit
def test_the_subset_is_chosen(v2: Path, tmp_path: Path):
    facts = facts_of(CORPORA["music_avqa_v2"], tmp_path / "a", source=v2)
    assert facts["files"] == ["train: train_balance.json", "test: test_balance.json"]
    facts = facts_of(CORPORA["music_avqa_v2"], tmp_path / "b", source=v2, subset="bias")
    assert facts["splits"]["questions"] == {"test": 1}


@unit
def test_leaked_questions_are_counted_and_left_out_on_request(v2: Path, tmp_path: Path):
    whole = {"avqa__test": [entry(1)], "avqa__val": [entry(2)], "avqa__train": [entry(3)]}
    v1 = write(tmp_path / "v1", **whole)
    facts = facts_of(CORPORA["music_avqa_v2"], tmp_path / "a", source=v2, v1=v1)
    assert facts["test_questions_in_v1"] == {"test": 1, "val": 1, "train": 1, "new": 1, "in no file here": 1}
    assert ids(tmp_path / "a" / "questions.jsonl") == ["1", "2", "3", "4", "test_balance-4"]
    facts = facts_of(CORPORA["music_avqa_v2"], tmp_path / "b", source=v2, v1=v1, exclude_leaked=True)
    assert facts["left_out_as_leaked"] == 2
    assert ids(tmp_path / "b" / "questions.jsonl") == ["1", "4", "test_balance-4"]
    assert ids(tmp_path / "b" / "questions.jsonl", "train") == ["9"]


@unit
def test_without_the_whole_train_file_the_unknown_count_as_leaked(v2: Path, tmp_path: Path):
    v1 = write(tmp_path / "v1", avqa__test=[entry(1)], avqa__train_fake=[entry(3)])
    facts = facts_of(CORPORA["music_avqa_v2"], tmp_path / "a", source=v2, v1=v1, exclude_leaked=True)
    assert facts["left_out_as_leaked"] == 3
    assert ids(tmp_path / "a" / "questions.jsonl") == ["1", "test_balance-4"]


@unit
def test_what_the_comparison_needs_is_said(v2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["music_avqa_v2", "--source", str(v2), "--out", str(tmp_path / "out"), "--exclude-leaked"]
    assert main(command) == 2
    assert "exclude_leaked needs v1=FOLDER" in capsys.readouterr().err
    v1 = write(tmp_path / "v1", avqa__val=[entry(2)])
    assert main([*command, "--v1", str(v1)]) == 2
    assert "v1's test questions are not here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("subset", "total", "origin", "kept"),
    told_by(
        lambda case: case[0] == "balance",
        [
            ("balance", 10_819, {"test": 5_525, "val": 416, "new": 1_724}, 5_525 + 1_724),
            ("bias", 9_119, {"test": 5_399, "val": 363, "new": 600}, 5_399 + 600),
        ],
    ),
)
def test_the_real_sets(shared_data: Path, tmp_path: Path, subset: str, total: int, origin: dict, kept: int):
    source, v1 = shared_data / "music_avqa_v2", shared_data / "music_avqa"
    if not (source / f"test_{subset}.json").is_file() or not (v1 / "avqa-test.json").is_file():
        pytest.skip("no MUSIC-AVQA v2.0 files in the shared data")
    facts = facts_of(CORPORA["music_avqa_v2"], tmp_path, source=source, subset=subset, v1=v1, exclude_leaked=True)
    assert facts["test_questions_in_v1"] | origin == facts["test_questions_in_v1"]
    assert sum(facts["test_questions_in_v1"].values()) == total
    assert facts["splits"]["questions"] == {"test": kept}
    assert total - facts["left_out_as_leaked"] == kept


@integration
def test_the_real_balanced_set_by_type(shared_data: Path, tmp_path: Path):
    source = shared_data / "music_avqa_v2"
    if not (source / "test_balance.json").is_file():
        pytest.skip("no MUSIC-AVQA v2.0 files in the shared data")
    facts = facts_of(CORPORA["music_avqa_v2"], tmp_path, source=source)
    published = {
        "Audio Counting": 1382,
        "Audio Comparative": 643,
        "Visual Counting": 1505,
        "Visual Location": 1338,
        "Audio-Visual Existential": 1223,
        "Audio-Visual Location": 920,
        "Audio-Visual Counting": 1740,
        "Audio-Visual Comparative": 1101,
        "Audio-Visual Temporal": 967,
    }
    assert facts["splits"]["by_type"] == {"test": published}


def rephrased(number: int, answer: str, text: str) -> dict:
    found = entry(number, anser=answer, question_content=text)
    del found["templ_values"]
    return found


@unit
def test_rephrasings_are_scored_on_frequent_and_rare_answers(tmp_path: Path):
    head = [rephrased(1, "yes", "Is the flute louder?"), rephrased(1, "yes", "Does the flute sound louder?")]
    tail = [rephrased(2, "no", "Is the tuba louder?")]
    values = {"avqa__test__head": head, "avqa__test__tail": tail, "avqa__test__headtail": [*head, *tail]}
    source = write(tmp_path / "r", avqa__train=[entry(7)], **values)
    facts = facts_of(CORPORA["music_avqa_r"], tmp_path / "out", source=source, videos=tmp_path)
    assert facts["test_questions"] == {"official": 3, "head": 2, "tail": 1}
    assert facts["head_and_tail"] == "the files'"
    for ending, expected in (("", ["1", "1-2", "2"]), ("-head", ["1", "1-2"]), ("-tail", ["2"])):
        assert ids(tmp_path / "out" / f"questions{ending}.jsonl") == expected
        assert ids(tmp_path / "out" / f"questions{ending}.jsonl", "train") == ["7"]
        assert (tmp_path / "out" / f"manifest{ending}.csv").is_file()
    both = write(tmp_path / "both", avqa__test__headtail=[*head, *tail])
    facts = facts_of(CORPORA["music_avqa_r"], tmp_path / "out2", source=both)
    assert facts["test_questions"] == {"official": 3, "head": 2, "tail": 1}
    assert facts["head_and_tail"].startswith("by the rule")


@unit
def test_an_answer_is_frequent_above_the_ratio_of_its_types_mean():
    counts = {("a", "yes"): 6, ("a", "no"): 4, ("a", "two"): 5, ("b", "left"): 6, ("b", "right"): 2}
    questions = [
        Question(id=f"{kind}-{answer}-{n}", clip="c", question="Why?", answer=answer, type=kind, split="test")
        for (kind, answer), count in counts.items()
        for n in range(count)
    ]
    # means 5 and 4: above 1.2 times are more than 6 (none: 6 is not above) and more than 4.8
    assert {name.rpartition("-")[0] for name in frequent(questions)} == {"b-left"}
    assert {name.rpartition("-")[0] for name in frequent(questions, ratio=1.1)} == {"a-yes", "b-left"}


@unit
def test_questions_without_values_need_none(tmp_path: Path):
    open_question = [rephrased(1, "yes", "Is the <Object> louder?")]
    with pytest.raises(InputError, match="0 values for 1 placeholders"):
        facts_of(CORPORA["music_avqa_r"], tmp_path / "o", source=write(tmp_path / "r", avqa__test__head=open_question))
    filled = [entry(1, question_content="Is the flute louder?")]  # with the values that it was filled with
    facts = facts_of(CORPORA["music_avqa_r"], tmp_path / "o", source=write(tmp_path / "r", avqa__test__head=filled))
    assert facts["test_questions"] == {"official": 1, "head": 1, "tail": 0}
    with pytest.raises(InputError, match="no test questions"):
        facts_of(CORPORA["music_avqa_r"], tmp_path / "o", source=write(tmp_path / "train", avqa__train=[entry(1)]))
