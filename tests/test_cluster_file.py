"""The files for Ray's launcher and KubeRay: accepted, and refused once they are open or lack something."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from shards.errors import InputError
from tests.conftest import ROOT
from tuning.checks.cluster_file import Cluster, placeholders, problems, read_cluster
from tuning.checks.gpu_counts import gpus_of
from tuning.checks.machine import read_pins

pytestmark = pytest.mark.integration
AWS, LOCAL = ROOT / "cluster.yaml", ROOT / "configs" / "clusters" / "local.yaml"
KUBERAY = ROOT / "configs" / "clusters" / "kuberay.yaml"


@pytest.fixture(scope="module")
def aws() -> Cluster:
    return read_cluster(AWS)


@pytest.mark.parametrize("path", [AWS, LOCAL], ids=lambda path: path.stem)
def test_the_launcher_accepts_the_file_and_nothing_is_open(path):
    assert problems(read_cluster(path)) == []


def test_what_is_to_be_filled_in_is_known():
    assert placeholders(AWS) == ["ami-REPLACE", "fs-REPLACE", "sg-REPLACE", "subnet-REPLACE"]
    assert placeholders(LOCAL) == []


def swap(field: str, before: str, after: str) -> Callable[[Cluster], None]:
    """Replace text in a list of commands."""

    def change(cluster: Cluster) -> None:
        assert any(before in command for command in cluster[field])
        cluster[field] = [command.replace(before, after) for command in cluster[field]]

    return change


def put(path: str, value: object) -> Callable[[Cluster], None]:
    """Set a dotted field; None takes it out."""

    def change(cluster: Cluster) -> None:
        *outer, last = path.split("/")
        for name in outer:
            cluster = cluster[name]
        if value is None:
            del cluster[last]
        else:
            cluster[last] = value

    return change


HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"
WORLD = [{"FromPort": 8265, "ToPort": 8265, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
FAULTS = {
    "head without token": (swap(HEAD, "RAY_AUTH_MODE=token", ""), HEAD, "RAY_AUTH_MODE=token"),
    "worker without token": (swap(WORKER, "RAY_AUTH_MODE=token", ""), WORKER, "RAY_AUTH_MODE=token"),
    "token off": (
        swap(WORKER, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
        WORKER,
        "RAY_AUTH_MODE=token",
    ),
    "token in the file": (swap(HEAD, "AVMEND_RUNS", "RAY_AUTH_TOKEN=x AVMEND_RUNS"), HEAD, "take it out"),
    "no token file": (put("file_mounts", {"~/avmend": "."}), "file_mounts", "~/.ray/auth_token"),
    "token open": (swap("setup_commands", "chmod 600", "chmod 644"), "setup_commands", "chmod 600"),
    "Ray not started": (put(WORKER, ["true"]), WORKER, "ray start"),
    "dashboard open": (swap(HEAD, "host=127.0.0.1", "host=0.0.0.0"), HEAD, "--dashboard-host=127.0.0.1"),
    "dashboard open, IPv6": (swap(HEAD, "host=127.0.0.1", "host ::"), HEAD, "--dashboard-host=127.0.0.1"),
    "public node": (
        swap(HEAD, "$(hostname -I | cut -d' ' -f1)", "8.8.8.8"),
        HEAD,
        "private network",
    ),
    "MLflow open": (swap(HEAD, "--host 127.0.0.1", "--host 0.0.0.0"), HEAD, "--host 127.0.0.1"),
    "no MLflow": (swap(HEAD, "MLFLOW_TRACKING_URI", "X"), HEAD, "MLFLOW_TRACKING_URI"),
    "no folder of runs": (swap(HEAD, "AVMEND_RUNS", "RUNS"), HEAD, "AVMEND_RUNS"),
    "runs elsewhere": (
        swap(HEAD, "AVMEND_RUNS=/shared", "AVMEND_RUNS=/home"),
        "setup_commands (head)",
        "mount",
    ),
    "ports open": (put("provider/security_group", {"IpPermissions": WORLD}), "security_group", "addresses"),
    "public addresses": (
        put("provider/use_internal_ips", False),
        "use_internal_ips",
        "use_internal_ips: true",
    ),
    "Ray's own security group": (
        put("available_node_types/gpu/node_config/SecurityGroupIds", None),
        "gpu.node_config.SecurityGroupIds",
        "admits",
    ),
    "GPUs that are not there": (
        put("available_node_types/gpu/resources/GPU", 4),
        "gpu.resources.GPU",
        "set GPU: 1",
    ),
    "a machine without GPUs": (
        put("available_node_types/gpu/node_config/InstanceType", "m6i.2xlarge"),
        "gpu.resources.GPU",
        "set GPU: 0",
    ),
    "gigabytes copied": (put("rsync_exclude", [".git"]), "rsync_exclude", ".venv"),
    "unknown field": (put("head_start_commands", []), "(top)", "reference"),
    "wrong type": (put("max_workers", "four"), "max_workers", "reference"),
    "workers beyond the limit": (put("max_workers", 0), "provider", "reference"),
    "no such provider": (put("provider/type", "awz"), "provider", "reference"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_refused_by_field_and_with_a_remedy(aws, name):
    change, field, remedy = FAULTS[name]
    cluster = copy.deepcopy(aws)
    change(cluster)
    found = problems(cluster)
    assert any(field in problem.field and remedy in problem.remedy for problem in found), found


def test_storage_that_one_type_of_node_does_not_mount_is_refused(aws):
    cluster = copy.deepcopy(aws)
    cluster["available_node_types"]["gpu"]["worker_setup_commands"] = ["make -C ~/avmend setup"]
    (found,) = problems(cluster)
    assert found.field == "available_node_types.gpu"
    assert "/shared/runs" in found.message
    cluster = copy.deepcopy(aws)
    cluster["setup_commands"] = [c for c in cluster["setup_commands"] if "fstab" not in c and "mount" not in c]
    assert {problem.field for problem in problems(cluster)} == {
        "setup_commands (head)",
        "available_node_types.gpu",
    }


def test_machines_of_ones_own_have_private_addresses():
    cluster = read_cluster(LOCAL)
    cluster["provider"]["worker_ips"] = ["8.8.8.8"]
    (found,) = problems(cluster)
    assert found.message == "8.8.8.8 is not a private address"


def test_gpus_of_machines():
    known = {"g6.2xlarge": 1, "g5.12xlarge": 4, "p4d.24xlarge": 8, "m6i.large": 0, "trn1.2xlarge": None}
    assert {name: gpus_of(name) for name in known} == known


def test_a_file_that_is_none_is_refused(tmp_path):
    for text in ("[1, 2]", "a: [", ""):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(InputError):
            read_cluster(tmp_path / "c.yaml")
    with pytest.raises(InputError, match="No such file"):
        read_cluster(tmp_path / "none.yaml")


def test_the_kuberay_manifest_says_what_the_others_say():
    spec = yaml.safe_load(KUBERAY.read_text())["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == read_pins(ROOT / "constraints.txt")["ray"]
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    ray, mlflow = spec["headGroupSpec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable["value"] for variable in ray["env"]}
    assert Path(env["AVMEND_RUNS"]).is_relative_to("/shared")
    assert mlflow["command"][mlflow["command"].index("--host") + 1] == "127.0.0.1"
    assert not mlflow.get("ports")
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    for pod in pods:
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {"/shared", "/dev/shm"}
        assert {volume["name"] for volume in pod["volumes"]} == {"shared", "shm"}
