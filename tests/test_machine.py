"""What is the machine's fault ends the run with one clear error, and puts no clip into quarantine."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import shard_job
from pipelines.causes import MachineError, machine_at_fault
from pipelines.decode import Request
from pipelines.decoder_process import Decoder
from pipelines.ffmpeg import executable, run, source
from pipelines.ingest import ingest
from pipelines.settings import IngestConfig
from shards.errors import InputError
from tests.fixtures.media import make_clip
from tests.test_ingest import write_manifest

unit, integration = pytest.mark.unit, pytest.mark.integration
CONFIG = IngestConfig(frames=2, image_size=16, samples_per_shard=2, workers=0)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """A manifest of four sounds; its folder is the clips'."""
    folder = tmp_path_factory.mktemp("sounds")
    make_clip(folder / "a.wav", video=False, seconds=1.0)
    return write_manifest(folder, *(f"c{i},a.wav,x,train" for i in range(4)))


@unit
def test_a_disk_that_gets_full_is_one_error_and_the_run_goes_on(sounds, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # a shard of sounds takes 50 kB
    try:
        with pytest.raises(InputError, match="can't be written: File too large"):
            ingest(sounds, tmp_path / "out", CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out/quarantine.jsonl").exists()
    assert {path.name for path in (tmp_path / "out").rglob(".*")} <= {".ingestion.lock"}
    assert ingest(sounds, tmp_path / "out", CONFIG).splits["train"].samples == 4


@unit
def test_a_folder_that_refuses_is_one_error(sounds):
    with pytest.raises(InputError, match="can't be written"):
        ingest(sounds, "/proc/self/nowhere", CONFIG)


@unit
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EAGAIN])
def test_errors_of_the_machine_are_no_clips(sounds, tmp_path, monkeypatch, number):
    def broken(self, request):
        raise MachineError(number, os.strerror(number))

    monkeypatch.setattr(Decoder, "decode", broken)
    with pytest.raises(InputError, match="clips can't be decoded here"):
        ingest(sounds, tmp_path / "out", CONFIG)
    assert not list((tmp_path / "out").rglob("quarantine*"))
    assert machine_at_fault(OSError(number, "x"))
    assert not machine_at_fault(OSError(errno.EINVAL, "x"))


@unit
def test_the_child_tells_a_broken_machine_from_a_broken_clip(sounds):
    decoder = Decoder()
    try:
        decoder.decode(Request(path=str(sounds.with_name("a.wav"))))
        child = decoder._process.pid
        resource.prlimit(child, resource.RLIMIT_NOFILE, (3, 3))
        with pytest.raises(MachineError):
            decoder.decode(Request(path=str(sounds.with_name("a.wav"))))
    finally:
        decoder.close()


@integration
def test_a_child_that_is_killed_leaves_no_trace_in_the_data(sounds, tmp_path):
    path = str(make_clip(tmp_path / "a.mp4", seconds=0.5, options=("-pix_fmt", "yuv420p10le")))
    decoder = Decoder()
    calm = decoder.decode(Request(path=path, size=32))
    os.kill(decoder._process.pid, signal.SIGKILL)
    again = decoder.decode(Request(path=path, size=32))
    other = decoder.decode(Request(path=path, size=32, in_process=False))
    decoder.close()
    assert (calm.frames == again.frames).all()
    assert (calm.frames == other.frames).all(), "by the program, which takes over, too"


@unit
def test_an_ffmpeg_that_is_killed_is_run_again(sounds, monkeypatch):
    real, calls = subprocess.Popen, []

    def killed_once(*arguments, **options):
        process = real(*arguments, **options)
        if not calls:
            process.kill()
        calls.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", killed_once)
    graph = source().output("pipe:", format="s16le", ac=1, ar=16000)
    out, _, status = run(graph, str(sounds.with_name("a.wav")), timeout=30.0)
    assert (len(out), status, len(calls)) == (32000, 0, 2)


@unit
def test_a_decoder_that_does_not_start_is_said(sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_job, "_decoders", {})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="no decoder starts"):
        ingest(sounds, tmp_path / "out", CONFIG)
    assert not (tmp_path / "out/quarantine.jsonl").exists()


@unit
def test_a_shard_that_fails_wholesale_does_not_wait_for_its_end(tmp_path, monkeypatch):
    seen: list[Request] = []
    real = Decoder.decode
    monkeypatch.setattr(Decoder, "decode", lambda self, r: seen.append(r) or real(self, r))
    manifest = write_manifest(tmp_path, *(f"c{i},none.mp4,x,train" for i in range(9)))
    config = CONFIG.model_copy(update={"samples_per_shard": 9, "max_failures": 2})
    with pytest.raises(InputError, match="3 clips failed, more than max_failures=2"):
        ingest(manifest, tmp_path / "out", config)
    assert len(seen) == 3


@unit
def test_ffmpeg_is_what_has_to_be_there():
    assert machine_at_fault(FileNotFoundError(errno.ENOENT, "x", executable()), executable())
    assert shard_job.Quarantined.model_fields["error"].annotation.__name__ == "Cause"
