"""Questions about raw clips: the features, and so the logits, that evaluation has for the same clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import avmend
from pipelines.features import extract
from pipelines.settings import FeatureConfig
from serving.predict import main
from serving.service import Service
from serving.settings import ServeConfig
from serving.web import Front
from shards.errors import InputError
from shards.questions import Question, Vocabulary, load_questions, save_questions
from tests.fixtures.asking import SIZES, saved_run
from tests.fixtures.clips import NAMES, ingested_clips
from tests.fixtures.published import avst_state
from tests.fixtures.serving import InProcess, client_of
from tests.fixtures.worlds import World
from trainers.avqa.clips import Clips
from trainers.avqa.config import AVQAConfig
from trainers.avqa.items import QuestionItems
from trainers.imports.command import main as bring
from tuning.report.clips import load_run

pytestmark = pytest.mark.integration
ASKED = ("What can be heard?", "Is there a drum?")
CLOSE = 1e-5  # of logits: batches of other sizes round otherwise


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained run on features that the world's backbone made of a few clips; no backbone beside it."""
    root = tmp_path_factory.mktemp("asked")
    (root / "clips").mkdir()
    media = ingested_clips(root / "clips", ("train", "train", "test", "test"))
    features = extract(media, world.backbone, FeatureConfig(extractor="cavmae", workers=0))
    questions = [
        Question(id=f"{clip}-{i}", clip=clip, question=text, answer=("bell", "no")[i], type="Audio", split="train")
        for clip in NAMES
        for i, text in enumerate(ASKED)
    ]
    save_questions(root / "questions.jsonl", questions)
    fields = {"data": features, "questions": root / "questions.jsonl", "sizes": SIZES["avst"], "workers": 0}
    saved_run(root, "specialist", AVQAConfig(**fields, absent="audio"))
    return saved_run(root, "avst", AVQAConfig(**fields))


def evaluated(run: Path) -> dict[tuple[str, str], np.ndarray]:
    """Logits by clip and question, as evaluation computes them from the features on disk."""
    predictor = load_run(run)
    questions = load_questions(predictor.config.questions)
    items = QuestionItems(Clips(predictor.config.data), questions, predictor.vocabulary, predictor.words)
    with torch.inference_mode():
        logits = predictor(items.batch(range(len(items)))).numpy()
    return {(q.clip, q.question): row for q, row in zip(questions, logits, strict=True)}


def test_answers_are_what_evaluation_computes_for_the_same_clips(run, world: World, capsys):
    clips = Path(load_run(run).config.questions).parent / "clips"
    words = [str(run), *(str(clips / name) for name in NAMES), "--backbone", str(world.backbone)]
    assert main([*words, "--question", ASKED[0], "--question", ASKED[1], "--json", "--device", "cpu"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wanted = evaluated(run)
    assert [(Path(line["clip"]).name, line["question"]) for line in lines] == list(wanted)
    for line, logits in zip(lines, wanted.values(), strict=True):
        assert list(line["runs"][0]["logits"].values()) == pytest.approx(logits, abs=CLOSE)
    assert lines[0]["runs"][0]["ruined"] is None, "such runs have no detector"


def test_the_backbone_is_the_one_beside_the_run_that_made_the_features(run, world: World, tmp_path):
    with pytest.raises(InputError, match=r"no finetune or dense run beside it[^$]*give --backbone \(backbone=\)"):
        avmend.load(run, "cpu")
    other = next(folder for recipe, folder in world.others.items() if recipe == "prompt")
    with pytest.raises(InputError, match=str(other)):
        avmend.load(run, "cpu", backbone=other)
    beside = run.parent / world.backbone.name
    beside.symlink_to(world.backbone)
    try:
        model = avmend.load(run, "cpu")
    finally:
        beside.unlink()
    clip = model.loaded.run.config.questions.parent / "clips" / NAMES[0]
    found = model.predict(clip, question=ASKED[1])
    assert found.logits == pytest.approx(evaluated(run)[NAMES[0], ASKED[1]], abs=CLOSE)
    assert model.answers == ("bell", "no")


def test_a_question_is_needed_and_a_specialist_says_what_it_looks_at(run, world: World, capsys):
    model = avmend.load(run.parent / "specialist", "cpu", backbone=world.backbone)
    clips = model.loaded.run.config.questions.parent / "clips"
    with pytest.raises(InputError, match="needs a question"):
        model.predict(clips / NAMES[0])
    picture, sound = model.predict([clips / "silent.mp4", clips / "sound.wav"], question=ASKED[0])
    assert picture.answer in model.answers
    assert sound.failure.error == "nothing to look at"
    odd = model.predict(clips / "silent.mp4", question="Is there a theremin, or what can be heard?")
    assert odd.notes == ("unknown words: theremin", "only the first 4 of 9 words are read")
    assert picture.notes == ()
    assert main([str(run), str(clips / NAMES[0]), "--backbone", str(world.backbone)]) == 2
    assert "remedy: give --question" in capsys.readouterr().err


def test_features_of_public_weights_need_these(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    data = Path(config["config"]["data"])
    said = json.loads((data / "dataset.json").read_text())
    said["preprocessing"]["extractor"] = "vggish+resnet18"
    moved = tmp_path / "media" / "features" / "public"
    moved.mkdir(parents=True)
    (moved / "dataset.json").write_text(json.dumps(said))
    (tmp_path / "media" / "dataset.json").write_text((data.parent.parent / "dataset.json").read_text())
    with pytest.raises(InputError, match=r"vggish\+resnet18[^$]*give --weights \(weights=\)"):
        avmend.load(run, "cpu", data=moved)


def test_a_service_asks_questions_beside_other_runs(run, world: World):
    """Noise goes into the log-mel and frames that the features are made of."""
    clips = load_run(run).config.questions.parent / "clips"
    settings = {"data": None, "backbone": world.backbone, "decoders": 1}
    specialist = run.parent / "specialist"
    service = Service.load(ServeConfig(runs=(run, specialist), **settings), "cpu")
    client = client_of(Front(InProcess(service), service.config))

    def sent(name: str, **texts: str):
        return client.post("/predict", files={"clip": (name, (clips / name).read_bytes())}, data=texts)

    try:
        refused = sent("both.mp4").json()
        clean = sent("both.mp4", question=ASKED[1]).json()
        noisy = sent("both.mp4", question=ASKED[1], noise_audio="5", view="true").json()
        black = sent("both.mp4", question=ASKED[1], black="true", view="true").json()
        heard = sent("sound.wav", question=ASKED[1]).json()
    finally:
        service.decoders.close()
    assert refused["field"] == "question"
    wanted = evaluated(run)[NAMES[0], ASKED[1]]
    assert list(clean["runs"][0]["logits"].values()) == pytest.approx(wanted, abs=CLOSE)
    assert clean["question"] == ASKED[1]
    assert noisy["runs"][0]["logits"] != clean["runs"][0]["logits"]
    assert noisy["runs"][1]["logits"] == clean["runs"][1]["logits"], "a specialist that does not hear"
    assert black["runs"][1]["logits"] != clean["runs"][1]["logits"]
    assert len(black["views"][0]["frames"]) == 3, "all frames are looked at"
    assert heard["runs"][1]["failure"]["error"] == "nothing to look at"
    assert heard["runs"][0]["answer"] in ("bell", "no")


def test_a_published_network_answers_about_a_clip(run, world: World, tmp_path, mlflow_root, capsys):
    """AVST's weights (random ones) on these features, its words by the released rule."""
    questions = load_run(run).config.questions
    words = Vocabulary.released(load_questions(questions))
    data = load_run(run).config.data
    torch.save(avst_state(32, 32, len(words.words), len(words.answers)), tmp_path / "avst.pt")
    argv = ["avst", str(tmp_path / "avst.pt"), "--questions", str(questions), "--data", str(data)]
    assert bring([*argv, "--runs", str(mlflow_root)]) == 0
    published = Path(capsys.readouterr().out.strip())
    clip = questions.parent / "clips" / NAMES[0]
    found = avmend.load(published, "cpu", backbone=world.backbone).predict(clip, question=ASKED[1])
    assert found.answers == words.answers
    assert found.logits == pytest.approx(evaluated(published)[NAMES[0], ASKED[1]], abs=CLOSE)
    with pytest.raises(InputError, match=r'no published words: "What.s"'):
        avmend.load(published, "cpu", backbone=world.backbone).predict(clip, question="What's heard?")
