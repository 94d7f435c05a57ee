"""The same clips, ingested at once and in two goes with other shards: the same statistics, losses and weights to
the bit, since order, augmentation and noise depend on (seed, sample id)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from pipelines.features import extract
from pipelines.ingest import ingest
from pipelines.settings import FeatureConfig, IngestConfig
from shards.positions import hashed
from shards.questions import Question, save_questions
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from tests.fixtures.asking import SIZES as NETWORK_SIZES
from tests.fixtures.tiers import told_by
from tests.test_loop import SIZES, Log
from trainers.avqa.config import AVQAConfig
from trainers.classification.config import FinetuneConfig, PromptConfig
from trainers.classification.detector import fit_detector
from trainers.config import TrainConfig
from trainers.data import epoch_order
from trainers.draws import uniform
from trainers.loop import Rank, train_stage
from trainers.recipes import recipe_of

unit, integration = pytest.mark.unit, pytest.mark.integration
CLIPS = 22
CLOCKS = {"epoch_seconds", "peak_memory_mb", "data_wait_seconds"}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Media shards of the same clips: five a shard; three a shard, odd clips first, in the opposite order."""
    root = tmp_path_factory.mktemp("two-goes")
    rows = [_clip(root, i) for i in range(CLIPS)]
    once, twice = root / "once", root / "twice"
    _ingest(root / "all.csv", rows, once, 5)
    _ingest(root / "grown.csv", rows[::-2], twice, 3)
    _ingest(root / "grown.csv", rows[::-2] + rows[::2], twice, 3)
    return once, twice


def _clip(root: Path, i: int) -> str:
    """A noise of its own length and a picture, as wav and png; one in seven lacks either."""
    rng, label = np.random.default_rng(i), ("bell", "drum")[i % 2]
    sound = (rng.normal(0, 3000 + 4000 * (i % 2), 4000 + 160 * i)).astype("<i2")
    header = b"RIFF" + (36 + sound.nbytes).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = np.array([1, 1], "<u2").tobytes() + np.array([16000, 32000], "<u4").tobytes()
    form += np.array([2, 16], "<u2").tobytes()
    data = b"data" + sound.nbytes.to_bytes(4, "little") + sound.tobytes()
    (root / f"{i}.wav").write_bytes(header + form + data)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(root / f"{i}.png")
    audio, image = "" if i % 7 == 3 else f"{i}.wav", "" if i % 7 == 5 else f"{i}.png"
    return f"clip {i},{audio},{image},{label},{'val' if i % 5 == 4 else 'train'}"


def _ingest(manifest: Path, rows: list[str], out: Path, samples: int) -> None:
    manifest.write_text("\n".join(["id,audio_path,image_path,label,split", *rows, ""]))
    ingest(manifest, out, IngestConfig(frames=1, image_size=32, samples_per_shard=samples, workers=0))


def train(config: TrainConfig, folder: Path) -> tuple[Log, dict[str, Tensor]]:
    """Every figure of every epoch but the clocks', and the weights."""
    log = Log()
    (stage,) = recipe_of(config).stages(config)
    train_stage(stage, config, Rank(), folder, log)
    figures = Log((name, epoch, {k: v for k, v in m.items() if k not in CLOCKS}) for name, epoch, m in log)
    return figures, {name: weight.detach().clone() for name, weight in stage.weights().items()}


def assert_same(first: tuple[Log, dict[str, Tensor]], second: tuple[Log, dict[str, Tensor]]) -> None:
    assert first[0] == second[0]
    assert {name for name, x in first[1].items() if not x.equal(second[1][name])} == set()


@unit
def test_the_two_are_laid_out_differently_and_hold_the_same(twins):
    once, twice = (ShardDataset(folder, "train") for folder in twins)
    assert once.keys != twice.keys
    assert sorted(once.keys) == sorted(twice.keys)
    assert [len(data.info.splits["train"].shards) for data in (once, twice)] == [4, 6]
    assert once.info.normalisation == twice.info.normalisation


@pytest.fixture(scope="module")
def backbones(twins, tmp_path_factory) -> tuple[Path, Path]:
    """Runs of `finetune` on either, whose figures and weights are the same."""
    runs = tuple(tmp_path_factory.mktemp("finetune") for _ in twins)
    configs = [
        FinetuneConfig(
            data=data,
            backbone=SIZES.model_copy(update={"depth": 2}),
            epochs=1,
            batch_size=4,
            noisy=True,
            proportion=0.8,
        )
        for data in twins
    ]
    assert_same(*(train(config, run) for config, run in zip(configs, runs, strict=True)))
    return runs


@integration
def test_fine_tuning_and_prompts_on_its_features(twins, backbones, tmp_path):
    found, detectors = [], []
    for data, backbone in zip(twins, backbones, strict=True):
        features = extract(data, backbone, FeatureConfig(depth=1, draws=2, workers=0))
        config = PromptConfig(
            data=data, backbone=backbone, depth=1, length=2, deep=False, cases=("noisy_both",), epochs=1, batch_size=4,
            missing=0.3,
        )  # fmt: skip
        found.append(train(config, tmp_path / data.name))
        detectors.append(fit_detector(ShardDataset(features, "train"), 0))
    assert_same(*found)
    assert detectors[0][1] == detectors[1][1]
    assert all(x.equal(detectors[1][0].state_dict()[name]) for name, x in detectors[0][0].state_dict().items())


@pytest.mark.parametrize("recovery", told_by("retrieval".__eq__, ["zero", "rmm", "retrieval"], pytest.mark.integration))
def test_questions_with_negative_frames_and_samples_that_are_held(twins, backbones, tmp_path, recovery):
    questions = save_questions(tmp_path / "questions.jsonl", [_question(i) for i in range(CLIPS)])
    sizes = {"rmm": {"slots": 6, "question": 8}, "retrieval": {"samples": 6, "neighbours": 2}}.get(recovery, {})
    found = []
    for data, backbone in zip(twins, backbones, strict=True):
        features = extract(data, backbone, FeatureConfig(extractor="cavmae", side=2, workers=0))
        config = AVQAConfig(
            data=features, questions=questions, network="avst", sizes=NETWORK_SIZES["avst"], epochs=2, batch_size=4,
            recovery=recovery, recovery_sizes=sizes, alternate_missing=True,
        )  # fmt: skip
        found.append(train(config, tmp_path / data.name))
        assert DatasetInfo.load(features).normalisation.audio is not None
    assert_same(*found)


def _question(i: int) -> Question:
    split, text = "val" if i % 5 == 4 else "train", "What sounds?"
    answer = ("bell", "drum")[i % 2]
    return Question(id=f"q{i}", clip=f"clip {i}", question=text, answer=answer, type="Audio", split=split)


@unit
def test_one_more_sample_changes_no_other_one_s_draws_nor_their_order():
    names = [f"clip {i}" for i in range(60)]
    grown = ["a new one", *reversed(names)]
    draws = dict(zip(names, uniform(hashed(names), 5, "augment", 0, 3).tolist(), strict=True))
    again = dict(zip(grown, uniform(hashed(grown), 5, "augment", 0, 3).tolist(), strict=True))
    assert draws == {name: again[name] for name in names}
    order, other = ([names_[i] for i in epoch_order(hashed(names_), 0, 1)] for names_ in (names, grown))
    assert order == [name for name in other if name != "a new one"]
    assert 0 <= min(map(min, draws.values())) < 0.1 < 0.9 < max(map(max, draws.values())) < 1
