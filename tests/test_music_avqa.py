"""MUSIC-AVQA's questions, on small files of its forms and on the real ones."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import pytest

from pipelines.corpora.public.music_avqa_entries import ANSWERS, fill
from pipelines.corpora.registry import CORPORA
from pipelines.corpus import main
from pipelines.manifest import read_manifest
from shards.errors import InputError
from shards.questions import Question, Vocabulary, load_questions
from tests.fixtures.corpora import facts_of

unit, integration = pytest.mark.unit, pytest.mark.integration


def entry(number: int = 1, **changes) -> dict:
    return {
        "video_id": f"{number:08d}",
        "question_id": number,
        "type": '["Audio-Visual", "Comparative"]',
        "question_content": "Is the <Object> on the <LR> louder than the <Object> on the <LR>?",
        "templ_values": '["flute", "left", "tuba", "right"]',
        "question_deleted": 0,
        "anser": "yes",
    } | changes


def build(folder: Path, **files: list[dict]) -> tuple[dict, tuple[Question, ...], tuple[Question, ...]]:
    """Files by split, the corpus made of them: what it tells, its official and its disjoint questions."""
    for split, content in files.items():
        (folder / f"avqa-{split}.json").write_text(json.dumps(content))
    told = facts_of(CORPORA["music_avqa"], folder / "out", source=folder, videos=folder / "videos")
    both = (load_questions(folder / "out" / f"questions{ending}.jsonl") for ending in ("", "-disjoint"))
    return (told, *both)


@unit
def test_values_fill_the_placeholders_in_turn():
    text = "Is the flute on the left louder than the tuba on the right?"
    assert fill(entry()["question_content"], ["flute", "left", "tuba", "right"]) == text
    assert fill("What is the <LRer> <TH>? ", ["leftest", "<TH>"]) == "What is the leftest <TH>?"
    for values in ([], ["flute"] * 5):
        with pytest.raises(ValueError, match="values for 4 placeholders"):
            fill(entry()["question_content"], values)


@unit
def test_all_three_forms_are_read(tmp_path: Path):
    original = entry(1)
    added = {name: value for name, value in entry(2).items() if not name.startswith("question_")}
    added |= {
        "question_content": "Is there a <Object> sound?",
        "templ_values": ["flute"],
        "video_id": "a-B_flip",
    }
    mixed = added | {"video_id": "00000003", "unmatch_audio": "00000001", "type": '["Audio", "Counting"]'}
    told, questions, _ = build(tmp_path, train=[original, added, mixed], test=[entry(9, question_deleted=1)] * 2)
    assert [(q.id, q.clip, q.type) for q in questions] == [
        ("1", "00000001", "Audio-Visual Comparative"),
        ("avqa-train-1", "a-B_flip", "Audio-Visual Comparative"),
        ("avqa-train-2", "00000003+00000001", "Audio Counting"),
    ]
    assert told["deleted"] == 2
    clips = {clip.id: clip for clip in read_manifest(tmp_path / "out" / "manifest.csv")}
    assert clips["00000003+00000001"].path == str(tmp_path / "videos" / "00000003+00000001.mp4")


@unit
@pytest.mark.parametrize("kept", [0, "0", False, "false", None, ""])
@pytest.mark.parametrize("deleted", [1, "1", True, "True"])
def test_a_deleted_question_may_say_so_in_several_ways(tmp_path: Path, kept: object, deleted: object):
    told, questions, _ = build(tmp_path, train=[entry(1, question_deleted=kept), entry(2, question_deleted=deleted)])
    assert [question.id for question in questions] == ["1"]
    assert told["deleted"] == 1


@unit
def test_files_of_deleted_questions_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    gone = [entry(1, question_deleted=1), entry(2, question_deleted="1")]
    (tmp_path / "avqa-test.json").write_text(json.dumps(gone))
    out = str(tmp_path / "out")
    assert main(["music_avqa", "--source", str(tmp_path), "--out", out]) == 2
    error = capsys.readouterr().err
    assert "avqa-test.json: field 'question_deleted': all 2 questions are deleted" in error
    (tmp_path / "avqa-val.json").write_text(json.dumps([entry(3)]))
    assert main(["music_avqa", "--source", str(tmp_path), "--out", out]) == 0
    assert "avqa-test.json: all 2 questions are deleted" in capsys.readouterr().out


@unit
def test_repeated_ids_stay_and_contradictions_are_counted(tmp_path: Path):
    told, questions, _ = build(tmp_path, train=[entry(1), entry(1, anser="no"), entry(2)])
    assert [question.id for question in questions] == ["1", "1-2", "2"]
    assert told["contradictory"] == 1


@unit
def test_no_version_of_a_video_is_in_two_disjoint_splits(tmp_path: Path):
    numbers = range(1, 121)
    train = [entry(n, video_id=f"sa{n:08d}") for n in numbers]
    val = [entry(n + 200, video_id=f"{n:08d}") for n in numbers]
    test = [entry(n + 400, video_id=f"x{n}_flip") for n in numbers]
    test += [entry(n + 600, video_id=f"x{n}", unmatch_audio=f"{n:08d}") for n in numbers if n % 2]
    told, official, disjoint = build(tmp_path, train=train, val=val, test=test)
    assert told["videos_in_several_splits"] == 0  # by name; versions count in the other split only
    families = collections.defaultdict(set)
    for question in disjoint:
        number = int("".join(filter(str.isdigit, question.clip.split("+")[0])))
        kind = question.clip.startswith("x") and not number % 2
        families[number, kind].add(question.split)
    assert all(len(splits) == 1 for splits in families.values())
    counts = collections.Counter(question.split for question in disjoint)
    assert [round(10 * counts[split] / len(disjoint)) for split in ("train", "val", "test")] == [7, 1, 2]
    assert [q.model_copy(update={"split": ""}) for q in disjoint] == [
        q.model_copy(update={"split": ""}) for q in official
    ]


@unit
def test_a_clip_of_two_official_splits_is_told_and_gets_one_row(tmp_path: Path):
    told, _, _ = build(tmp_path, val=[entry(1)], test=[entry(2, video_id="00000001")])
    assert told["videos_in_several_splits"] == 1
    (clip,) = read_manifest(tmp_path / "out" / "manifest.csv")
    assert clip.split == "val"


@unit
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anser": "kazoo"}, "entry 0: field 'anser': 'kazoo' is not among the 42"),
        ({"type": '["Audio", "Location"]'}, "'Audio Location' is no type"),
        ({"type": "Audio"}, "field 'type': no list"),
        ({"templ_values": '["flute"]'}, "field 'templ_values': 1 values for 4 placeholders"),
        ({"templ_values": "[1, 2, 3, 4]"}, "field 'templ_values': no list"),
        ({"video_id": ""}, "field 'video_id'"),
        ({"question_deleted": "perhaps"}, "field 'question_deleted': 'perhaps' is neither"),
        ({"templ_values": None}, "field 'templ_values': 0 values for 4 placeholders"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        build(tmp_path, train=[entry(**changes)])
    assert not (tmp_path / "out").exists()


@unit
def test_wrong_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ["--out", str(tmp_path / "out")]
    assert main(["music_avqa", *out]) == 2
    assert main(["music_avqa", "--source", str(tmp_path), *out]) == 2
    (tmp_path / "a.json").write_text("{}")
    assert main(["avqa", "--json", f"train={tmp_path / 'a.json'}", *out]) == 2
    (tmp_path / "a.json").write_text("{")
    assert main(["music_avqa", "--json", f"train={tmp_path / 'a.json'}", *out]) == 2
    assert capsys.readouterr().err.count("remedy: ") == 4


@integration
def test_the_real_questions_parse_without_loss(shared_data: Path, tmp_path: Path):
    files = [(split, shared_data / "music_avqa" / f"avqa-{split}.json") for split in ("val", "test")]
    if not all(path.is_file() for _, path in files):
        pytest.skip("no MUSIC-AVQA files in the shared data")
    told = facts_of(CORPORA["music_avqa"], tmp_path, files=files)
    questions = load_questions(tmp_path / "questions.jsonl")
    assert told["splits"]["questions"] == {"val": 4568, "test": 9129}
    published = {  # of the test split
        "Audio Counting": 1017,
        "Audio Comparative": 594,
        "Visual Counting": 1197,
        "Visual Location": 1225,
        "Audio-Visual Existential": 988,
        "Audio-Visual Location": 920,
        "Audio-Visual Counting": 1265,
        "Audio-Visual Comparative": 1101,
        "Audio-Visual Temporal": 822,
    }
    assert told["splits"]["by_type"]["test"] == published
    assert told["videos_in_several_splits"] == 2296
    assert not any("<" in question.question for question in questions)
    assert len(ANSWERS) == 42
    assert {question.answer for question in questions} == ANSWERS - {"ten"}
    words = Vocabulary.of(questions, "val")
    assert len(words.words) == 2 + 88
    assert max(sum(id_ > 0 for id_ in words.encode(q.question, 30)) for q in questions) == 14
    blind = told["splits"]["question_only"]
    assert blind["look_up"]["all"] == pytest.approx(0.5205, abs=1e-3)
    splits = collections.defaultdict(set)
    for question in load_questions(tmp_path / "questions-disjoint.jsonl"):
        splits[question.clip].add(question.split)
    assert all(len(those) == 1 for those in splits.values())


@unit
def test_the_train_file_of_synthetic_videos_is_called_so(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = shared_data / "music_avqa" / "avqa-train_fake.json"
    if not path.is_file():
        pytest.skip("no MUSIC-AVQA files in the shared data")
    assert main(["music_avqa", "--json", f"train={path}", "--out", str(tmp_path)]) == 0
    assert "no train questions about real ones" in capsys.readouterr().out
    told = json.loads((tmp_path / "corpus.json").read_text())
    assert (told["splits"]["questions"], told["contradictory"]) == ({"train": 6233}, 56)
