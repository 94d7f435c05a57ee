"""Sequence features: what a step is, exactly once, nothing of a neighbour or of what is absent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbone import Backbone
from models.cavmae import CAVMAE
from models.inputs import Normalisation
from models.settings import BackboneConfig
from pipelines import features as extraction
from pipelines.feature_shard import extract_shard, reproducible
from pipelines.features import extract, main
from pipelines.sequences import middles, pooled
from pipelines.settings import FeatureConfig, encoders
from pipelines.tokens import frozen_backbone
from shards import extraction_log
from shards.checkpoint import save_checkpoint
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, SplitInfo
from shards.sequence import sequence_folder, sequence_spec
from shards.verify import verify
from shards.writer import Record, write_shard
from tests.fixtures.builders import LABELS, meta, randomise

unit = pytest.mark.unit
SIZES = BackboneConfig(dim=24, heads=2, depth=2, target_length=32, image_size=32)
STEPS, SECONDS = 4, 0.8  # 0.2 s a step, windows of 0.32 s
CONFIG = FeatureConfig(extractor="cavmae", batch_size=3, workers=0)


def record(key: str, split: str, seed: int, sound: bool = True, picture: bool = True, still: bool = False):
    """A clip with a value of its own in every array."""
    rng = np.random.default_rng(seed)
    about = meta(key, LABELS[0], split, sound, picture).model_copy(update={"duration": SECONDS})
    members: dict = {"json": about}
    if sound:
        members["audio.npy"] = rng.normal(-5, 4, (int(SECONDS * 100) - 2, 128)).astype(np.float16)
        members["wave.npy"] = rng.integers(-9999, 9999, int(SECONDS * 16000), dtype=np.int16)
    if picture:
        members["frames.npy"] = rng.integers(0, 256, (1 if still else STEPS, 32, 32, 3), np.uint8)
    return key, members


def write_media(folder: Path, splits: dict[str, list[Record]], size: int = 3, wave: bool = True) -> Path:
    found = {}
    for split, records in splits.items():
        shards = tuple(
            write_shard(folder / "media" / f"{split}-{n:06d}.tar", records[at : at + size], root=folder)
            for n, at in enumerate(range(0, len(records), size))
        )
        metas = [members["json"] for _, members in records]
        present = {m: sum(getattr(x, m).present for x in metas) for m in ("audio", "visual")}
        found[split] = SplitInfo(samples=len(records), present=present, shards=shards)
    said = {"frames": STEPS, "wave": wave}
    DatasetInfo(kind="media", preprocessing=said, labels=LABELS, splits=found).save(folder)
    return folder


def records() -> dict[str, list[Record]]:
    """One clip without sound, one without picture, one with a still picture."""
    train = [record(f"train{i}", "train", i, sound=i != 1, picture=i != 3, still=i == 4) for i in range(7)]
    return {"train": train, "val": [record(f"val{i}", "val", 90 + i) for i in range(2)]}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    net = randomise(CAVMAE(SIZES, len(LABELS)))
    backbone = Backbone(net, LABELS, Normalisation(audio_mean=-4.5))
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder / "finetune", net.state_dict(), backbone.meta())
    return folder


@pytest.fixture
def media(tmp_path) -> Path:
    return write_media(tmp_path / "data", records())


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> tuple[Path, Path]:
    data = write_media(tmp_path_factory.mktemp("whole"), records())
    return data, extract(data, run, CONFIG)


def digests(folder: Path) -> dict[str, str]:
    """Of all files but how long the shards took, which is no part of the dataset."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != extraction_log.FILE)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@unit
def test_what_a_sequence_dataset_says_and_holds(whole, run):
    data, out = whole
    info, fingerprint = DatasetInfo.load(out), frozen_backbone(run).fingerprint
    assert out == data / "features" / sequence_folder(fingerprint, "cavmae")
    spec = sequence_spec(info)
    assert (spec.audio, spec.visual, spec.steps, spec.places, spec.rows) == (24, 24, STEPS, 4, 4)
    assert info.backbone.fingerprint == fingerprint
    assert info.preprocessing["dataset"] == DatasetInfo.load(data).fingerprint()
    assert not {"depth", "noise", "draws"} & set(info.preprocessing)
    assert verify(out) == []
    shapes = {"audio": (STEPS, 24), "visual": (STEPS, 4, 24)}
    for split in ("train", "val"):
        ours, theirs = ShardDataset(out, split), ShardDataset(data, split)
        assert ours.metas == theirs.metas
        for sample, source in zip(ours, theirs, strict=True):
            there = {m for m in shapes if getattr(source.meta, m).present}
            assert {m: (x.dtype, x.shape) for m, x in sample.arrays.items()} == {
                m: (np.float16, shapes[m]) for m in there
            }
    assert set(ShardDataset(out, "train")[1].arrays) == {"visual"}
    assert set(ShardDataset(out, "train")[3].arrays) == {"audio"}


@unit
def test_places_can_be_averaged_to_a_coarser_grid(whole, run):
    """The mean of the 2 x 2 tokens; the folder's name says so, and the network's own grid is the finest."""
    data, fine = whole
    coarse = extract(data, run, FeatureConfig(extractor="cavmae", side=1, workers=0))
    assert coarse.name == f"{fine.name}-1x1"
    assert sequence_spec(DatasetInfo.load(coarse)).places == 1
    for one, own in zip(ShardDataset(coarse, "train"), ShardDataset(fine, "train"), strict=True):
        if own.meta.visual.present:
            expected = own.arrays["visual"].astype(np.float32).mean(axis=1, keepdims=True)
            np.testing.assert_allclose(one.arrays["visual"], expected, atol=5e-3)
    with pytest.raises(InputError, match="beyond the network's grid of 2"):
        extract(data, run, FeatureConfig(extractor="cavmae", side=3, workers=0))


@unit
def test_pooling_keeps_rows_columns_and_the_frame_token():
    grid = torch.arange(16.0).view(4, 4)
    rows = torch.cat([torch.tensor([99.0]), grid.flatten()]).view(1, 17, 1)
    found = pooled(rows, 2, frame_token=True).flatten().tolist()
    assert found == [99.0, *(grid[r : r + 2, c : c + 2].mean().item() for r in (0, 2) for c in (0, 2))]


@unit
def test_a_step_is_its_frame_and_the_sound_around_it(whole, run):
    """Against slices by hand of the stored log-mel, padded with zeros."""
    data, out = whole
    backbone = frozen_backbone(run)
    net, norm = backbone.net, backbone.normalisation
    source, made = ShardDataset(data, "train")[0], ShardDataset(out, "train")[0].arrays
    padded = np.zeros((32 + 78 + 32, 128), np.float16)
    padded[32:110] = source.arrays["audio"]
    for t in range(STEPS):
        start = 10 + 20 * t - 16  # the middle of step t in frames of 10 ms, half a window earlier
        window = norm.fbank(padded[32 + start : 64 + start], 32)
        picture = norm.picture(source.arrays["frames"], t, 32)
        with reproducible(), torch.inference_mode():
            sound = net.encode("audio", net.embed("audio", window[None]))[0].mean(0)
            places = net.encode("visual", net.embed("visual", picture[None]))[0]
        torch.testing.assert_close(torch.from_numpy(made["audio"][t]).float(), sound, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(torch.from_numpy(made["visual"][t]).float(), places, rtol=2e-3, atol=2e-3)


@unit
def test_steps_follow_the_picture_where_it_moves():
    about = meta("a", "bell", "train")
    assert middles(about, 2).tolist() == pytest.approx([0.1, 0.3])
    longer = about.model_copy(update={"visual": about.visual.model_copy(update={"duration": 8.0})})
    assert middles(longer, 2).tolist() == pytest.approx([2.0, 6.0])


@unit
def test_padding_before_and_after_as_at_the_end():
    norm, values = Normalisation(), np.random.default_rng(0).normal(-5, 4, (10, 128)).astype(np.float16)
    nothing = norm.fbank(np.zeros((0, 128), np.float16), 1)[0]
    whole = norm.fbank(values, 10)
    for start, length in ((-3, 6), (7, 6), (-4, 30), (-20, 5), (50, 4), (2, 3)):
        found = norm.fbank(values, length, start)
        assert found.shape == (length, 128)
        for row, i in zip(found, range(start, start + length), strict=True):
            assert torch.equal(row, whole[i] if 0 <= i < 10 else nothing)


@unit
def test_a_still_picture_stands_for_every_step(whole):
    visual = ShardDataset(whole[1], "train")[4].arrays["visual"]
    assert all(np.array_equal(visual[0], step) for step in visual)
    moving = ShardDataset(whole[1], "train")[0].arrays["visual"]
    assert not np.array_equal(moving[0], moving[1])


@unit
def test_statistics_are_those_of_the_stored_train_features(whole):
    info, data = DatasetInfo.load(whole[1]), ShardDataset(whole[1], "train")
    for modality, found in (("audio", info.normalisation.audio), ("visual", info.normalisation.visual)):
        stored = [s.arrays[modality].reshape(-1, 24) for s in data if modality in s.arrays]
        values = np.concatenate(stored).astype(np.float64)
        assert found.samples == len(stored) == 6
        np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.std, values.std(0), rtol=1e-9)


@unit
def test_features_depend_on_their_sample_alone(whole, run, tmp_path):
    """To the bit: other neighbours, another place, another shard size."""
    _, out = whole
    own = records()["train"]
    strangers = [record(f"other{i}", "train", 50 + i, picture=i != 1) for i in range(4)]
    mixed = [strangers[0], own[5], own[0], strangers[1], strangers[2], own[2], strangers[3]]
    other = extract(write_media(tmp_path / "mixed", {"train": mixed}, size=5), run, CONFIG)
    there = {s.meta.key: s.arrays for s in ShardDataset(out, "train")}
    here = {s.meta.key: s.arrays for s in ShardDataset(other, "train")}
    for key in ("train5", "train0", "train2"):
        for modality in ("audio", "visual"):
            assert np.array_equal(there[key][modality], here[key][modality])


@unit
def test_a_job_that_died_ends_in_the_same_bytes(whole, media, run, monkeypatch):
    done = []

    def dying(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments)
        return extract_shard(*arguments)

    monkeypatch.setattr(extraction, "extract_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        extract(media, run, CONFIG)
    monkeypatch.undo()
    out = extract(media, run, CONFIG)
    assert digests(out) == digests(whole[1])
    assert extract(media, run, CONFIG) == out


@unit
def test_tokens_and_sequences_live_side_by_side(media, run):
    tokens, sequence = extract(media, run, FeatureConfig(draws=1, workers=0)), extract(media, run, CONFIG)
    assert tokens.parent == sequence.parent
    with pytest.raises(InputError, match="holds tokens, not sequence features"):
        sequence_spec(DatasetInfo.load(tokens))
    with pytest.raises(InputError, match="holds media, not sequence features"):
        sequence_spec(DatasetInfo.load(media))


@unit
def test_a_clip_with_another_number_of_frames_is_refused(run, tmp_path):
    key, members = record("train0", "train", 0)
    odd = key, {**members, "frames.npy": members["frames.npy"][:3]}
    with pytest.raises(InputError, match=r"sample 'clip train0': 3 frames, the dataset has 4"):
        extract(write_media(tmp_path / "odd", {"train": [odd]}), run, CONFIG)


@unit
def test_names_of_extractors():
    assert encoders("cavmae") == ("cavmae", "cavmae")
    assert encoders("vggish+cavmae") == ("vggish", "cavmae")
    for wrong in ("vggish", "resnet18", "clip+vggish", "vggish+", "vggish+resnet18+clip"):
        with pytest.raises(ValueError, match="choose from"):
            encoders(wrong)


@unit
def test_command_line(media, run, tmp_path, capsys):
    def refusal(*arguments: str) -> str:
        assert main(["--data", str(media), *arguments, "workers=0"]) == 2
        return capsys.readouterr().err

    assert "did you mean 'vggish+resnet18'" in refusal("--extractor", "vgish+resnet18")
    assert "cavmae needs a backbone" in refusal("--extractor", "cavmae")
    assert "tokens needs a backbone" in refusal()
    own = ["--extractor", "cavmae", "--backbone", str(run)]
    assert "depth is no setting of the extractor cavmae" in refusal(*own, "depth=1")
    assert "pca is of vggish" in refusal(*own, "pca=true")
    public = ["--extractor", "vggish+resnet18"]
    assert "vggish-10086976.pth" in refusal(*public)
    assert "0 files named vggish-*.pth" in refusal(*public, "--weights", str(tmp_path))
    assert not (media / "features").exists()
    assert main(["--data", str(media), *own, "workers=0"]) == 0
    assert "train: features of 7 clips in 3 shards" in capsys.readouterr().out


@unit
def test_vggish_without_a_waveform_is_refused(tmp_path, run):
    data = write_media(tmp_path / "mute", records(), wave=False)
    with pytest.raises(InputError, match="keep_wave=true"):
        extract(data, run, CONFIG.model_copy(update={"extractor": "vggish+cavmae"}), weights=tmp_path)


@pytest.mark.slow
def test_actors_make_the_same_bytes(whole, media, run, ray_cluster):
    out = extract(media, run, CONFIG.model_copy(update={"workers": 2}))
    assert digests(out) == digests(whole[1])


@unit
def test_media_that_have_grown_add_feature_shards(run, whole, tmp_path):
    """The first shard alone, then all: it stays, and the bytes are those of a single go."""
    all_of = records()
    data = write_media(tmp_path / "data", {"train": all_of["train"][:3]})
    out = extract(data, run, CONFIG)
    first = (out / "train-000000.tar").stat().st_mtime_ns
    assert extract(write_media(data, all_of), run, CONFIG) == out
    assert (out / "train-000000.tar").stat().st_mtime_ns == first
    assert digests(out) == digests(whole[1])
    changed = {**all_of, "train": [record("train0", "train", 77), *all_of["train"][1:]]}
    with pytest.raises(InputError, match="shard train-000000 differs"):
        extract(write_media(data, changed), run, CONFIG)
