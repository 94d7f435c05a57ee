from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shards.atomic import remove_leftovers, replacing, write_text

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parent.parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_in_a_folder_that_is_made(tmp_path):
    write_text(tmp_path / "new/a.txt", "ä\n")
    assert (tmp_path / "new/a.txt").read_bytes() == b"\xc3\xa4\n"
    assert names(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize("sync", [True, False])
def test_the_old_file_stays_until_the_block_has_ended_and_where_it_raises(tmp_path, sync):
    path = tmp_path / "a.json"
    path.write_text("old")

    def half() -> None:
        with replacing(path, sync=sync) as temporary:
            temporary.write_text("half")
            assert (temporary.suffix, temporary.parent) == (".json", tmp_path)
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert (path.read_text(), names(tmp_path)) == ("old", ["a.json"])
    with replacing(path, sync=sync) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert (path.read_text(), names(tmp_path)) == ("new", ["a.json"])


def test_a_block_that_removes_its_file_changes_nothing(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("no")
        temporary.unlink()
    assert (path.read_text(), names(tmp_path)) == ("old", ["a"])


def test_a_link_can_be_put_in_a_files_place(tmp_path):
    with replacing(tmp_path / "link", sync=False) as temporary:
        temporary.symlink_to("nowhere")
    assert os.readlink(tmp_path / "link") == "nowhere"


def test_a_killed_writer_leaves_the_old_file_and_a_name_that_is_cleared(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = f"""
import os
from shards.atomic import replacing
with replacing({str(path)!r}) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == -9
    assert path.read_text() == "old"
    assert len(list(tmp_path.glob(".*.tmp*"))) == 1  # what `pipelines.resume.remove_partial_files` removes


WRITER = """
import os, sys
from shards.atomic import replacing
os.getpid = lambda: int(sys.argv[2])  # as another container, or another machine, counts
with replacing(sys.argv[1], held=True) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    input()
    temporary.write_text("whole")
"""


def writer(path: Path, pid: int) -> tuple[subprocess.Popen, Path]:
    """A process in the middle of writing a file, and the temporary one."""
    command, environment = [sys.executable, "-c", WRITER, str(path), str(pid)], os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


@pytest.mark.parametrize("pid", [1, os.getpid(), 1 << 30], ids=["one that lives", "ours", "one that is none"])
def test_what_is_left_is_told_from_what_is_written_by_no_number_of_a_process(tmp_path, pid):
    path = tmp_path / "a.txt"
    path.write_text("old")
    child, temporary = writer(path, pid)
    with child:
        remove_leftovers(path)
        assert temporary.read_text() == "half"
        child.communicate("\n")
    assert (path.read_text(), names(tmp_path)) == ("whole", ["a.txt"])
    child, temporary = writer(path, pid)
    with child:
        child.kill()
    assert temporary.exists()
    remove_leftovers(tmp_path / "b.txt")
    assert temporary.exists()
    remove_leftovers(path)
    assert (path.read_text(), names(tmp_path)) == ("whole", ["a.txt"])


def test_a_held_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "new", held=True)
    assert (path.read_text(), names(tmp_path)) == ("new", ["a.txt"])
    with replacing(path, held=True) as temporary:
        temporary.unlink()
    assert (path.read_text(), names(tmp_path)) == ("new", ["a.txt"])
