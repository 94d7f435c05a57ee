"""Ingestion into file systems that refuse to write: real ones, in a mount namespace of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.media import make_clip
from tests.test_ingest import write_manifest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [("ro", "can't be written: Read-only file system"), ("size=64k", "can't be written: No space left")],
    ids=["read-only", "full"],
)
def test_a_real_file_system_that_refuses_is_one_error(tmp_path_factory, tmp_path, options, says):
    folder = tmp_path_factory.mktemp("sounds")
    make_clip(folder / "a.wav", video=False, seconds=1.0)
    manifest = write_manifest(folder, *(f"c{i},a.wav,x,train" for i in range(4)))
    own = ["unshare", "--mount", "bash", "-c", f'mount -t tmpfs -o {options} none {tmp_path} && exec "$@"']
    if subprocess.run([*own, "bash", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces for this user")
    settings = ["frames=2", "image_size=16", "samples_per_shard=2", "workers=0"]
    command = [sys.executable, "-m", "pipelines.ingest", "--manifest", manifest, "--out", tmp_path / "out"]
    done = subprocess.run([*own, "bash", *command, *settings], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr
