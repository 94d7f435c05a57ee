from __future__ import annotations

import subprocess

import pytest

from configs import Config
from trainers.identity import git_commit, run_identity

pytestmark = pytest.mark.unit


class Recipe(Config):
    epochs: int = 1


class OtherRecipe(Config):
    epochs: int = 1


def test_identity_changes_with_each_part_and_with_nothing_else():
    parts = (Recipe(), 1, "data", "start")
    base = run_identity(*parts)
    assert base == run_identity(Recipe(epochs=1), 1, "data", "start")
    assert len(base) == 12
    others = [
        run_identity(Recipe(epochs=2), *parts[1:]),
        run_identity(OtherRecipe(), *parts[1:]),
        run_identity(parts[0], 2, *parts[2:]),
        run_identity(*parts[:2], "other", parts[3]),
        run_identity(*parts[:3], None),
    ]
    assert len({base, *others}) == 6


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.delenv("AVMEND_COMMIT", raising=False)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "a.py").write_text("1\n")
    (tmp_path / ".gitignore").write_text("runs/\n")
    git("add", ".")
    git("commit", "-qm", "first")
    return tmp_path, git


def test_clean_checkout_is_its_commit_and_results_do_not_make_it_dirty(checkout):
    root, git = checkout
    (root / "runs").mkdir()
    (root / "runs" / "x.py").write_text("x")
    (root / "notes.txt").write_text("untracked, but no code")
    assert git_commit(root) == git("rev-parse", "HEAD")[:12]


def test_dirty_checkouts_differ_by_what_was_changed(checkout):
    root, git = checkout
    clean = git("rev-parse", "HEAD")[:12]
    seen = set()
    for name, text in (("a.py", "2\n"), ("a.py", "3\n"), ("new.py", "x"), ("new.py", "y")):
        (root / name).write_text(text)
        assert git_commit(root).startswith(f"{clean}-dirty-")
        assert git_commit(root) == git_commit(root)
        seen.add(git_commit(root))
    assert len(seen) == 4


def test_outside_a_checkout_the_environment_speaks(checkout, monkeypatch):
    root, _ = checkout
    inner = root / "inner"  # inside someone's checkout, but not its top
    inner.mkdir()
    assert git_commit(inner) == "unknown"
    monkeypatch.setenv("AVMEND_COMMIT", "abc-dirty-12")
    assert git_commit(inner) == "abc-dirty-12"
    assert git_commit(root) != "abc-dirty-12"


def test_code_without_a_checkout_is_named_by_its_content(tmp_path, monkeypatch):
    monkeypatch.delenv("AVMEND_COMMIT", raising=False)
    for folder in ("here", "there"):
        for name in ("models/net.py", "configs/demo.yaml", "runs/x.py", "README.md"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text(name)
    here, there = tmp_path / "here", tmp_path / "there"
    named = git_commit(here)
    assert named.startswith("code-")
    assert git_commit(there) == named, "wherever it was copied to"
    (there / "README.md").write_text("new")
    (there / "runs" / "x.py").write_text("new")
    assert git_commit(there) == named, "nothing that computes"
    for name in ("models/net.py", "configs/demo.yaml"):
        (there / name).write_text("new")
        assert git_commit(there) not in (named, git_commit(here))
        (there / name).write_text(name)
