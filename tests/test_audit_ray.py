"""The audit on several cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.audit.run import audit
from pipelines.audit.settings import AuditConfig
from pipelines.manifest import write_manifest
from tests.fixtures.media import run_ffmpeg

pytestmark = pytest.mark.ray


def test_on_ray_it_ends_in_the_same_bytes(ray_cluster, tmp_path: Path):
    rows = []
    for i in range(6):
        sound, picture = f"anoisesrc=d=1:seed={i % 4}:a=0.3,tremolo=f=4:d=0.9", f"testsrc2=s=64x64:r={5 + i % 4}:d=1"
        run_ffmpeg(
            "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-pix_fmt", "yuv420p", tmp_path / f"{i}.mp4"
        )
        rows.append({"id": str(i), "path": f"{i}.mp4", "label": "x", "split": "train" if i < 4 else "test"})
    write_manifest(tmp_path / "manifest.csv", rows)
    config = AuditConfig(frames=4, image_size=64, clips_per_part=2)
    outs = []
    for workers in (0, 2):
        out = tmp_path / f"out-{workers}"
        summary = audit(tmp_path / "manifest.csv", out, config.model_copy(update={"workers": workers}))
        assert summary.matched[1] >= 2  # clips 4 and 5 sound like 0 and 1
        outs.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()})
    assert outs[0] == outs[1]
