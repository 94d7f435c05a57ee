"""The file for ``serve deploy``, and the command line that becomes the same arguments."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from models.registry import imported
from serving.app import build, config_of, free_port, not_started
from serving.command_line import serve_parser
from serving.settings import ServeConfig
from shards.errors import InputError
from tests.conftest import ROOT
from tests.fixtures.worlds import World
from tuning.checks.cluster_file import placeholders

unit, integration = pytest.mark.unit, pytest.mark.integration
FILE = ROOT / "configs" / "clusters" / "serve.yaml"


@unit
def test_serve_takes_the_file_and_the_builder_its_arguments():
    from ray.serve.schema import ServeDeploySchema

    values = yaml.safe_load(FILE.read_text())
    (app,) = ServeDeploySchema.model_validate(values).applications
    assert imported(app.import_path) is build
    config = ServeConfig.model_validate(app.args)
    assert config.token_file is not None, "a cluster is not one machine"
    assert values["http_options"]["host"] == "127.0.0.1"
    assert placeholders(FILE) == ["finetune-REPLACE"]
    assert build.__annotations__["config"] is ServeConfig, "Serve reads the type from the signature"
    application = build(config)
    names = {deployment.name for deployment in _deployments(application)}
    assert names == {"ingress", "answerer"}


def _deployments(application):
    bound = application._bound_deployment
    yield bound
    for argument in bound.init_args:
        if hasattr(argument, "_bound_deployment"):
            yield from _deployments(argument)


@unit
def test_paths_on_a_cluster_are_absolute():
    with pytest.raises(InputError, match="no absolute path"):
        build(ServeConfig(runs=(Path("runs/finetune"),)))


@integration
def test_a_command_line_is_a_config(world: World, monkeypatch):
    monkeypatch.chdir(world.runs)
    words = [world.backbone.name, str(world.others["prompt"]), "max_mb=3", "--replicas", "2", "max_replicas=4"]
    config = config_of(serve_parser().parse([*words, "--examples", "clips", "--token", "t"]))
    assert config.runs == (world.backbone.absolute(), world.others["prompt"])
    assert (config.max_mb, config.replicas, config.max_replicas) == (3, 2, 4)
    assert config.examples == world.runs / "clips"
    assert config.token_file == world.runs / "t"
    for wrong, said in (("max_md=3", "max_mb"), ("max_mb=0", "greater than 0"), ("nowhere", "nowhere")):
        with pytest.raises(InputError) as refused:
            config_of(serve_parser().parse([world.backbone.name, wrong]))
        assert said in str(refused.value)
    with pytest.raises(InputError, match="no run"):
        config_of(serve_parser().parse(["max_mb=3"]))


@unit
def test_an_address_with_an_equals_sign_is_a_run(tmp_path):
    place = f"memory://{tmp_path.name}/team=av/runs/finetune-0123456789ab"
    with pytest.raises(InputError) as refused:
        config_of(serve_parser().parse([place, "examples=memory://clips", "max_mb=3"]))
    assert str(refused.value.file).startswith(f"{place}/"), "it is looked for, and is not there"


@unit
def test_a_replica_that_does_not_start_says_why_without_a_traceback():
    said = """The deployment failed to start 3 times in a row. Error: Traceback (most recent call last):
  File "model.py", line 72, in load
shards.errors.InputError: runs/x: field 'backbone': answers from features of other networks
  remedy: give --backbone (backbone=)
"""
    error = not_started(said)
    wanted = "a replica does not start: runs/x: field 'backbone': answers from features of other networks"
    assert (error.message, error.remedy) == (wanted, "give --backbone (backbone=)")
    assert not_started("Traceback:\n  File x\nMemoryError: no room\n").message.endswith("start: MemoryError: no room")


@unit
def test_a_port_is_free_or_somebody_has_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=r"choose another --port"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", 0) > 0
