"""Ensembles with a dial: questions with the performer as the answer, and what partial observers can know of them."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import question_floors
from configs import load_config
from pipelines.corpora.question_report import report, table
from pipelines.corpora.registry import CORPORA
from pipelines.corpora.synthetic import observers
from pipelines.corpora.synthetic.balance import LEADS_OF_MANY, Candidate, ask_with_fillings
from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.ensembles import split_of
from pipelines.corpora.synthetic.ensembles_2 import Ensembles2Config, describe
from pipelines.corpora.synthetic.observers import accuracies_of_observers
from pipelines.corpora.synthetic.question_templates import KINDS, Facts, Rank
from pipelines.corpora.synthetic.question_templates_2 import KINDS_2, TEMPLATES_2
from shards.baselines import accuracies, look_up
from shards.questions import Question, load_questions
from tests.fixtures.corpora import facts_of
from tests.test_ensembles import FACTS

unit, integration = pytest.mark.unit, pytest.mark.integration

MANY, FEW = 400, 150
Questions = list[tuple[Question, Candidate]]


def drawn(clips: int = MANY, **settings: Any) -> tuple[Ensembles2Config, list[dict], Questions]:
    config = Ensembles2Config(clips=clips, **settings)
    scenes = [describe(config, number) for number in range(config.clips)]
    splits = [split_of(number) for number in range(config.clips)]
    asked = (config.questions, config.seed, TEMPLATES_2, config.train_questions)
    return config, scenes, ask_with_fillings(scenes, splits, *asked)


@pytest.fixture(scope="module", params=[None, 20], ids=["a kind once", "20 to train on"])
def usual(request: pytest.FixtureRequest) -> tuple[Ensembles2Config, list[dict], Questions]:
    return drawn(train_questions=request.param)


def asked(text: str, facts: Facts = FACTS) -> dict[tuple[str, ...], str]:
    (template,) = (template for template in TEMPLATES_2 if template.text == text)
    return dict(template.ask(facts))


def rank(text: str, filling: tuple[str, ...]) -> Rank:
    (template,) = (template for template in TEMPLATES_2 if template.text == text)
    assert template.rank is not None
    return template.rank(FACTS, filling, asked(text)[filling])


@unit
def test_the_performer_is_the_answer():
    louder = asked("Which is louder, the {} or the {}?")
    assert (louder["frog", "drum"], louder["drum", "frog"], louder["bell", "drum"]) == ("frog", "frog", "bell")
    assert asked("Which plays longer, the {} or the {}?")["drum", "bell"] == "bell"
    pair = ("in the middle", "on the right")
    for verb in ("is louder", "plays longer"):
        text = f"Which {verb}, the performer {{}} or the performer {{}}?"
        assert asked(text) == {pair: "frog", pair[::-1]: "frog"}
        assert rank(text, pair) == Rank(3, 0, 2)
    assert asked("Which performer in the video is the {}?") == {("loudest",): "frog", ("quietest",): "drum"}
    assert asked("Which performer in the video makes no sound?") == {(): "cat"}
    assert asked("Which performer in the video comes in {}?") == {("first",): "frog", ("last",): "drum"}
    beside = "Who comes in right {} the performer {}?"
    assert asked(beside) == {
        ("after", "in the middle"): "drum",
        ("before", "on the right"): "frog",
        ("after", "on the right"): "bell",
    }
    assert rank(beside, ("after", "in the middle")) == Rank(("after", 3), 0, 2)
    assert rank(beside, ("after", "on the right")) == Rank(("after", 3), 1, 2)


@unit
def test_what_sound_alone_would_tell_for_certain_is_not_asked():
    two = Facts(FACTS.seen, {name: FACTS.heard[name] for name in ("frog", "drum")}, 5.0)
    assert asked("Which is louder, the performer {} or the performer {}?", two) == {}
    assert asked("Who comes in right {} the performer {}?", two) == {}
    assert asked("Is the performer {} louder than the performer {}?", two) != {}


@integration
def test_yes_no_comparisons_are_in_kinds_of_their_own(usual):
    assert set(KINDS_2) == {*KINDS, "Audio Comparative (yes/no)", "Audio-Visual Comparative (yes/no)"}
    for question, _ in usual[2]:
        if "Comparative" in question.type:
            assert (question.answer in ("yes", "no")) == question.type.endswith("(yes/no)")


@unit
def test_clips_and_questions_depend_on_seed_and_number_alone(usual):
    config, scenes, whole = usual
    assert describe(Ensembles2Config(clips=9, questions=2), 7) == scenes[7]
    assert describe(Ensembles2Config(clips=9, seed=1), 7) != scenes[7]
    splits = [split_of(number) for number in range(8)]
    part = ask_with_fillings(scenes[:8], splits, 6, 0, TEMPLATES_2, config.train_questions)
    assert [question for question, _ in whole[: len(part)]] == [question for question, _ in part]


@unit
def test_more_questions_to_train_on_are_others_and_change_no_other_split():
    few, many = drawn(FEW)[2], drawn(FEW, train_questions=20)[2]
    assert [q for q, _ in few if q.split != "train"] == [q for q, _ in many if q.split != "train"]
    train = [q for q, _ in many if q.split == "train"]
    assert len({(q.clip, q.question) for q in train}) == len({q.id for q in train}) == len(train)
    by_clip = collections.Counter(q.clip for q in train)
    assert max(by_clip.values()) == 20
    assert sum(by_clip.values()) > 2 * sum(q.split == "train" for q, _ in few)
    of_a_kind = collections.Counter((q.clip, q.type) for q in train)
    assert max(of_a_kind.values()) > 1
    assert "train_questions" not in Ensembles2Config(clips=9).content()
    assert Ensembles2Config(clips=9, train_questions=20).content()["train_questions"] == 20


@unit
def test_either_of_two_is_as_often_the_answer(usual):
    named: dict[str, collections.Counter[bool]] = collections.defaultdict(collections.Counter)
    first = collections.Counter[bool]()
    ranks: dict[object, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for question, candidate in usual[2]:
        if question.split != "train":
            continue
        if candidate.template.of_two:
            first[question.answer == candidate.filling[0]] += 1
            for word in candidate.filling:
                named[candidate.template.text + word][word == question.answer] += 1
        if candidate.rank is not None:
            ranks[candidate.template.text, candidate.rank.among][candidate.rank.rank] += 1
    leads = 1 if usual[0].train_questions is None else LEADS_OF_MANY
    assert abs(first[True] - first[False]) <= 2 * leads  # of two templates
    assert len(named) == 2 * len(CLASSES)
    assert all(abs(counts[True] - counts[False]) <= 2 * leads for counts in named.values())
    for counts in ranks.values():
        assert max(counts.values()) - min(counts.values()) <= 3 * leads


@unit
def test_the_question_alone_tells_little(usual):
    questions = [question for question, _ in usual[2]]
    train, test = ([q for q in questions if q.split == split] for split in ("train", "test"))
    blind = accuracies(test, look_up(train, test))
    assert blind["Audio Comparative"] == pytest.approx(0.5, abs=0.2)
    assert blind["Audio-Visual Comparative"] < 0.35
    assert blind["Audio-Visual Location"] < 0.45
    assert blind["all"] < 0.42


@integration
def test_observers_answer_what_they_know_and_guess_the_rest(usual):
    config, scenes, pairs = usual
    found = accuracies_of_observers(config.model_copy(update={"imagined": 15}), scenes, pairs)
    assert {name for name, accuracy in found["sound"].items() if accuracy == 1} == {
        "Audio Counting",
        "Audio Comparative",
        "Audio Comparative (yes/no)",
    }
    assert {name for name, accuracy in found["picture"].items() if accuracy == 1} == {
        "Visual Counting",
        "Visual Location",
    }
    counting = {"Audio Counting", "Visual Counting", "Audio-Visual Counting"}
    assert {name for name, accuracy in found["who"].items() if accuracy == 1} == counting
    for name in ("sound", "picture"):  # neither sense alone answers what is asked of both
        assert all(found[name][kind] < 0.75 for kind in KINDS_2 if kind.startswith("Audio-Visual Comp"))
    assert found["who"]["Audio Comparative"] < 0.65
    text = table({**report([question for question, _ in pairs]), "observers": found})
    header = text.splitlines()[1].split()
    assert header == ["type", "asked", "look-up", "majority", "chance", "who", "picture", "sound"]


@integration
def test_the_dial_says_what_one_sense_tells_of_the_other():
    told = {}
    for name, dial in {"all": (1.0, 1.0), "nothing": (0.5, 0.0)}.items():
        config, scenes, pairs = drawn(FEW, sounds=dial[0], coupling=dial[1], imagined=8)
        told[name] = accuracies_of_observers(config, scenes, pairs)
        heard = {scene["id"]: {part["class"] for part in scene["sounds"]} for scene in scenes}
        seen = {scene["id"]: {item["class"] for item in scene["objects"]} for scene in scenes}
        if name == "all":
            assert heard == seen
        else:  # a class is among 3 of 8 that are seen whether it is heard or not
            shares = [len(heard[clip] & seen[clip]) / len(heard[clip]) for clip in heard]
            expected = sum(map(len, seen.values())) / FEW / len(CLASSES)
            assert sum(shares) / FEW == pytest.approx(expected, abs=0.07)
    assert told["all"]["picture"]["Audio Counting"] == 1.0
    assert told["nothing"]["picture"]["Audio Counting"] < 0.65
    assert told["all"]["sound"]["Visual Counting"] > told["nothing"]["sound"]["Visual Counting"] + 0.15


@unit
def test_who_is_seen_given_who_is_heard_follows_the_design():
    """By relabelling a pool of casts, against counting the casts that are drawn with exactly these heard."""
    config = Ensembles2Config(clips=1, coupling=0.5)
    rng = observers.rng_of(0, "test")
    pool = observers._pool(config)
    heard = ["cat", "drum"]
    renamed = collections.Counter(len({*observers._seen_given(rng, pool, heard)} & {*heard}) for _ in range(3000))
    counted = collections.Counter[int]()
    for _ in range(6000):
        seen, others = config.cast(rng)
        if len(others) == len(heard):
            counted[len({*seen} & {*others})] += 1
    for overlap in range(3):
        assert renamed[overlap] / 3000 == pytest.approx(counted[overlap] / counted.total(), abs=0.05)


@integration
def test_builds_and_remembers_the_observers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = {"clips": 4, "seconds": 4, "size": 64, "fps": 2, "imagined": 3, "jobs": 1}
    facts = facts_of(CORPORA["ensembles-2"], tmp_path, **settings)
    questions = load_questions(tmp_path / "questions.jsonl")
    assert sum(facts["questions"].values()) == len(questions)
    assert set(facts["observers"]) == {"who", "picture", "sound"}
    before = (tmp_path / "corpus.json").read_bytes()
    monkeypatch.setattr("pipelines.corpora.synthetic.ensembles_2.accuracies_of_observers", None)
    facts_of(CORPORA["ensembles-2"], tmp_path, **settings)
    assert (tmp_path / "corpus.json").read_bytes() == before
    assert json.loads(before)["generator"] == "ensembles/2"


@unit
def test_floors_are_measured_without_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(observers, "POOL", 400)
    assert question_floors.main(["--clips", "20", "--imagined", "2", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "question-floors.md").read_text()
    assert page.count("look-up") == len(question_floors.DIALS)
    rows = json.loads((tmp_path / "question-floors.json").read_text())["rows"]
    assert rows[1]["informed"] == {"heard_if_seen": 1.0, "seen_if_heard": 1.0}


@unit
def test_settings_are_in_range():
    for wrong in ("sounds=0.4", "coupling=1.1", "questions=12"):
        with pytest.raises(ValueError, match=wrong.partition("=")[0]):
            load_config(Ensembles2Config, None, ["clips=1", wrong])
