"""From media shards to feature shards: what training reads, to the bit, however often the job died."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbone import Backbone
from models.cavmae import CAVMAE
from models.conditions import CASES, variant_names
from models.inputs import Normalisation
from models.settings import MODALITIES, BackboneConfig
from pipelines import features as extraction
from pipelines.feature_shard import extract_shard, feature_plan, reproducible
from pipelines.features import Worker, extract, main
from pipelines.settings import FeatureConfig
from pipelines.tokens import TokenExtractor, frozen_backbone
from shards import extraction_log
from shards.checkpoint import save_checkpoint
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import ABSENT, DatasetInfo, SampleMeta, SplitInfo, StreamInfo, feature_folder
from shards.verify import verify
from shards.writer import write_shard

SIZES = BackboneConfig(dim=24, heads=2, depth=2, target_length=32, image_size=32)
LABELS = ("cat", "dog")
CONFIG = FeatureConfig(draws=2, batch_size=7, workers=0)
unit, on_ray, integration = pytest.mark.unit, pytest.mark.ray, pytest.mark.integration


def stream(present: bool) -> StreamInfo:
    return StreamInfo(present=present, cause=None if present else ABSENT)


def record(split: str, i: int) -> tuple[str, dict]:
    """Every fourth sample has no sound, every fifth no picture; lengths and pictures differ."""
    rng = np.random.default_rng([i, len(split)])
    key, sound, picture = f"{split}-{i}", i % 4 != 3, i % 5 != 4
    meta = SampleMeta(
        key=key,
        id=f"{split}/{i}",
        labels=(LABELS[i % 2],),
        split=split,
        duration=0.3,
        audio=stream(sound),
        visual=stream(picture),
        source_sha256="0",
    )
    members: dict = {"json": meta}
    if sound:
        members["audio.npy"] = rng.normal(-5, 4, (20 + 3 * i, 128)).astype(np.float16)
    if picture:
        members["frames.npy"] = rng.integers(0, 256, (3, 40, 40, 3), np.uint8)
    return key, members


def make_media(folder: Path, counts: dict[str, int], per_shard: int = 5) -> Path:
    """A media dataset of random samples."""
    splits = {}
    for split, count in counts.items():
        records = [record(split, i) for i in range(count)]
        parts = [records[at : at + per_shard] for at in range(0, count, per_shard)]
        shards = tuple(
            write_shard(folder / "media" / f"{split}-{n:06d}.tar", part, root=folder) for n, part in enumerate(parts)
        )
        members = [members for _, members in records]
        present = {
            "audio": sum("audio.npy" in m for m in members),
            "visual": sum("frames.npy" in m for m in members),
        }
        splits[split] = SplitInfo(samples=count, present=present, shards=shards)
    DatasetInfo(kind="media", preprocessing={}, labels=LABELS, splits=splits).save(folder)
    return folder


def save_backbone(folder: Path, sizes: BackboneConfig = SIZES, scale: float = 1.0) -> Path:
    """A run's folder with a random backbone."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = CAVMAE(sizes, len(LABELS))
    with torch.no_grad():
        net.patch_embed_v.proj.weight *= scale
    backbone = Backbone(net, LABELS, Normalisation(audio_mean=-4.5))
    save_checkpoint(folder / "finetune", net.state_dict(), backbone.meta())
    return folder


def tokens(run: Path) -> TokenExtractor:
    extractor = TokenExtractor(frozen_backbone(run), CONFIG)
    extractor.to("cpu")
    return extractor


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("run"))


@pytest.fixture
def media(tmp_path) -> Path:
    return make_media(tmp_path / "media-data", {"train": 12, "val": 4})


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> tuple[Path, Path]:
    """Media and their features, made in one go."""
    data = make_media(tmp_path_factory.mktemp("whole"), {"train": 12, "val": 4})
    return data, extract(data, run, CONFIG)


def digests(folder: Path) -> dict[str, str]:
    """Of all files but how long it took."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != extraction_log.FILE)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@unit
def test_feature_shards_mirror_the_media_shards(whole, run):
    data, out = whole
    media, found = DatasetInfo.load(data), DatasetInfo.load(out)
    assert out == feature_folder(data, frozen_backbone(run).fingerprint, 0)
    assert (found.kind, found.labels) == ("features", media.labels)
    assert found.backbone.variants == tuple(variant_names(2))
    assert found.preprocessing["dataset"] == media.fingerprint()
    assert (found.preprocessing["seed"], found.preprocessing["draws"]) == (0, 2)
    assert found.preprocessing["tokens"] == {"audio": [16, 24], "visual": [4, 24]}
    assert verify(out) == verify(data) == []
    for split, rows in (("train", 5), ("val", 3)):
        ours, theirs = ShardDataset(out, split), ShardDataset(data, split)
        names = [(Path(s.name).name, s.samples) for s in found.splits[split].shards]
        assert names == [(Path(s.name).name, s.samples) for s in media.splits[split].shards]
        assert (ours.keys, ours.metas) == (theirs.keys, theirs.metas)
        assert found.splits[split].present == media.splits[split].present
        for i in range(len(ours)):
            for modality, x in ours[i].arrays.items():
                assert (x.dtype, x.shape) == (np.float16, (rows, SIZES.tokens[modality], SIZES.dim))


@integration
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_tokens_are_those_of_the_inputs_that_training_sees(media, run, depth):
    from trainers.classification.items import FeatureItems, InputSpec, MediaItems

    config = FeatureConfig(depth=depth, draws=2, eval_draws=2, seed=5, batch_size=9, workers=0)
    backbone, out = frozen_backbone(run), extract(media, run, config)
    spec = InputSpec(SIZES.target_length, SIZES.image_size, backbone.normalisation)
    compared = 0
    for split in ("train", "val"):
        data, cached = ShardDataset(media, split), ShardDataset(out, split)
        for case in CASES:
            inputs = MediaItems(data, LABELS, spec, (case,), config.noise.build(), seed=5)
            tokens = FeatureItems(cached, LABELS, case, seed=5)
            for inputs.epoch in range(2):
                tokens.epoch = inputs.epoch
                pairs = [(inputs[i], tokens[i]) for i in range(len(data))]
                assert all(torch.equal(live[2], stored[2]) for live, stored in pairs)
                for m, name in enumerate(MODALITIES):
                    live, stored = (
                        torch.stack([item[m] for item in items if item[2][m]]) for items in zip(*pairs, strict=True)
                    )
                    with reproducible(), torch.inference_mode():
                        want = backbone.net.encode(name, backbone.net.embed(name, live), 0, depth)
                    torch.testing.assert_close(stored, want, rtol=1e-3, atol=1e-3)
                    compared += len(want)
    assert compared == 4 * 2 * (9 + 10 + 3 + 4)


@unit
def test_draws_and_seeds_differ(whole, media, run):
    first = ShardDataset(whole[1], "train")[0].arrays["audio"]
    assert len({row.tobytes() for row in first}) == len(first)
    other = extract(media, run, CONFIG.model_copy(update={"seed": 1}))
    second = ShardDataset(other, "train")[0].arrays["audio"]
    assert np.array_equal(first[0], second[0])
    assert not any(np.array_equal(a, b) for a, b in zip(first[1:], second[1:], strict=True))


@unit
def test_a_shard_is_extracted_without_the_rest(whole, run, tmp_path):
    data, out = whole
    plan = feature_plan(DatasetInfo.load(data), ["train"])
    assert [shard.name for shard in plan] == ["train-000000", "train-000001", "train-000002"]
    result = extract_shard(plan[1], tokens(run), CONFIG, data, tmp_path)
    assert result.present == {"audio": 4, "visual": 4}
    name = "train-000001.tar"
    assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


@unit
def test_the_caller_keeps_its_threads(whole, run, tmp_path):
    before = torch.get_num_threads()
    plan = feature_plan(DatasetInfo.load(whole[0]), ["val"])
    extract_shard(plan[0], tokens(run), CONFIG, whole[0], tmp_path)
    assert torch.get_num_threads() == before


@unit
@pytest.mark.parametrize("stop_after", [0, 2, 3])
def test_a_job_that_died_ends_in_the_same_bytes(whole, media, run, monkeypatch, stop_after):
    out = feature_folder(media, frozen_backbone(run).fingerprint, 0)
    count = 0

    def dying(*arguments):
        nonlocal count
        if count == stop_after:
            (out / ".train-000001.tar.tmp-99").write_bytes(b"half")
            raise KeyboardInterrupt
        count += 1
        return extract_shard(*arguments)

    monkeypatch.setattr(extraction, "extract_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        extract(media, run, CONFIG)
    assert not (out / "dataset.json").exists()
    monkeypatch.undo()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    extract(media, run, CONFIG)
    assert len(kept) == stop_after
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert digests(out) == digests(whole[1])


@unit
def test_a_second_run_changes_nothing(whole, run):
    data, out = whole
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.glob("*.tar")}
    assert extract(data, run, CONFIG) == out
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.glob("*.tar")} == before


@unit
def test_some_splits_only(media, run):
    out = extract(media, run, CONFIG.model_copy(update={"splits": ("val",)}))
    assert list(DatasetInfo.load(out).splits) == ["val"]
    assert verify(out) == []


@unit
@pytest.mark.parametrize(
    ("change", "field"),
    [({"seed": 1}, "seed"), ({"draws": 3}, "draws"), ({"noise": {"alone": 4}}, "noise")],
)
def test_another_config_in_the_same_folder_is_refused(whole, run, change, field):
    data, out = whole
    before = digests(out)
    changed = FeatureConfig.model_validate({**CONFIG.model_dump(), **change})
    with pytest.raises(InputError, match="begun with") as refused:
        extract(data, run, changed)
    assert refused.value.field == field
    assert "remove" in refused.value.remedy
    assert digests(out) == before


@unit
def test_other_media_in_the_same_folder_are_refused(media, run):
    extract(media, run, CONFIG)
    (media / "media/train-000002.tar").unlink()
    make_media(media, {"train": 9, "val": 4})
    with pytest.raises(InputError, match=r"media dataset is not the one.*train-000001"):
        extract(media, run, CONFIG)


@unit
def test_media_that_have_grown_add_feature_shards(media, run, whole, tmp_path):
    """The first 10 of 12 samples, then all: nothing is written again, and in the end all bytes are the same
    as if it had been made in one go."""
    few = make_media(tmp_path / "few", {"train": 10})
    out = extract(few, run, CONFIG)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    make_media(few, {"train": 12, "val": 4})
    assert extract(few, run, CONFIG) == out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert digests(out) == digests(whole[1])
    assert DatasetInfo.load(out).preprocessing["dataset"] == DatasetInfo.load(few).fingerprint()
    make_media(few, {"train": 10})
    with pytest.raises(InputError, match=r"(train-000002|val-000000) is gone"):
        extract(few, run, CONFIG)
    assert digests(out) == digests(whole[1])


@unit
def test_a_growth_that_died_goes_on(run, whole, tmp_path, monkeypatch):
    few = make_media(tmp_path / "few", {"train": 5})
    out = extract(few, run, CONFIG)
    make_media(few, {"train": 12, "val": 4})
    left = [1]

    def dying(*arguments):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return extract_shard(*arguments)

    monkeypatch.setattr(extraction, "extract_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        extract(few, run, CONFIG)
    monkeypatch.undo()
    assert len(ShardDataset(out, "train")) == 5, "what was finished before can still be read"
    extract(few, run, CONFIG)
    assert digests(out) == digests(whole[1])


@unit
def test_wrong_inputs_are_refused_before_any_work(media, run, whole, tmp_path, capsys):
    def refusal(data: Path, backbone: Path, *overrides: str) -> str:
        command = ["--data", str(data), "--backbone", str(backbone), "workers=0", *overrides]
        assert main(command) == 2
        return capsys.readouterr().err

    assert "holds features, not media" in refusal(whole[1], run)
    assert "dataset.json: can't be read" in refusal(tmp_path, run)
    assert "is no checkpoint" in refusal(media, tmp_path)
    assert "depth 3 is beyond the 2 blocks" in refusal(media, run, "depth=3")
    assert "depth 3 is beyond the 2 blocks" in refusal(media, run, "--depth", "3")
    assert "no split 'test'" in refusal(media, run, "splits=[test]")
    assert "did you mean 'draws'" in refusal(media, run, "draw=3")
    assert "severity 6" in refusal(media, run, "noise.alone=6")
    save_checkpoint(tmp_path / "prompts", {"w": torch.zeros(1)}, {"kind": "prompt"})
    assert "a checkpoint of 'prompt', not of 'backbone'" in refusal(media, tmp_path / "prompts")
    meta = Backbone(CAVMAE(SIZES, 2), LABELS, Normalisation()).meta()
    save_checkpoint(tmp_path / "odd/finetune", CAVMAE(SIZES, 3).state_dict(), meta)
    assert "is no usable backbone" in refusal(media, tmp_path / "odd")
    assert not (media / "features").exists()
    if not torch.cuda.is_available():
        assert "there is no GPU" in refusal(media, run, "gpu=true")


@unit
def test_tokens_beyond_float16_are_an_error_with_the_sample(media, tmp_path):
    run = save_backbone(tmp_path / "loud", scale=1e6)
    with pytest.raises(InputError, match=r"sample 'train/0': visual features reach .* 65504"):
        extract(media, run, CONFIG)
    (out,) = (media / "features").iterdir()
    assert {path.name for path in out.rglob("*") if path.is_file()} == {"features.json", ".extraction.lock"}


@unit
def test_only_one_job_per_folder(whole, run):
    from shards.lock import folder_lock

    with folder_lock(whole[1], "extraction"), pytest.raises(InputError, match="another extraction"):
        extract(whole[0], run, CONFIG)


@unit
def test_command_line(media, run, capsys):
    command = ["--data", str(media), "--backbone", str(run), "--depth", "1", "draws=1", "workers=0"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "train: features of 12 clips in 3 shards" in printed.out
    assert "features  16/16 clips" in printed.err
    path = Path(printed.out.splitlines()[-1])
    assert DatasetInfo.load(path.parent).backbone.depth == 1
    assert path.parent.name.endswith("-k1")


@pytest.mark.parametrize(  # one actor: see below
    "workers", [pytest.param(5, marks=on_ray), pytest.param(None, marks=pytest.mark.slow)]
)
def test_any_number_of_actors_makes_the_same_bytes(whole, media, run, ray_cluster, workers):
    out = extract(media, run, CONFIG.model_copy(update={"workers": workers}))
    assert digests(out) == digests(whole[1])


@on_ray
def test_an_actors_error_comes_back_as_it_was(media, tmp_path, ray_cluster):
    run = save_backbone(tmp_path / "loud", scale=1e6)
    with pytest.raises(InputError, match="visual features reach"):
        extract(media, run, CONFIG.model_copy(update={"workers": 1}))


class Mortal(Worker):
    """Its process is killed in the middle of its second shard, once."""

    def extract(self, shared, shard):
        died = self.data / "died"
        if shard.name == "train-000001" and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().extract(shared, shard)


@on_ray
def test_a_killed_actor_costs_only_time(whole, media, run, ray_cluster, monkeypatch):
    monkeypatch.setattr(extraction, "Worker", Mortal)
    out = extract(media, run, CONFIG.model_copy(update={"workers": 1}))
    assert (media / "died").exists()
    assert digests(out) == digests(whole[1])
    assert [path.name for path in out.glob(".*")] == [".extraction.lock"]


@on_ray
def test_an_actor_that_always_dies_ends_the_job(media, run, ray_cluster, monkeypatch):
    monkeypatch.setattr(extraction, "Worker", Mortal)
    with pytest.raises(InputError, match="shard train-000001 died 1 times"):
        extract(media, run, CONFIG.model_copy(update={"workers": 1, "worker_tries": 0}))


@on_ray
def test_ingestion_and_extraction_in_one_pass(run, tmp_path, capfd, ray_cluster):
    """Tasks and actors in line leave the bytes that this process leaves one after the other."""
    from pipelines.ingest import main as ingest
    from tests.fixtures.media import make_clip

    make_clip(tmp_path / "both.mp4")
    make_clip(tmp_path / "silent.mp4", audio=False)
    rows = [f"c{n},{('both', 'silent')[n % 2]}.mp4,{('cat', 'dog')[n % 2]},{('train', 'val')[n > 5]}" for n in range(9)]
    (tmp_path / "clips.csv").write_text("\n".join(["id,path,label,split", *rows]) + "\n")
    command = ["--manifest", str(tmp_path / "clips.csv"), "image_size=48", "samples_per_shard=2"]
    assert ingest([*command, "--out", str(tmp_path / "out"), "--backbone", str(tmp_path)]) == 2
    assert not (tmp_path / "out").exists()
    assert ingest([*command, "--out", str(tmp_path / "out"), "--backbone", str(run), "--depth", "1"]) == 0
    out = feature_folder(tmp_path / "out", frozen_backbone(run).fingerprint, 1)
    assert set(ShardDataset(out, "train")[1].arrays) == {"visual"}
    assert json.loads((out / "features.json").read_text())["config"]["draws"] == 4
    said = capfd.readouterr()
    assert "features of 6 clips in 3 shards" in said.out
    assert "to extract" not in said.err, "all of them were made meanwhile"
    assert ingest([*command, "--out", str(tmp_path / "calm"), "workers=0"]) == 0
    assert main(["--data", str(tmp_path / "calm"), "--backbone", str(run), "--depth", "1", "workers=0"]) == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "calm")
