"""A small slice of ``benchmarks.hostile``, and the mutations it makes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import hostile
from benchmarks.mutations import MUTATIONS, boxes, png_bomb
from pipelines.causes import TOO_LARGE, DecodeError
from pipelines.decode import Request, decode
from tests.fixtures.media import make_clip


@pytest.mark.unit
def test_mutations_repeat_and_change_the_file(tmp_path):
    data = make_clip(tmp_path / "a.mp4", seconds=0.3).read_bytes()
    assert [data[a + 4 : a + 8] for a, _ in boxes(data)[0]] == [b"ftyp", b"free", b"mdat", b"moov"]
    for mutate in MUTATIONS.values():
        first, second = ([mutate(data, np.random.default_rng([s, i])) for i in range(8)] for s in (0, 0))
        assert first == second
        assert sum(found != data for found in first) >= 6


@pytest.mark.unit
@pytest.mark.parametrize("side", [7000, 20_000, 100_000])
def test_pixel_bombs_are_too_large(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png_bomb(side, 1))
    with pytest.raises(DecodeError) as caught:
        decode(Request(image_path=str(tmp_path / "a.png")))
    assert caught.value.cause == TOO_LARGE


@pytest.mark.slow
def test_a_slice_of_the_measurement(tmp_path):
    options = [
        "--files",
        "40",
        "--batch",
        "20",
        "--ray-every",
        "2",
        "--work",
        str(tmp_path / "work"),
        "--out",
        str(tmp_path),
    ]
    assert hostile.main(options) == 0
    assert (tmp_path / "hostile" / "line.md").read_text().startswith("| `hostile` | 40 ruined files |")
    batches = json.loads((tmp_path / "hostile" / "hostile.json").read_text())["batches"]
    assert sum(n for b in batches for counts in b["outcomes"].values() for n in counts.values()) == 40
