"""What `ray job submit --working-dir .` sends, asked of Ray's own packaging."""

from __future__ import annotations

import logging
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trainers.identity import ROOMS

pytestmark = pytest.mark.unit
SECRETS = (
    ".env",
    ".env.local",
    "prod.env/.env",
    "id_rsa",
    "id_ed25519.pub",
    ".ssh/id_rsa",
    ".aws/credentials",
    ".git/config",
    ".netrc",
    ".ray/auth_token",
    "auth_token",
    "configs/auth_token",
    "configs/.env",
    "trainers/id_rsa",
    "tuning/server.pem",
    "models/client.key",
    "pipelines/credentials.json",
    "kubeconfig",
    "mlflow.db",
    "runs/mlflow.db",
    "data/clip.mp4",
    "notes/password.txt",
    "service-account-1.json",
    "passwords.csv",
    "my_secrets.yaml",
)


@pytest.fixture(scope="module")
def sent(tmp_path_factory) -> set[str]:
    """Names in the package of a checkout in which secrets lie about."""
    from ray._private.runtime_env.packaging import create_package

    folder = tmp_path_factory.mktemp("sent")
    ignore = shutil.ignore_patterns(".venv", ".git", "runs", "data", "build", "*.egg-info", "__pycache__", ".*_cache")
    checkout = shutil.copytree(ROOT, folder / "checkout", ignore=ignore, symlinks=True)
    for name in SECRETS:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("planted")
    (checkout / "my_sweep.yaml").write_text("recipe: prompt\n")
    logger = logging.getLogger("quiet")
    create_package(str(checkout), folder / "package.zip", include_gitignore=True, excludes=[], logger=logger)
    with zipfile.ZipFile(folder / "package.zip") as package:
        assert not [name for name in package.namelist() if package.read(name) == b"planted"]
        return {name for name in package.namelist() if not name.endswith("/")}


def test_no_secret_is_sent(sent):
    assert not sent.intersection(SECRETS)
    assert not [name for name in sent if name.startswith(".") or "/." in name]


def test_all_code_is_sent_and_with_it_what_a_user_puts_beside_it(sent):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    code = {name for name in tracked if name.partition("/")[0] in ROOMS or name in ("avmend.py", "constraints.txt")}
    if not code:
        pytest.skip("no git checkout")
    assert {name for name in code if (ROOT / name).exists()} <= sent
    assert "my_sweep.yaml" in sent
    assert Path("tuning/report/page.html").as_posix() in sent
