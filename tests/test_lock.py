from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shards.errors import InputError
from shards.lock import FOREVER, folder_lock

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parent.parent
HOLDER = """
import sys, time
from pathlib import Path
from shards.lock import folder_lock

with folder_lock(Path(sys.argv[1]), "work"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_until_the_first_one_dies(tmp_path):
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "new")]
    holder = subprocess.Popen(arguments, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=r"another work is at work here\n  remedy: wait"):
        folder_lock(tmp_path / "new", "work").__enter__()
    with folder_lock(tmp_path / "new", "other work"):
        pass
    holder.kill()
    holder.wait()
    with folder_lock(tmp_path / "new", "work"):
        pass


def test_threads_of_one_process_wait_for_each_other(tmp_path):
    inside = []

    def work() -> None:
        with folder_lock(tmp_path, "work", wait=FOREVER):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.02)
            inside.pop()

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(work) for _ in range(4)]:
            done.result()
    assert inside == []


def test_it_ends_with_the_block_however_that_ends(tmp_path):
    with pytest.raises(KeyError), folder_lock(tmp_path, "work"):
        raise KeyError
    with folder_lock(tmp_path, "work"), pytest.raises(InputError, match="remedy: go away"):
        folder_lock(tmp_path, "work", wait=0.05, remedy="go away").__enter__()
