"""Published CAV-MAE taken in as it is: six protocols against formulas of the test, heads with their lists, prompts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from configs import load_config
from configs.backbone import load_backbone
from models.cavmae import CAVMAE
from models.conditions import CONDITIONS
from models.prompts import DualPrompts
from models.public import import_state_dict, public_sizes
from models.settings import PromptSize
from pipelines.features import extract
from pipelines.settings import FeatureConfig
from shards.class_order import find_class_order
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from tests.fixtures.builders import LABELS, SMALL, media_dataset, small_inputs
from tests.fixtures.sharing import exported
from tests.test_cavmae import (
    State,
    pretrained,
    published,
    random_state,
    ref_block,
    ref_encode,
    ref_linear,
    ref_norm,
    saved,
)
from trainers.classification import evaluate as judging
from trainers.classification.config import EvaluateConfig, FinetuneConfig, PromptConfig
from trainers.classification.evaluate import prepare
from trainers.classification.stages import _start
from trainers.imports.command import main as bring
from trainers.imports.command_line import import_parser
from trainers.imports.kinds import KINDS
from trainers.job import prepare as prepare_job
from trainers.loop import Rank
from trainers.run import run
from trainers.runs import read_run
from trainers.tracking import Store

pytestmark = pytest.mark.integration
ORDER = ("rain", "owl", "bell", "drum", "sea")  # of the published head: other classes, another order than the data's
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "media"
    media_dataset(folder, {"train": 12, "val": 4, "test": 10})
    return folder


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(SMALL, len(ORDER), seed=5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, state: State, _mlflow_schema: Path) -> Path:
    """A released file (saved from DataParallel) and the list of its head's classes; an empty folder of runs."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "runs").mkdir()
    shutil.copy(_mlflow_schema, folder / "runs")
    saved(folder / "av.pth", {f"module.{name}": x for name, x in state.items()})
    (folder / "classes.csv").write_text("".join(f"{name}\n" for name in ORDER))
    return folder


def take_in(files: Path, *more: str, file: str = "av.pth", labels: str | None = "classes.csv") -> Path:
    """``avmend import cavmae``."""
    listed = [] if labels is None else ["--labels", str(files / labels)]
    words = ["cavmae", str(files / file), *listed, "--heads", "2", "--runs", str(files / "runs"), *more]
    return KINDS["cavmae"].run(import_parser().parse(words))


@pytest.fixture(scope="module")
def taken_in(files: Path, media: Path) -> Path:
    return take_in(files, "--data", str(media))


def test_without_data_it_is_evaluated_on_what_it_is_told_and_else_refused(files, media, tmp_path):
    run = take_in(files, "--runs", str(tmp_path / "alone"))
    with pytest.raises(InputError, match="was imported, and has no clips of its own"):
        prepare([read_run(run)], EvaluateConfig())
    assert prepare([read_run(run)], EvaluateConfig(data=media)).data.folder == media


def test_mlflow_shows_it_beside_what_was_trained(taken_in, files, media):
    take_in(files)  # without data
    client = Store(files / "runs").client
    experiments = {e.experiment_id: e.name for e in client.search_experiments()}
    found = client.search_runs(list(experiments))
    assert {(experiments[run.info.experiment_id], run.data.tags["imported"], run.info.status) for run in found} == {
        (media.name, "cavmae", "FINISHED")
    }, "the same file: one run"


# --- six protocols -----------------------------------------------------------------------------------------


def averaged(s: State, x: Tensor, m: str) -> Tensor:
    """`missingaudioonly`, `missingvideoonly`: joint blocks by joint and by own norms, the two means averaged."""
    tokens = ref_encode(x.transpose(1, 2)[:, None] if m == "a" else x, s, m, SMALL)
    pooled = []
    for norms in ("", f"_{m}"):
        y = tokens
        for i in range(SMALL.joint_depth):
            y = ref_block(y, s, f"blocks_u.{i}", SMALL.heads, norms)
        pooled.append(ref_norm(y, s, f"norm{norms}").mean(dim=1, keepdim=True))
    return ref_linear(ref_norm(sum(pooled) / 2, s, "mlp_head.0"), s, "mlp_head.1")[:, 0]


def clip_inputs(media: Path, frame: int) -> tuple[list[int], Tensor, Tensor]:
    """Complete test clips, published normalisation by hand: positions, fbank [N, 32, 128], picture [N, 3, 32, 32]."""
    data = ShardDataset(media, "test")
    whole = [i for i, meta in enumerate(data.metas) if meta.audio.present and meta.visual.present]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    sounds = [(torch.from_numpy(data[i].arrays["audio"][:32].astype(np.float32)) + 5.081) / 4.4849 for i in whole]
    pictures = [torch.from_numpy(data[i].arrays["frames"][frame].transpose(2, 0, 1) / 255).float() for i in whole]
    return whole, torch.stack(sounds), torch.stack([(x - mean) / std for x in pictures])


def ten_frames(s: State, media: Path) -> Tensor:
    """Log of the mean softmax over a clip's pictures."""
    looks = [published(s, *clip_inputs(media, frame)[1:], "multimodal", SMALL).softmax(dim=1) for frame in range(3)]
    return (sum(looks) / 3).log()


PROTOCOLS = {  # condition, settings of the evaluation, the formula
    "multimodal": ("complete", {}, lambda s, a, v: published(s, a, v, "multimodal", SMALL)),
    "audioonly": ("visual_missing", {"alone": "own"}, lambda s, a, v: published(s, a, v, "audio", SMALL)),
    "videoonly": ("audio_missing", {"alone": "own"}, lambda s, a, v: published(s, a, v, "visual", SMALL)),
    "missingaudioonly": ("visual_missing", {}, lambda s, a, v: averaged(s, a, "a")),
    "missingvideoonly": ("audio_missing", {}, lambda s, a, v: averaged(s, v, "v")),
    "all pictures": ("complete", {"frames": "all"}, None),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_evaluation_gives_the_published_logits(taken_in, media, state, protocol):
    condition, settings, formula = PROTOCOLS[protocol]
    config = EvaluateConfig(conditions=(condition,), **settings)
    evaluation = prepare([read_run(taken_in)], config)
    (predictor,) = evaluation.predictors
    assert predictor.answers == ORDER
    ((_, _, answers),) = evaluation.answers(lambda *_, **__: None)
    found = answers[""]
    whole, audio, visual = clip_inputs(media, 1)
    left = np.flatnonzero(judging.testable(evaluation.data.present, CONDITIONS[condition])).tolist()
    rows = [left.index(i) for i in whole]
    expected = ten_frames(state, media) if formula is None else formula(state, audio, visual)
    assert expected.std() > 0.1
    scale = expected.abs().max()
    assert float((torch.from_numpy(found.logits)[rows] - expected).abs().max() / scale) < 1e-5


def test_evaluation_counts_by_the_heads_own_order(taken_in, media, state):
    """Argmax over the list's order against the clips' labels, whatever the order of the data's."""
    (row,) = prepare([read_run(taken_in)], EvaluateConfig(conditions=("complete",))).rows(lambda *_, **__: None)
    data = ShardDataset(media, "test")
    whole, audio, visual = clip_inputs(media, 1)
    answers = [ORDER[i] for i in published(state, audio, visual, "multimodal", SMALL).argmax(dim=1)]
    right = sum(answer == data.metas[i].labels[0] for answer, i in zip(answers, whole, strict=True))
    assert (row.trained, row.method, row.samples) == (0, "cavmae", 10)
    assert right <= row.accuracy * 10 <= right + (10 - len(whole))


# --- prompts beside it -------------------------------------------------------------------------------------


def gradients(net: CAVMAE, present: list[bool] | None = None) -> dict[str, float]:
    """Of a fresh prompt set at step one, by level."""
    torch.manual_seed(0)
    prompts = DualPrompts(SMALL, PromptSize(length=3))
    audio, visual = small_inputs(4)
    there = None if present is None else torch.tensor([present] * 4)
    loss = torch.nn.functional.cross_entropy(
        prompts.run(net.requires_grad_(False), audio, visual, there, None), torch.arange(4)
    )
    loss.backward()
    levels = {"input": prompts.input_tokens, "attention": prompts.attention_tokens}
    return {
        name: min(float(p.grad.abs().max()) for p in level.parameters() if p.grad is not None)
        for name, level in levels.items()
    }


def test_both_levels_learn_from_the_first_step(taken_in, state):
    before = CAVMAE(SMALL, len(ORDER)).eval()
    import_state_dict(before, state)
    assert gradients(before)["attention"] == 0  # the fusion that fine-tuning opens
    assert gradients(before)["input"] > 0
    net = load_backbone(taken_in).net.eval()
    for present in (None, [True, False], [False, True]):
        assert min(gradients(net, present).values()) > 1e-5


def test_without_prompts_the_fusion_adds_nothing(taken_in):
    net = load_backbone(taken_in).net.eval()
    audio, visual = small_inputs(2)
    tokens = {"audio": net.embed("audio", audio), "visual": net.embed("visual", visual)}
    assert torch.equal(net.fusion_a(tokens["audio"], None, tokens["visual"]), tokens["audio"])


def test_features_and_prompts_on_it(taken_in, media, files, tmp_path):
    extract(media, taken_in, FeatureConfig(draws=1, workers=0))
    values = [f"data={media}", f"backbone={taken_in}", "epochs=1", "batch_size=8", "workers=0", "cpus=1", "length=2"]
    job = prepare_job(load_config(PromptConfig, None, values), files / "runs")
    job.begin()
    run(job.config, job.folder, Rank())
    rows = prepare([read_run(taken_in), read_run(job.folder)], EvaluateConfig()).rows(lambda *_, **__: None)
    assert len(rows) == 6 * (1 + 3)
    assert load_backbone(taken_in).fingerprint == load_backbone(take_in(files, "--data", str(media))).fingerprint
    shared, runs = exported(job.folder, tmp_path / "shared"), tmp_path / "elsewhere"
    assert bring([str(shared), "--runs", str(runs)]) == 0
    there = prepare([read_run(runs / path.name) for path in (taken_in, job.folder)], EvaluateConfig(data=media))
    assert [row.accuracy for row in there.rows(lambda *_, **__: None)] == [row.accuracy for row in rows]
    assert read_run(runs / taken_in.name).imported


# --- what is refused ---------------------------------------------------------------------------------------


def test_a_head_without_its_list_is_refused(files):
    with pytest.raises(InputError, match="5 classes, and nothing says which") as error:
        take_in(files, labels=None)
    assert "audioset or vggsound" in error.value.remedy
    (files / "four.csv").write_text("a\nb\nc\nd\n")
    with pytest.raises(InputError, match=r"5 classes, the list '.*four\.csv' 4"):
        take_in(files, labels="four.csv")


def test_a_pre_trained_file_is_to_be_fine_tuned(files):
    saved(files / "pretrained.pth", pretrained(SMALL))
    with pytest.raises(InputError, match="has no head") as error:
        take_in(files, file="pretrained.pth")
    assert "avmend train finetune public=" in error.value.remedy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {n: x for n, x in s.items() if n != "blocks_v.1.attn.proj.bias"},
            "missing blocks_v.1.attn.proj.bias",
        ),
        (lambda s: s | {"cls_token": torch.zeros(1)}, "unknown cls_token"),
        (lambda s: s | {"norm.bias": torch.zeros(3)}, r"norm.bias is \(3,\), expected \(32,\)"),
        (lambda s: {"a": torch.zeros(1)}, "no CAV-MAE: 'pos_embed_a'"),
    ],
)
def test_names_that_do_not_fit_are_listed(files, state, change, message):
    wrong = {**change(state), "mlp_head.1.weight": state["mlp_head.1.weight"]}
    saved(files / "wrong.pth", wrong)
    with pytest.raises(InputError, match=message):
        take_in(files, file="wrong.pth")


def test_a_decoder_is_named_and_left(files, state, capsys):
    saved(files / "more.pth", {"model": state | {"mask_token": torch.zeros(1), "decoder_pred_a.bias": torch.zeros(1)}})
    take_in(files, file="more.pth")
    assert "2 tensors are of its decoder" in capsys.readouterr().err


def test_sizes_are_read_from_the_names_and_shapes(state):
    assert public_sizes(state, heads=2) == SMALL
    with torch.device("meta"):
        base = CAVMAE(public_sizes(random_state(SMALL, 5), 2), 5).state_dict()
    assert {n for n in base if not n.startswith("fusion_")} == set(state)


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("audioset", 527, "Speech", "Field recording"),
        ("vggsound", 309, "ambulance siren", "air horn"),
    ],
)
def test_published_orders_are_known_by_name(name, count, first, last):
    order = find_class_order(name)
    assert (len(order), order[0], order[-1]) == (count, first, last)


# --- fine-tuning from a published file ---------------------------------------------------------------------


def started(media: Path, **settings) -> Tensor:
    config = FinetuneConfig(data=media, backbone=SMALL.as_dict(), **settings)
    torch.manual_seed(0)
    return _start(config, DatasetInfo.load(media)).net.mlp_head[1].weight


def test_fine_tuning_takes_the_heads_rows_by_name(files, media, state):
    head = started(media, public=files / "av.pth", public_labels=files / "classes.csv")
    rows = [ORDER.index(label) for label in LABELS]
    assert torch.equal(head, state["mlp_head.1.weight"][rows])
    own = random_state(SMALL, 3, seed=8)
    saved(files / "three.pth", own)
    with pytest.raises(InputError, match="3 classes, and nothing says which"):
        started(media, public=files / "three.pth")
    assert not torch.equal(started(media, public=files / "three.pth", public_head=False), own["mlp_head.1.weight"])
    (files / "other.csv").write_text("bell\ndrum\nowl\n")
    with pytest.raises(InputError, match="does not know 1 of 3 labels: rain"):
        started(media, public=files / "three.pth", public_labels=files / "other.csv")


def test_published_normalisation_is_the_default_of_a_public_file():
    assert FinetuneConfig(data=Path(), public=Path("a.pth")).statistics == "published"
    assert FinetuneConfig(data=Path(), public=Path("a.pth"), statistics="dataset").statistics == "dataset"
    assert FinetuneConfig(data=Path()).statistics == "dataset"
