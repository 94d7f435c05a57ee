from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbone import weights_fingerprint
from shards.checkpoint import (
    META,
    STATE,
    WEIGHTS,
    has_checkpoint,
    load_checkpoint,
    load_resumable,
    load_state,
    save_checkpoint,
)
from shards.errors import InputError

pytestmark = pytest.mark.unit


def a_network() -> torch.nn.Module:
    network = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(4, 3), "b": torch.nn.Linear(4, 3), "n": torch.nn.BatchNorm1d(3)}
    )
    network["b"].weight = network["a"].weight
    return network


def test_weights_of_any_kind_come_back_bit_for_bit(tmp_path):
    weights = {
        "bf16": torch.randn(5, 7).bfloat16(),
        "half": torch.randn(3).half(),
        "double": torch.randn(2, 2, dtype=torch.float64),
        "nan": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "bytes": torch.arange(9, dtype=torch.uint8),
        "empty": torch.empty(0, 3),
        "strided": torch.arange(12.0).reshape(3, 4).t(),
        "slice": torch.arange(12.0)[3:6],
    }
    save_checkpoint(tmp_path / "c", weights, {"identity": "x", "metrics": {"acc": 0.1}})
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.meta == {"identity": "x", "metrics": {"acc": 0.1}}
    assert list(loaded.weights) == list(weights)
    for name, tensor in weights.items():
        back = loaded.weights[name]
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (back, tensor)]
        assert torch.equal(*raw), name
    assert weights_fingerprint(loaded.weights, {}) == weights_fingerprint(weights, {})


def test_tied_tensors_stay_tied_and_are_stored_once(tmp_path):
    network = a_network()
    save_checkpoint(tmp_path / "c", network.state_dict(), {})
    weights = load_checkpoint(tmp_path / "c").weights
    assert weights["a.weight"] is weights["b.weight"]
    assert json.loads((tmp_path / "c" / "checkpoint.json").read_text())["tied"] == {"b.weight": "a.weight"}
    other = a_network()
    other.load_state_dict(weights)
    assert all(torch.equal(t, network.state_dict()[name]) for name, t in other.state_dict().items())


def test_optimizer_and_loader_states_come_back_bit_for_bit(tmp_path):
    network = a_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network["a"](torch.randn(2, 4)).sum().backward()
    optimizer.step()
    state = {"epoch": 3, "optimizer": optimizer.state_dict()}
    state["loader"] = np.random.default_rng(5).bit_generator.state
    save_checkpoint(tmp_path / "c", network.state_dict(), {}, state)
    loaded = load_state(tmp_path / "c")
    assert loaded["epoch"] == 3
    assert loaded["loader"] == state["loader"]
    moments = loaded["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(moments, optimizer.state_dict()["state"][0]["exp_avg"])


def test_state_that_could_not_be_loaded_again_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a ndarray"):
        save_checkpoint(tmp_path / "c", {}, {}, {"a": [1, np.zeros(2)]})
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    pass


@pytest.mark.parametrize("existing", [True, False])
def test_a_kill_between_any_two_steps_leaves_an_old_or_new_checkpoint(tmp_path, monkeypatch, existing):
    """Each call that changes the disk fails in turn; the writer cleans up nothing, as after a real kill."""
    steps, left = 0, {"old": 0, "new": 0, "none": 0}
    while True:
        steps += 1
        folder = tmp_path / str(steps) / "c"
        if existing:
            save_checkpoint(folder, {"w": torch.zeros(3)}, {"v": "old"}, {"epoch": 0})
        with monkeypatch.context() as patch:
            calls = iter(range(1, 10_000))

            def dying(call, steps=steps, calls=calls):
                def wrapped(*args, **kwargs):
                    if next(calls) == steps:
                        raise Killed
                    return call(*args, **kwargs)

                return wrapped

            for place, name in ((Path, "rename"), (Path, "mkdir"), (os, "fsync"), (shutil, "rmtree")):
                patch.setattr(place, name, dying(getattr(place, name)))
            try:
                save_checkpoint(folder, {"w": torch.ones(3)}, {"v": "new"}, {"epoch": 1})
                break
            except Killed:
                pass
        version = load_checkpoint(folder).meta["v"] if has_checkpoint(folder) else "none"
        left[version] += 1
        if version != "none":
            number = int(version == "new")
            assert torch.equal(load_checkpoint(folder).weights["w"], torch.full((3,), float(number)))
            assert load_state(folder)["epoch"] == number
        save_checkpoint(folder, {"w": torch.ones(3)}, {"v": "next"})  # a later writer is not disturbed
        assert load_checkpoint(folder).meta["v"] == "next"
        assert [path.name for path in folder.parent.iterdir()] == ["c"]
    assert steps > 8
    assert left["new"] > 0
    assert (left["none"] == 0) == existing


def _save(folder: Path, number: int) -> None:
    save_checkpoint(folder, {"w": torch.full((1000,), float(number))}, {"number": number}, {"number": number})


def _save_for_ever(folder: Path, begun: Event) -> None:
    for number in range(1, 10**6):
        _save(folder, number)
        begun.set()


def test_a_writer_killed_by_the_system_leaves_a_whole_checkpoint(tmp_path):
    folder = tmp_path / "c"
    fork = multiprocessing.get_context("fork")
    _save(folder, 0)
    for tick in range(5):
        begun = fork.Event()
        writer = fork.Process(target=_save_for_ever, args=(folder, begun))
        writer.start()
        assert begun.wait(60)
        time.sleep(0.005 * tick)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        loaded = load_checkpoint(folder)
        assert loaded.meta["number"] > 0
        assert loaded.weights["w"].unique().tolist() == [loaded.meta["number"]]
        assert load_state(folder)["number"] == loaded.meta["number"]


def test_errors_name_the_folder_and_the_remedy(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: is no checkpoint: no such folder\n  remedy"):
        load_checkpoint(tmp_path / "nowhere")
    save_checkpoint(tmp_path / "c", {"w": torch.zeros(300)}, {})
    with pytest.raises(InputError, match=r"c: has no state\.pt"):
        load_state(tmp_path / "c")
    weights = tmp_path / "c" / "weights.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-5] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(InputError, match=r"weights\.safetensors: is damaged: its sha256"):
        load_checkpoint(tmp_path / "c")
    weights.unlink()
    with pytest.raises(InputError, match="it is missing"):
        load_checkpoint(tmp_path / "c")
    (tmp_path / "c" / "checkpoint.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="is of format 99"):
        load_checkpoint(tmp_path / "c")
    (tmp_path / "c" / "checkpoint.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path / "c")


def test_fingerprint_sees_values_names_shapes_dtypes_and_config_but_not_order():
    zero, one = torch.zeros(4), torch.ones(4)
    base = weights_fingerprint({"a": zero, "b": one}, {"width": 4})
    assert weights_fingerprint({"b": one, "a": zero}, {"width": 4}) == base
    assert len(base) == 64
    others = [
        weights_fingerprint({"a": one, "b": zero}, {"width": 4}),
        weights_fingerprint({"a": zero, "c": one}, {"width": 4}),
        weights_fingerprint({"a": zero.reshape(2, 2), "b": one}, {"width": 4}),
        weights_fingerprint({"a": zero.int(), "b": one}, {"width": 4}),
        weights_fingerprint({"a": zero, "b": one}, {"width": 5}),
    ]
    assert len({base, *others}) == 6


DAMAGES = {
    "cut weights": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8]),
    "flipped bit": lambda folder: _flip(folder / STATE),
    "no state": lambda folder: (folder / STATE).unlink(),
    "empty record": lambda folder: (folder / META).write_text(""),
    "deep record": lambda folder: (folder / META).write_text("[" * 100_000),
    "no record": lambda folder: (folder / META).unlink(),
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _save_kept(folder: Path, number: int) -> None:
    save_checkpoint(folder, {"w": torch.full((3,), float(number))}, {}, {"epoch": number}, keep_previous=True)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_is_replaced_by_the_one_before_it(tmp_path, damage):
    folder = tmp_path / "last"
    _save_kept(folder, 1)
    assert load_resumable(folder).state == {"epoch": 1}
    damage(folder)
    with pytest.raises(InputError, match="can't be resumed from") as caught:
        load_resumable(folder)
    assert str(folder) in str(caught.value.remedy)
    assert "begins this stage anew" in str(caught.value.remedy)
    for number in (2, 3):
        _save_kept(folder, number)
    damage(folder)
    found = load_resumable(folder)
    assert (found.state, found.weights["w"].tolist()) == ({"epoch": 2}, [2.0, 2.0, 2.0])
    assert str(folder) in found.note
    assert "goes on from the state before it" in found.note
    _save_kept(folder, 3)
    found = load_resumable(folder)
    assert (found.state, found.note) == ({"epoch": 3}, "")


def test_both_states_damaged_names_both_folders(tmp_path):
    folder = tmp_path / "last"
    for number in (1, 2):
        _save_kept(folder, number)
    for place in (folder, tmp_path / ".last.old"):
        _flip(place / WEIGHTS)
    with pytest.raises(InputError) as caught:
        load_resumable(folder)
    assert caught.value.remedy.startswith(f"remove {folder} and {tmp_path / '.last.old'};")
    with pytest.raises(InputError, match="no such folder"):
        load_resumable(tmp_path / "nothing")


def test_a_kill_while_the_state_is_replaced_leaves_one_to_resume_from(tmp_path, monkeypatch):
    """The writer is stopped before each of its renames and removals in turn."""
    import shards.checkpoint as module

    for stop in range(6):
        folder, steps = tmp_path / str(stop) / "last", 0

        def step(action, stop=stop):
            def stopped(*arguments, **options):
                nonlocal steps
                if steps == stop:
                    raise KeyboardInterrupt
                steps += 1
                return action(*arguments, **options)

            return stopped

        _save_kept(folder, 1)
        _save_kept(folder, 2)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", step(Path.rename))
            patch.setattr(module.shutil, "rmtree", step(module.shutil.rmtree))
            with contextlib.suppress(KeyboardInterrupt):
                _save_kept(folder, 3)
        assert load_resumable(folder).state["epoch"] in (2, 3), stop
        _save_kept(folder, 4)
        assert load_resumable(folder).state == {"epoch": 4}
