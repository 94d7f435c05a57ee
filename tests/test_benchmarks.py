"""The benchmarks: their counting against torch's own and by hand, their options, a toy run of each."""

from __future__ import annotations

import json
import time

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    avqa_loading,
    capacity,
    corpus,
    cost,
    decode,
    extraction,
    features_import,
    flops,
    loading,
    loop,
    reading,
    report,
    scale,
    streaming,
)
from models.batch import AVBatch
from models.cavmae import CAVMAE
from models.peft import Adapter, LoRA
from models.prompts import DualPrompts
from models.settings import BACKBONES, BackboneConfig, PromptSize
from models.tuned import Tuned
from pipelines.settings import IngestConfig
from trainers.classification.objective import CaseLoss, CompetentLoss

CONFIG = BackboneConfig(dim=32, heads=2, mlp_ratio=2.0, depth=3, joint_depth=2, target_length=32, image_size=32)
CLASSES, SIZE = 5, 3
BUILD = {
    "prompt": lambda net, k: DualPrompts(CONFIG, PromptSize(SIZE, k)),
    "lora": lambda net, k: LoRA(net, SIZE, depth=k),
    "adapter": lambda net, k: Adapter(net, SIZE, depth=k),
}


def batch(cached: bool, n: int = 2) -> AVBatch:
    shapes = [(n, 16, 32), (n, 4, 32)] if cached else [(n, 32, 128), (n, 3, 32, 32)]
    audio, visual = (torch.randn(shape) for shape in shapes)
    present, label = torch.ones(n, 2, dtype=torch.bool), torch.zeros(n, dtype=torch.long)
    return AVBatch(audio, visual, present, label, torch.arange(n))


def counted(objective: torch.nn.Module, data: AVBatch) -> float:
    """FLOPs per sample that torch counts while it trains a step."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        objective.train()(data).loss.backward()
    return counter.get_total_flops() / len(data)


@pytest.mark.unit
def test_a_block_counted_by_hand():
    # 10 tokens of width 4: qkv 2*10*4*12, projection 2*10*4*4, MLP 2 * 2*10*4*8; attention 2 * 2*10*10*4
    found = flops.block(BackboneConfig(dim=4, heads=1, mlp_ratio=2.0), 10)
    assert (found.linear, found.attention) == (960 + 320 + 1280, 1600)


@pytest.mark.unit
def test_the_forward_of_base_is_what_is_published_for_its_size():
    # 708 tokens through 12 blocks of 7.08 M weights, plus attention and fusion
    assert flops.forward(BACKBONES["base"], 527) / 1e9 == pytest.approx(137, abs=3)


@pytest.mark.unit
def test_finetuning_is_counted_as_torch_counts_it():
    assert counted(CompetentLoss(CAVMAE(CONFIG, CLASSES), 1.0), batch(False)) == flops.step("finetune", CONFIG, CLASSES)


@pytest.mark.unit
@pytest.mark.parametrize("depth", range(CONFIG.depth))
@pytest.mark.parametrize("method", BUILD)
def test_case_methods_are_counted_as_torch_counts_them(method, depth):
    net = CAVMAE(CONFIG, CLASSES)
    objective = CaseLoss(Tuned(net, BUILD[method](net, depth)), depth)
    assert counted(objective, batch(True)) == flops.step(method, CONFIG, CLASSES, depth, SIZE)


@pytest.mark.unit
def test_options_default_to_what_fits_preset_and_device():
    args = cost.parse(["--preset", "base"])
    assert (args.clips, args.batch_size, args.depths, args.isolate) == (8, 2, list(range(11)), True)
    quick = cost.parse(["--preset", "base", "--quick", "--device", "cuda"])
    assert (quick.depths, quick.epochs, quick.repeats, quick.isolate) == ([0, 10], 1, 1, False)
    assert extraction.parse([]).depths == [0, 2]
    assert loading.parse(["--preset", "base"]).clips == 64
    assert loop.parse([]).batch_size == 32
    assert avqa_loading.parse([]).clips == 24


@pytest.mark.unit
@pytest.mark.parametrize(
    "wrong",
    [
        ["--depths", "3"],
        ["--clips", "8", "--batch-size", "8"],
        ["--methods", "prompts"],
        ["--repeats", "0"],
    ],
)
def test_options_that_can_not_be_are_refused(wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        cost.parse(wrong)
    assert wrong[0] in capsys.readouterr().err


@pytest.mark.unit
def test_ratios_are_taken_pair_by_pair():
    found = report.ratios([1.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)
    assert found.text() == "2 (1-3)"


@pytest.mark.unit
def test_ways_take_turns_after_one_unmeasured_round():
    calls: list[str] = []
    ways = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
    assert report.alternate(ways, 2) == {"a": [3, 5], "b": [4, 6]}
    assert calls == list("ababab")


def written(out, name: str) -> dict:
    assert all((out / f"{name}.{kind}").stat().st_size for kind in ("md", "png"))
    return json.loads((out / f"{name}.json").read_text())


@pytest.mark.slow
def test_cost_end_to_end(tmp_path):
    options = ["--clips", "8", "--batch-size", "4", "--depths", "2", "--epochs", "1", "--repeats", "1"]
    assert cost.main([*options, "--warmup", "0", "--threads", "1", "--out", str(tmp_path)]) == 0
    rows = {row["method"]: row for row in written(tmp_path, "cost-tiny-cpu")["summary"]}
    assert list(rows) == ["finetune", "prompt", "lora", "adapter"]
    for row in rows.values():
        parts = row["memory"]
        assert row["epoch_seconds"]["low"] > 0
        assert row["peak"]["low"] > parts["activations"]
    assert rows["prompt"]["memory"]["activations"] < rows["finetune"]["memory"]["activations"]
    assert rows["prompt"]["trained"] < 0.01 * rows["finetune"]["trained"]


@pytest.mark.unit
def test_capacity_follows_from_the_rates():
    rates = {"ingest": {"median": 2.0}, "approximate": {"median": 8.0}}
    decoded = {
        "settings": {"seconds": 10},
        "machine": {"processor": "a processor", "cores": 2},
        "rows": [{"height": height, "rate": rates} for height in (720, 360)],
    }
    rate = {"median": 1000.0, "low": 1000.0, "high": 1000.0}
    read = {"rows": [{"samples": "1.9 MB", "way": "our reader", "bytes": 1e6, "rate": rate}]}
    some = capacity.Corpus("some", 7200, 20, 360)  # twice as long as what was measured
    found = capacity.needs(some, decoded, read)
    assert (found["shards"], found["exact"], found["approximate"]) == (113, 2.0, 0.5)
    assert found["bytes"] == 7200 * capacity.clip_bytes(20, IngestConfig())
    assert found["epoch_hours"] == pytest.approx(found["bytes"] / 1e9 / 3600)
    assert capacity.changes(found) == "one machine, default settings"
    grown = [
        {"step": step, "rows": rows, "held_mb": each * rows / 2**20, "own_mb": 30.0}
        for step, each in (("training process", 20 * scale.TRAINED), ("loader process", 2), ("nothing to do", 0))
        for rows in (10**6, 10**7)
    ]
    text = capacity.page(decoded, read, {"rows": grown}, 0.04, 0.02)
    assert all(own.name in text for own in capacity.CORPORA)
    assert "holds 20 bytes of its own a sample (2.0 GB)" in text


@pytest.mark.unit
def test_a_clips_bytes_are_those_of_the_writer(tmp_path):
    info = corpus.write_media(tmp_path, "base", 4)
    config = IngestConfig(frames=corpus.FRAMES)
    assert 4 * capacity.clip_bytes(10.24, config) == pytest.approx(info.splits["train"].shards[0].bytes, rel=0.01)


@pytest.mark.slow
def test_decode_reading_and_capacity_end_to_end(tmp_path):
    short = ["--repeats", "1", "--out", str(tmp_path)]
    assert decode.main(["--clips", "2", "--seconds", "2", *short]) == 0
    assert reading.main(["--samples", "50", "--large", "3", "--clips", "2", *short]) == 0
    assert [row["height"] for row in written(tmp_path / "decode", "decode")["rows"]] == [720, 360]
    assert len(written(tmp_path / "reading", "reading")["rows"]) == 10
    assert scale.main(["--rows", "2000", "4000", "--large", "3000", "--failing", "300", "--out", str(tmp_path)]) == 0
    assert {row["rows"] for row in written(tmp_path / "scale", "scale")["rows"]} == {2000, 3000, 4000, 300}
    assert capacity.main(["--results", str(tmp_path), "--out", str(tmp_path / "capacity.md")]) == 0
    assert "AudioSet 2M" in (tmp_path / "capacity.md").read_text()
    assert len(written(tmp_path / "capacity", "capacity")["corpora"]) == 5
    for name in ("decode", "reading", "capacity"):
        assert (tmp_path / name / "line.md").read_text().startswith(f"| `{name}` | ")
        assert len((tmp_path / name / f"{name}.csv").read_text().splitlines()) > 2


@pytest.mark.slow
def test_streaming_end_to_end(tmp_path):
    few = ["--samples", "200", "--large", "4", "--far", "240", "--repeats", "1", "--epochs", "1"]
    assert streaming.main([*few, "--out", str(tmp_path)]) == 0
    record = written(tmp_path / "streaming", "streaming")
    assert [row["way"] for row in record["local"]] == ["read through", "by position", "webdataset"] * 2
    assert [(row["latency_ms"], bool(row["ahead"])) for row in record["far"]] == [
        (ms, ahead) for ms in (0, 20, 100) for ahead in (True, False)
    ]
    assert all(0 <= row["waiting"]["low"] <= row["loading"]["high"] < 1 for row in record["far"])
    assert (tmp_path / "streaming" / "line.md").read_text().startswith("| `streaming` | ")


@pytest.mark.unit
def test_a_benchmark_that_is_stopped_says_how_to_go_on(capsys):
    import os
    import signal

    from benchmarks.processes import stoppable

    def work() -> None:
        with stoppable("give --work"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        work()
    assert capsys.readouterr().err == "stopped; give --work\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_extraction_loading_and_loop_end_to_end(tmp_path):
    shared = ["--repeats", "1", "--out", str(tmp_path)]
    assert extraction.main(["--clips", "4", *shared]) == 0
    assert loading.main(["--clips", "4", "--batch-size", "2", "--threads", "1", *shared]) == 0
    assert loop.main(["--clips", "8", "--batch-size", "4", "--threads", "1", *shared]) == 0
    assert [row["depth"] for row in written(tmp_path, "extraction-tiny-cpu")["rows"]] == [0, 2]
    assert len(written(tmp_path, "loading-tiny")["rows"]) == 8
    assert len(written(tmp_path, "loop-tiny-cpu")["rows"]) == 3


@pytest.mark.slow
def test_avqa_loading_end_to_end(tmp_path):
    options = ["--clips", "2", "--questions", "4", "--released-questions", "1", "--repeats", "1"]
    assert avqa_loading.main([*options, "--out", str(tmp_path), "--folder", str(tmp_path)]) == 0
    rows = written(tmp_path, "avqa-loading")["rows"]
    assert [row["files"] for row in rows] == ["page cache"] * 4 + ["disk"] * 2
    assert rows[3]["bytes"] > 60 * rows[0]["bytes"]
    assert not list(tmp_path.glob("avqa-loading-*"))


@pytest.mark.slow
def test_features_import_end_to_end(tmp_path):
    options = ["--videos", "20", "--timed", "4", "--repeats", "1", "--epochs", "1"]
    assert features_import.main([*options, "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]) == 0
    record = json.loads((tmp_path / "out" / "features-import.json").read_text())
    assert len(record["rows"]) == 4
    assert 0.49 < record["bytes"]["shards"] / record["bytes"]["originals"] < 0.51  # float16 of float32
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.unit
def test_all_ways_of_loading_hold_the_same_features(tmp_path, monkeypatch):
    monkeypatch.setattr(avqa_loading, "SIDE", 2)
    avqa_loading.write(tmp_path, 3)
    ways = avqa_loading.loaders(tmp_path, 3, 3)
    theirs = next(ways[avqa_loading.RELEASED].epoch(3))
    rows = {name: next(ways[name].epoch(3)) for name in (avqa_loading.OURS, avqa_loading.RESIDENT)}
    for ours in rows.values():
        audio, visual = (x[ours.index] for x in theirs[:2])  # in the order of training
        torch.testing.assert_close(ours.audio.float(), audio, rtol=1e-3, atol=1e-3)
        places = visual.flatten(3).transpose(2, 3)
        torch.testing.assert_close(ours.visual.float(), places, rtol=1e-3, atol=1e-3)
        for own, frames in zip(ours.visual, ours.negative, strict=True):
            mine = {step.numpy().tobytes() for step in own}
            stored = {step.numpy().tobytes() for step in ours.visual.flatten(0, 1)}
            assert {frame.numpy().tobytes() for frame in frames} <= stored - mine
    whole = next(ways[avqa_loading.STANDARDISED].epoch(3))
    assert whole.visual.dtype == torch.float32
    assert float(whole.visual.mean()) == pytest.approx(0, abs=0.05)
