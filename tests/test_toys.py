"""A method, a network, a corpus and a kind of noise from outside the project: trained, evaluated, reported by name."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import avmend
from models import registry
from models.adaptation import ADAPTATIONS
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES
from models.conditions import CONDITIONS
from models.fusion import FUSIONS
from models.settings import AUDIO_KINDS, VISUAL_KINDS
from pipelines.corpora.registry import CORPORA
from tests.fixtures.asking import asking_world
from tests.fixtures.builders import media_dataset
from tests.fixtures.worlds import NET, QUICK

unit = pytest.mark.unit
MODULES = ("tests.fixtures.toys", "tests.fixtures.beeps")
REGISTRIES: list[registry.Registry] = [
    NETWORKS,
    RECOVERIES,
    FUSIONS,
    ADAPTATIONS,
    CONDITIONS,
    AUDIO_KINDS,
    VISUAL_KINDS,
    CORPORA,
]


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toys are plugins in here, and unknown again afterwards."""
    for module in MODULES:
        sys.modules.pop(module, None)
    monkeypatch.setattr(registry, "_state", {"plugins": None})
    for each in REGISTRIES:
        monkeypatch.setattr(each, "_members", dict(each._members))
    monkeypatch.setenv("AVMEND_PLUGINS", ",".join(MODULES))
    yield
    for module in MODULES:
        sys.modules.pop(module, None)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """A command's output."""
    assert avmend.main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out.strip()


@pytest.mark.slow
def test_a_toy_method_on_a_toy_network(mlflow_root, tmp_path, capsys):
    data, questions = asking_world(tmp_path, {"train": 24, "val": 9, "test": 9})
    settings = [f"data={data}", f"questions={questions}", "workers=0", "cpus=1", "epochs=2", "batch_size=8"]
    settings += ["network=bag", "sizes.dim=6", "recovery=gain", "recovery_sizes.start=2.0", "weights.gain=0.5"]
    folder = run(capsys, "train", "avqa", "--runs", mlflow_root, *settings)
    lines = [json.loads(line) for line in (Path(folder) / "logs" / "avqa" / "metrics.jsonl").open()]
    assert {"gain", "norm", "ce_audio_missing"} <= lines[-1]["metrics"].keys()
    table = run(capsys, "evaluate", folder, "--out", mlflow_root / "results", "--set", "rates=[50]")
    assert re.search(r"^\| bag \| gain \| \d+\.\d ± \d+\.\d \|", table, re.MULTILINE)
    page = tmp_path / "report.html"
    run(capsys, "report", "--runs", mlflow_root, "--out", page, "--clips", "0")
    assert "bag gain" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_toy_kind_of_noise_is_trained_and_evaluated(mlflow_root, tmp_path, capsys):
    media_dataset(tmp_path / "media", {"train": 24, "val": 6, "test": 10})
    noise = ["noise.audio=[silence]", "noise.visual=[silence]"]
    folder = run(
        capsys,
        "train",
        "finetune",
        "--runs",
        mlflow_root,
        f"data={tmp_path / 'media'}",
        *QUICK,
        *NET,
        "noisy=true",
        *noise,
    )
    out = mlflow_root / "results"
    run(capsys, "evaluate", folder, "--out", out, "--set", "conditions=[noisy_audio]")
    drawn = [line.split(",")[3] for line in (out / "draws.csv").read_text().splitlines()[1:]]
    assert set(drawn) == {"silence", "absent"}


@unit
def test_the_toys_are_listed_and_the_corpus_is_made(tmp_path, capsys):
    for kind, name in {"networks": "bag", "recoveries": "gain", "corpora": "beeps"}.items():
        assert name in run(capsys, "list", kind)
    run(capsys, "corpus", "beeps", "--out", tmp_path / "clips", "clips=3", "word=toot")
    assert "toot2" in (tmp_path / "clips" / "beeps.csv").read_text()
