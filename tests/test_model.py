"""A run as a Python object: arrays as the same samples from a file, batches, failures, the documented lines."""

from __future__ import annotations

import json
import re
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

import avmend
from serving.model import Model
from shards.errors import InputError
from tests.fixtures.clips import NAMES, ingested_clips
from tests.fixtures.decoding import decode_frames
from tests.fixtures.media import make_clip
from tests.fixtures.worlds import World
from trainers.runs import CONFIG_FILE

gpu, integration = pytest.mark.gpu, pytest.mark.integration
ROOT = Path(__file__).resolve().parent.parent
RATE = 22050


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips, with their media shards in ``media``."""
    return ingested_clips(tmp_path_factory.mktemp("clips")).parent


@pytest.fixture(scope="module")
def model(world: World, clips) -> Model:
    return avmend.load(world.others["prompt"], "cpu", data=clips / "media")


def sound(channels: int = 1, seconds: float = 0.5) -> np.ndarray:
    """Noise, int16 [channels, samples]."""
    return np.random.default_rng(channels).integers(-9999, 9999, (channels, int(RATE * seconds)), dtype=np.int16)


def written(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((len(samples), 2, RATE, samples.shape[1], "NONE", ""))
        file.writeframes(samples.T.tobytes())
    return path


@integration
@pytest.mark.parametrize("channels", [1, 2])
def test_a_sound_in_memory_is_the_sound_of_a_file(model, tmp_path, channels):
    samples = sound(channels)
    from_file = model.predict(written(tmp_path / "a.wav", samples))
    in_memory = model.predict(audio=samples if channels > 1 else samples[0], sample_rate=RATE)
    assert np.array_equal(in_memory.logits, from_file.logits)
    assert in_memory.present == from_file.present == {"audio": True, "visual": False}
    as_float = model.predict(audio=torch.from_numpy(samples / 32768.0), sample_rate=RATE)
    assert as_float.logits == pytest.approx(from_file.logits, abs=1e-2)  # mixed and rounded in another order


@integration
def test_pictures_in_memory_are_those_of_a_file(model, tmp_path):
    """Ten frames, of which the ingestion takes three: the middles' of equal parts."""
    clip = make_clip(tmp_path / "a.mp4", size=(48, 48), audio=False)
    frames = decode_frames(clip, 48)
    assert len(frames) == 10
    found = model.predict(frames=frames)
    assert found.logits == pytest.approx(model.predict(clip).logits, abs=1e-3)
    assert np.array_equal(found.logits, model.predict(frames=frames[[5]]).logits), "one is a still picture"
    assert found.present == {"audio": False, "visual": True}


@integration
def test_lists_are_batches_and_have_their_failures_in_order(model, clips):
    named = [clips / NAMES[0], clips / "gone.mp4", clips / NAMES[2]]
    found = model.predict(named, batch_size=2)
    assert [p.clip for p in found] == [str(clip) for clip in named]
    assert [p.failure and p.failure.error for p in found] == [None, "missing file", None]
    for at in (0, 2):
        assert found[at].logits == pytest.approx(model.predict(named[at]).logits, abs=1e-5)
        assert found[at].probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert found[at].ranked(1) == [(found[at].answer, pytest.approx(found[at].probability))]
    with pytest.raises(InputError, match="missing file"):
        found[1].answer  # noqa: B018
    with pytest.raises(InputError, match="missing file"):
        model.predict(named[1])
    pictures = np.zeros((2, 40, 40, 3), np.uint8)
    both, heard = model.predict(audio=[sound()[0], sound()[0]], sample_rate=RATE, frames=[pictures, None])
    assert both.present == {"audio": True, "visual": True}
    assert heard.logits == pytest.approx(model.predict(audio=sound()[0], sample_rate=RATE).logits, abs=1e-5)
    assert model.predict([]) == []


@integration
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "audio"),
        ({"audio": np.zeros(999, np.int16)}, "sample_rate"),
        ({"audio": np.zeros(999, np.int64), "sample_rate": 16000}, "audio"),
        ({"audio": np.full(999, np.nan), "sample_rate": 16000}, "audio"),
        ({"audio": np.zeros((7, 999), np.int16), "sample_rate": 16000}, "audio"),
        ({"frames": np.zeros((2, 3, 40, 40), np.uint8)}, "frames"),
        ({"frames": np.zeros((2, 40, 40, 3))}, "frames"),
        ({"clips": "a.mp4", "frames": np.zeros((2, 40, 40, 3), np.uint8)}, "clips"),
        ({"audio": [None, None], "frames": [None]}, "frames"),
        ({"clips": "a.mp4", "question": "What can be heard?"}, "question"),
    ],
)
def test_what_is_no_clip_is_refused_with_its_field(model, arguments, field):
    with pytest.raises(InputError) as refused:
        model.predict(**arguments)
    assert refused.value.field == field
    assert refused.value.remedy


@integration
def test_too_short_a_sound_fails_and_a_picture_beside_it_is_answered(model):
    pictures = np.zeros((1, 40, 40, 3), np.uint8)
    with pytest.raises(InputError, match="too short"):
        model.predict(audio=sound()[0, :99], sample_rate=RATE)
    found = model.predict(audio=sound()[0, :99], sample_rate=RATE, frames=pictures)
    assert found.streams["audio"].cause == "too short"
    assert np.array_equal(found.logits, model.predict(frames=pictures).logits)


@integration
def test_an_unknown_device_is_refused(world: World, clips):
    with pytest.raises(InputError, match="give cpu"):
        avmend.load(world.backbone, "gpu9", data=clips / "media")


@integration
def test_the_documented_lines_run(world: World, clips, tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/predict.md").read_text()
    code, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    run = tmp_path / re.search(r'avmend\.load\("(.*?)"\)', code)[1]
    shutil.copytree(world.backbone, run)
    record = json.loads((run / CONFIG_FILE).read_text())
    record["config"]["data"] = str(clips / "media")
    (run / CONFIG_FILE).write_text(json.dumps(record))
    shutil.copy(clips / NAMES[0], tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/predict.md", "exec"), {})
    answer, share = capsys.readouterr().out.splitlines()[0].split()
    assert answer in ("bell", "drum", "rain")
    assert 1 / 3 <= float(share) <= 1


@gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_answers_of_the_cpu(world: World, clips, model):
    named = [clips / name for name in NAMES]
    for there, here in zip(
        avmend.load(world.others["prompt"], "cuda", data=clips / "media").predict(named),
        model.predict(named),
        strict=True,
    ):
        assert there.logits == pytest.approx(here.logits, abs=1e-3)
