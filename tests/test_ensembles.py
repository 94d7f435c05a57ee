"""Ensembles and solos: who is in them, what can be asked, and clips that decode to it."""

from __future__ import annotations

import collections
import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest

from configs import load_config
from pipelines.corpora.synthetic import ensemble_corpus, ensembles, solos
from pipelines.corpora.synthetic.balance import ask_all
from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.drawing import draw
from pipelines.corpora.synthetic.ensembles import EnsemblesConfig, describe_ensemble, split_of
from pipelines.corpora.synthetic.question_templates import KINDS, NUMBERS, TEMPLATES, Facts, Part
from pipelines.corpora.synthetic.sound import synthesise
from pipelines.manifest import read_manifest
from shards.baselines import accuracies, chances, look_up
from shards.errors import InputError
from shards.progress import Progress
from shards.questions import load_questions
from tests.fixtures.decoding import decode_sound

unit, integration = pytest.mark.unit, pytest.mark.integration

MANY = 700
# A cat left, two frogs (left and middle), a drum right; the bell is heard only, the cat is silent.
FACTS = Facts(
    seen=(("cat", "left"), ("frog", "left"), ("frog", "middle"), ("drum", "right")),
    heard={"frog": Part(0, 5, -22.0), "drum": Part(1, 3, -34.0), "bell": Part(2, 5, -28.0)},
    seconds=5.0,
)


@pytest.fixture(scope="module")
def scenes() -> list[dict]:
    config = EnsemblesConfig(clips=MANY)
    return [describe_ensemble(config, number) for number in range(MANY)]


def asked(text: str, facts: Facts = FACTS) -> dict[tuple[str, ...], str]:
    (template,) = (template for template in TEMPLATES if template.text == text)
    return dict(template.ask(facts))


@integration
def test_sound_and_picture_inform_each_other(scenes: list[dict]):
    seen = [{item["class"] for item in scene["objects"]} for scene in scenes]
    heard = [{sound["class"] for sound in scene["sounds"]} for scene in scenes]
    both = sum(len(a & b) for a, b in zip(seen, heard, strict=True))
    assert both / sum(map(len, seen)) == pytest.approx(ensembles.SOUNDS, abs=0.04)
    assert 0.88 < both / sum(map(len, heard)) < 0.96
    for scene, picture, sound in zip(scenes, seen, heard, strict=True):
        assert all(item["look"] == item["class"] for item in scene["objects"])
        assert all(part["timbre"] == part["class"] for part in scene["sounds"])
        assert len(scene["sounds"]) == len(sound) >= 1
        assert 1 <= len(scene["objects"]) <= 4
        assert len(picture | sound) <= 4
    assert len({(name, sound) for names in heard for name in names for sound in [len(names)]}) == 8 * 4


@unit
def test_places_do_not_touch_and_are_where_they_are_called(scenes: list[dict]):
    middles = {"left": 1 / 6, "middle": 1 / 2, "right": 5 / 6}
    for scene in scenes:
        cells = {(item["place"], item["y"] > 0.5) for item in scene["objects"]}
        assert len(cells) == len(scene["objects"])
        assert all(abs(item["x"] - middles[item["place"]]) < 0.02 for item in scene["objects"])
        assert all(0.26 < item["size"] < 0.34 for item in scene["objects"])


@unit
def test_a_part_sounds_from_its_start_to_its_end_at_its_level(scenes: list[dict]):
    scene = next(s for s in scenes for p in s["sounds"] if (p["start_s"], p["end_s"]) == (1, 3))
    (part,) = (part for part in scene["sounds"] if (part["start_s"], part["end_s"]) == (1, 3))
    quiet = {"colour": "pink", "loudness_db": -90.0}
    seconds = synthesise(scene | {"sounds": [part], "noise": quiet}).reshape(5, 16_000)
    power = 10 * np.log10((seconds**2).mean(1))
    assert 10 * np.log10((seconds[1:3] ** 2).mean()) == pytest.approx(part["playing_db"], abs=0.1)
    assert (power[[0, 3, 4]] < -80).all()
    assert (power[1:3] > part["playing_db"] - 8).all()


@unit
def test_levels_of_one_clip_can_be_told_apart(scenes: list[dict]):
    for scene in scenes:
        levels = sorted(part["playing_db"] for part in scene["sounds"])
        assert all(np.diff(levels) > 4)
        assert levels[0] - scene["noise"]["loudness_db"] > 8


@unit
def test_a_clip_and_its_questions_depend_on_seed_and_number_alone(scenes: list[dict]):
    assert describe_ensemble(EnsemblesConfig(clips=9, questions=2), 7) == scenes[7]
    assert describe_ensemble(EnsemblesConfig(clips=9, seed=1), 7) != scenes[7]
    splits = [split_of(number) for number in range(40)]
    whole = ask_all(scenes[:40], splits, 5, 0)
    assert whole[: len(ask_all(scenes[:8], splits[:8], 5, 0))] == ask_all(scenes[:8], splits[:8], 5, 0)
    assert ask_all(scenes[:40], splits, 5, 1) != whole


@unit
def test_what_is_counted():
    assert asked("How many kinds of performers are heard throughout the video?") == {(): "three"}
    assert asked("How many kinds of performers are heard besides the {}?")["bell",] == "two"
    assert asked("How many performers are in the video?") == {(): "four"}
    assert asked("How many kinds of performers are in the video?") == {(): "three"}
    counts = dict.fromkeys(CLASSES, "zero") | {"cat": "one", "frog": "two", "drum": "one"}
    assert asked("How many {}s are in the video?") == {(name,): count for name, count in counts.items()}
    assert asked("How many performers in the video make no sound?") == {(): "one"}
    assert asked("How many of the performers in the video are heard?") == {(): "three"}
    sounding = {("bell",): "zero", ("cat",): "zero", ("drum",): "one", ("frog",): "two"}
    assert asked("How many {}s in the video are heard?") == sounding


@unit
def test_what_is_compared():
    louder = asked("Is the {} louder than the {}?")
    assert (louder["frog", "drum"], louder["drum", "frog"], len(louder)) == ("yes", "no", 6)
    longer = asked("Does the {} play longer than the {}?")
    assert longer["bell", "drum"] == "yes"
    assert asked("Is the performer {} louder than the performer {}?") == {
        ("in the middle", "on the right"): "yes",
        ("on the right", "in the middle"): "no",
    }
    longer = asked("Does the performer {} play longer than the performer {}?")
    assert longer["on the right", "in the middle"] == "no"


@unit
def test_what_is_where():
    assert asked("What is on the {} of the {}?") == {}
    assert asked("What is the performer {}?") == {("in the middle",): "frog", ("on the right",): "drum"}
    assert asked("Where is the performer that makes no sound?") == {(): "left"}
    assert asked("Where is the {} performer?") == {("quietest",): "right"}  # the loudest are twins apart
    assert asked("Where is the performer that comes in {}?") == {("second",): "right"}
    assert asked("Where is the performer that comes in {} the {}?") == {}


@unit
def test_what_is_beside_whom_and_before_whom():
    facts = Facts(
        seen=(("cat", "left"), ("frog", "middle"), ("drum", "right")),
        heard={"drum": Part(0, 5, -22.0), "cat": Part(2, 3, -34.0)},
        seconds=5.0,
    )
    assert asked("What is on the {} of the {}?", facts) == {
        ("right", "frog"): "drum",
        ("left", "frog"): "cat",
    }
    assert asked("Where is the performer that comes in {} the {}?", facts) == {
        ("before", "cat"): "right",
        ("after", "drum"): "left",
    }
    comes_in = {("first",): "right", ("second",): "left", ("last",): "left"}
    assert asked("Where is the performer that comes in {}?", facts) == comes_in


@unit
def test_what_there_is():
    sounding = {("cat",): "no", ("drum",): "yes", ("frog",): "yes"}
    assert asked("Does the {} in the video make a sound?") == sounding
    always = {("drum",): "no", ("frog",): "yes"}
    assert asked("Is the {} in the video playing all the time?") == always
    assert asked("Is someone heard who is not in the video?") == {(): "yes"}


@unit
def test_questions_are_many_of_all_kinds_and_balanced(scenes: list[dict]):
    splits = [split_of(number) for number in range(MANY)]
    questions = ask_all(scenes, splits, 5, 0)
    assert 4 < len(questions) / MANY <= 5
    assert len({(question.clip, question.type) for question in questions}) == len(questions)
    train = [question for question in questions if question.split == "train"]
    assert {question.type for question in train} == set(KINDS)
    kinds = collections.Counter(question.type for question in train)
    assert min(kinds.values()) > 0.7 * max(kinds.values())
    texts = collections.defaultdict(collections.Counter)
    for question in train:
        texts[question.question][question.answer] += 1
    for counts in texts.values():  # however it is filled, "yes" is not ahead of "no"
        if set(counts) <= {"yes", "no"}:
            assert abs(counts["yes"] - counts["no"]) <= 2
    test = [question for question in questions if question.split == "test"]
    blind, chance = accuracies(test, look_up(train, test)), chances(test)
    for kind in KINDS:
        count = sum(question.type == kind for question in test)
        assert blind[kind] < chance[kind] + 3.5 * (0.25 / count) ** 0.5, kind


@unit
def test_answers_are_those_of_the_template(scenes: list[dict]):
    for scene in scenes[:200]:
        facts = Facts.of(scene)
        for template in TEMPLATES:
            for filling, answer in template.ask(facts):
                assert answer in (*template.answers, *NUMBERS)
                assert template.text.count("{}") == len(filling)


@unit
def test_solos_are_a_second_of_their_class_with_distractors_of_one_sense():
    config = solos.SolosConfig(clips=400)
    distracted = 0
    for number in range(400):
        scene = solos.describe(config, number)
        seen = [item["class"] for item in scene["objects"]]
        heard = [part["class"] for part in scene["sounds"]]
        assert set(seen) & set(heard) == set(scene["labels"])
        assert scene["seconds"] == 1.0
        if len(heard) > 1:
            assert scene["sounds"][0]["playing_db"] - scene["sounds"][1]["playing_db"] > 5.9
        distracted += len(heard) > 1
    assert distracted / 400 == pytest.approx(solos.DISTRACTED, abs=0.09)
    assert draw(scene).shape == (4, 96, 96, 3)


@unit
def test_builds_clips_and_questions(tmp_path: Path):
    config = EnsemblesConfig(clips=2, seed=3, seconds=4, size=64, fps=2, jobs=1)
    progress = functools.partial(Progress, "ensembles", stream=io.StringIO())
    summary = ensemble_corpus.build(config, tmp_path / "a", progress)
    facts = json.loads((tmp_path / "a" / "corpus.json").read_text())
    clips = read_manifest(tmp_path / "a" / "manifest.csv")
    questions = load_questions(tmp_path / "a" / "questions.jsonl")
    assert {question.clip for question in questions} <= {clip.id for clip in clips}
    assert (summary.clips, len(clips)) == (2, 2)
    assert sum(facts["questions"].values()) == len(questions)
    for clip in clips:
        path = Path(clip.path or "")
        assert set(clip.labels) == set(json.loads(path.with_suffix(".json").read_text())["labels"])
        assert len(decode_sound(path)) / 16_000 == pytest.approx(4, abs=0.07)
    solos.build(solos.SolosConfig(clips=1, size=64, jobs=1), tmp_path / "b", progress)
    (solo,) = read_manifest(tmp_path / "b" / "manifest.csv")
    assert len(decode_sound(Path(solo.path or ""))) / 16_000 == pytest.approx(1, abs=0.07)


@unit
@pytest.mark.parametrize("wrong", [{"clips": 0}, {"questions": 10}, {"seconds": 4.5}, {"size": 62}])
def test_wrong_settings_are_refused(wrong: dict):
    with pytest.raises(InputError, match=f"field '{next(iter(wrong))}'"):
        load_config(EnsemblesConfig, None, [f"{name}={value}" for name, value in ({"clips": 1} | wrong).items()])


@unit
def test_four_may_be_heard_in_as_many_seconds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        times = ensembles.random_times(rng, 4, 4)
        assert all(0 <= start < end <= 4 for start, end in times)
