"""AVQA's questions of four choices."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from pipelines.corpora.public.avqa import AvqaConfig, build
from pipelines.corpora.registry import CORPORA
from pipelines.corpus import main
from pipelines.manifest import read_manifest
from shards.errors import InputError
from shards.progress import Progress
from shards.questions import load_questions
from tests.fixtures.corpora import facts_of

pytestmark = pytest.mark.unit


def entry(number: int = 1, **changes) -> dict:
    return {
        "id": number,
        "video_name": "-HG3Omg_89c_000030",
        "video_id": 341,
        "question_text": "What happened in the video?",
        "multi_choice": ["motorboat", "Yacht consignment", "Sailboat set sail", "Consignment car"],
        "answer": 1,
        "question_relation": "View",
        "question_type": "Happening",
    } | changes


def test_a_question_has_its_choices_and_its_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    content = [entry(1), entry(2, question_type="Come From", question_relation="Both")]
    (tmp_path / "train_qa.json").write_text(json.dumps(content))
    (tmp_path / "val_qa.json").write_text(json.dumps([entry(3, answer=0, question_type="Used For")]))
    out, videos = tmp_path / "out", tmp_path / "videos"
    arguments = ["--source", str(tmp_path), "--out", str(out), "--videos", str(videos)]
    assert main(["avqa", *arguments]) == 0
    assert "2 train, 1 val" in capsys.readouterr().out
    questions = load_questions(out / "questions.jsonl")
    assert [(q.id, q.answer, q.type, q.split) for q in questions] == [
        ("1", "Yacht consignment", "Happening", "train"),
        ("2", "Yacht consignment", "Come From", "train"),
        ("3", "motorboat", "Used For", "val"),
    ]
    assert questions[0].choices == tuple(entry()["multi_choice"])
    (clip,) = read_manifest(out / "manifest.csv")
    assert clip.path == str(videos / "-HG3Omg_89c_000030.mp4")
    assert json.loads((out / "corpus.json").read_text())["relations"] == {"Both": 1, "View": 2}


def test_missing_choices_leave_the_others(tmp_path: Path):
    content = [
        entry(1, multi_choice=["motorboat", "yacht", None, None]),
        entry(2, multi_choice=[None, "yacht", "sailboat"]),
        entry(3),
    ]
    (tmp_path / "val_qa.json").write_text(json.dumps(content))
    facts = facts_of(CORPORA["avqa"], tmp_path / "out", source=tmp_path)
    questions = load_questions(tmp_path / "out" / "questions.jsonl")
    assert [(q.answer, q.choices) for q in questions[:2]] == [
        ("yacht", ("motorboat", "yacht")),
        ("yacht", ("yacht", "sailboat")),
    ]
    assert facts["fewer_than_four_choices"] == 2
    assert facts["splits"]["by_type"] == {"val": {"Happening": 3}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": 4}, "entry 0: field 'answer': 4 is no choice"),
        ({"answer": "1"}, "field 'answer'"),
        ({"multi_choice": ["a", "b"], "answer": 2}, "field 'answer': 2 is no choice.*\n.*0 to 1"),
        ({"multi_choice": ["a", None, "b", ""]}, "field 'answer': choice 1 is empty"),
        ({"multi_choice": [None, "a", None, None]}, "field 'multi_choice': one choice is none"),
        ({"multi_choice": []}, "field 'multi_choice': no choices"),
        ({"multi_choice": ["a"] * 5}, "field 'multi_choice': no choices"),
        ({"multi_choice": [1, "a"]}, "field 'multi_choice': no choices"),
        ({"question_type": "Who"}, "'Who' is unknown"),
        ({"question_relation": "None"}, "field 'question_relation'"),
        ({"question_text": "?"}, "field 'question': .*has words"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, changes: dict, message: str):
    (tmp_path / "train_qa.json").write_text(json.dumps([entry(**changes)]))
    with pytest.raises(InputError, match=message):
        build(AvqaConfig(source=tmp_path), tmp_path / "out", functools.partial(Progress, "avqa"))


def test_ids_are_there_once(tmp_path: Path):
    (tmp_path / "train_qa.json").write_text(json.dumps([entry(1), entry(1)]))
    with pytest.raises(InputError, match=r"'1' is the id of .* entry 0"):
        build(AvqaConfig(source=tmp_path), tmp_path / "out", functools.partial(Progress, "avqa"))
