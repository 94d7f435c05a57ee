from __future__ import annotations

import pytest

pytestmark = pytest.mark.ray


def test_workers_of_the_test_cluster_run_this_checkout(ray_cluster):
    import ray

    import shards.errors

    @ray.remote
    def where() -> tuple[str, str]:
        return shards.errors.__file__, str(shards.errors.InputError("x", file="f", remedy="r"))

    assert ray.get(where.remote()) == (shards.errors.__file__, "f: x\n  remedy: r")
    assert ray.cluster_resources()["CPU"] == 2


def test_input_errors_survive_the_way_back_from_a_worker(ray_cluster):
    import ray

    from shards.errors import InputError

    @ray.remote
    def fail() -> None:
        raise InputError("is empty", file="m.csv", field="id", remedy="add clips")

    with pytest.raises(InputError, match=r"m\.csv: field 'id': is empty"):
        ray.get(fail.remote())
