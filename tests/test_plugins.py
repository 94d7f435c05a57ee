"""Plugins: what a module outside the project registers is chosen by name like ours, checked, and trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from configs import load_config
from configs.cluster import JOB, worker_variables
from configs.noise import Noise
from models import registry
from models.adaptation import ADAPTATIONS
from models.adaptation.adapting import Adapting
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES
from models.conditions import CONDITIONS
from models.fusion import FUSIONS
from models.noise import ruin
from models.registry import PluginError, Registry, UnknownName
from models.settings import AUDIO_KINDS, VISUAL_KINDS
from shards.errors import InputError
from tests.fixtures.asking import asking_world, question_stages, saved_run, settings
from trainers.avqa.config import AnyRecoveryConfig, AVQAConfig
from trainers.avqa.objective import AnswerLoss
from trainers.avqa.predict import load_answerer
from trainers.classification.config import FuseConfig
from trainers.classification.objective import FuseLoss
from trainers.recipes import recipe_of
from trainers.runs import read_run

unit, integration = pytest.mark.unit, pytest.mark.integration
TOYS = "tests.fixtures.toys"
ALL: list[Registry] = [NETWORKS, RECOVERIES, FUSIONS, ADAPTATIONS, CONDITIONS, AUDIO_KINDS, VISUAL_KINDS]


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registries and what is imported are afterwards as before."""
    monkeypatch.setattr(registry, "_state", dict(registry._state))
    for each in ALL:
        monkeypatch.setattr(each, "_members", dict(each._members))
    yield
    sys.modules.pop(TOYS, None)


@pytest.fixture
def toys(untouched, monkeypatch) -> None:
    monkeypatch.setenv("AVMEND_PLUGINS", f" {TOYS},")


@pytest.fixture
def root(tmp_path) -> Path:
    asking_world(tmp_path, {"train": 12})
    return tmp_path


def toy_settings(root: Path, **more) -> dict:
    names = {"network": "bag", "sizes": {"dim": 6}, "recovery": "gain", "recovery_sizes": {"start": 2.0}}
    return settings(root) | names | {"missing": ("audio",)} | more


@unit
def test_names_of_plugins_are_known_at_the_first_look(toys):
    assert "bag" in NETWORKS
    assert list(RECOVERIES)[-1] == "gain"
    assert AVQAConfig.model_validate(toy_settings(Path())).network == "bag"


@unit
def test_without_the_variable_they_are_not(untouched):
    with pytest.raises(ValueError, match="'avst', 'avsd', 'lavit', 'pstp'"):
        AVQAConfig.model_validate(toy_settings(Path()))


@unit
def test_a_toy_network_and_method_train_answer_and_are_loaded_again(toys, root):
    """Eq. 8 by hand: the method bypasses, its loss and the network's count by their weights."""
    config = AVQAConfig.model_validate(toy_settings(root, weights={"gain": 0.5}))
    assert config.weights == {"gain": 0.5, "norm": 0.01}
    (stage,) = question_stages(config)
    loss = stage.objective
    assert isinstance(loss, AnswerLoss)
    batch = stage.train.batch(range(9, 17))
    output = loss(batch)
    total, figures = output.loss, output.metrics
    both = batch.present.all(dim=1)
    assert 0 < both.sum() < 8
    x = loss.answerer.standardise(batch)
    gain = (x.audio[both] * 2 - x.audio[both]).square().mean(dim=(1, 2))
    torch.testing.assert_close(figures["gain"][0], gain.sum())
    sums = {name: figure[0] for name, figure in figures.items()}
    expected = (sums["ce_complete"] + sums["ce_audio_missing"] + 0.5 * sums["gain"] + 0.01 * sums["norm"]) / 8
    torch.testing.assert_close(total.detach(), expected)
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())
    run = load_answerer(read_run(saved_run(root, "toy", config)), torch.device("cpu"))
    assert run(batch).isfinite().all()


@integration
def test_a_toy_fusion_method_trains_and_a_toy_adaptation_moves_it(toys, world):
    config = load_config(FuseConfig, None, [f"data={world.media}", f"start={world.backbone}", "method=quieter"])
    assert config.weights == {"quiet": 0.5}
    (stage,) = recipe_of(config).stages(config)
    objective = stage.objective.train()
    assert isinstance(objective, FuseLoss)
    batch = stage.train.batch(range(8))
    output, net = objective(batch), objective.net
    torch.testing.assert_close(output.metrics["quiet"], torch.tensor([8 * 0.25, 8]))
    without = FuseLoss(net, 1.0, {"quiet": 0.0}).train()(batch)
    torch.testing.assert_close(output.loss - without.loss, torch.tensor(0.5 * 0.25))
    adapting = Adapting(net.eval(), ADAPTATIONS["bias"]())
    adapting(batch.audio, batch.visual, batch.present)
    bias = {name: p for name, p in adapting.model.named_parameters() if p.requires_grad}
    assert list(bias) == ["backbone.mlp_head.1.bias"]
    assert not torch.equal(bias["backbone.mlp_head.1.bias"], net.backbone.mlp_head[1].bias)


@unit
def test_a_toy_kind_of_noise_is_drawn(toys):
    noise = Noise(audio=("silence",), visual=("silence",)).build()
    ruined, kind = ruin(torch.ones(4, 3), "audio", 5, noise, 0, "a", 0)
    assert (kind, ruined.abs().max()) == ("silence", 0)
    with pytest.raises(ValueError, match=r"one of 'black', .*'silence'"):
        Noise(visual=("glare",))


@unit
def test_an_unknown_name_is_refused_with_the_nearest(toys):
    overrides = ["data=d", "questions=q", "network=bog"]
    with pytest.raises(InputError, match=r"(?s)one of 'avst', .*'bag'.*did you mean 'bag'") as error:
        load_config(AVQAConfig, None, overrides)
    assert error.value.field == "network"
    with pytest.raises(UnknownName, match=r"no network 'bog'; choose from avst, .*, bag"):
        NETWORKS["bog"]


@unit
def test_entry_points_are_plugins_too(untouched, tmp_path, monkeypatch):
    info = tmp_path / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[avmend.plugins]\ntoys = {TOYS}\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._state["plugins"] = None
    assert "gain" in RECOVERIES


@unit
@pytest.mark.parametrize("text", ["import nowhere_to_be_found", "1 / 0"])
def test_a_plugin_that_can_not_be_imported_is_named_each_time(untouched, tmp_path, monkeypatch, text):
    (tmp_path / "broken_toys.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AVMEND_PLUGINS", "broken_toys")
    for _ in range(2):
        with pytest.raises(PluginError, match=r"plugin 'broken_toys' \(AVMEND_PLUGINS\) can't be imported"):
            list(NETWORKS)


@unit
def test_a_taken_name_is_refused(untouched):
    with pytest.raises(ValueError, match="network 'avst' is registered already"):
        NETWORKS.register("avst", NETWORKS["pstp"])
    NETWORKS.register("avst", NETWORKS["avst"])  # the same again is no other


@integration
def test_another_process_imports_them_by_itself():
    """As Ray's workers are, which get the driver's environment."""
    code = "from models.avqa.recovery import RECOVERIES; print(*RECOVERIES)"
    env = {**os.environ, "AVMEND_PLUGINS": TOYS, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.split()[-1] == "gain"


@unit
def test_a_toy_method_trains_alone_by_its_loss(toys, root):
    shared = ("data", "questions", "batch_size", "workers", "cpus")
    values = {k: v for k, v in settings(root).items() if k in shared}
    config = AnyRecoveryConfig.model_validate(values | {"recovery": "gain"})
    (stage,) = question_stages(config)
    batch = stage.train.batch(range(9, 17))
    output = stage.objective(batch)
    total, logits, figures = output.loss, output.logits, output.metrics
    assert (logits, list(figures)) == (None, ["gain"])
    torch.testing.assert_close(total, 0.25 * figures["gain"][0] / figures["gain"][1])
    with pytest.raises(ValueError, match=r"'zero' has no loss of its own.*have: rmm, avr, avr_released, rmm_avr"):
        AnyRecoveryConfig.model_validate(values | {"recovery": "zero"})


@unit
def test_workers_of_any_cluster_get_the_variable(monkeypatch):
    """A cluster that runs already has its own environment; what a job gives its workers is not given twice."""
    monkeypatch.setenv("AVMEND_PLUGINS", "toys")
    monkeypatch.delenv(JOB, raising=False)
    assert worker_variables("cluster:1") == {"AVMEND_PLUGINS": "toys"}
    assert set(worker_variables(None)) == {"AVMEND_PLUGINS", "PYTHONPATH"}
    monkeypatch.setenv(JOB, json.dumps({"runtime_env": {"env_vars": {"AVMEND_PLUGINS": "toys"}}}))
    assert worker_variables("cluster:1") == {}
    monkeypatch.delenv("AVMEND_PLUGINS")
    assert set(worker_variables(None)) == {"PYTHONPATH"}
