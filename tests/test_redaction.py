"""What is written down of addresses and messages."""

from __future__ import annotations

import pickle

import pytest

from shards.errors import InputError
from shards.redaction import redacted

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ann:s3cret@host:5000/x", "http://ann:***@host:5000/x"),
        ("at postgresql+psycopg2://u:a/b@c@db/x, twice", "at postgresql+psycopg2://u:***@db/x, twice"),
        ("mysql://u:p%40ss@db:3306/x?charset=utf8", "mysql://u:***@db:3306/x?charset=utf8"),
        ("/srv/s3:/ann:key@bucket/x", "/srv/s3:/ann:***@bucket/x"),
        ("s3://:key@bucket/x", "s3://:***@bucket/x"),
        ("https://ghp_abcdef@host/x", "https://***@host/x"),
        ("https://h/x?X-Amz-Signature=abc&a=1&sig=z", "https://h/x?X-Amz-Signature=***&a=1&sig=***"),
        ("https://h/x?api_key=abc#top", "https://h/x?api_key=***#top"),
        ("http://127.0.0.1:5000/mail@x", "http://127.0.0.1:5000/mail@x"),
        ("sqlite:////runs/a:b@c/mlflow.db", "sqlite:////runs/a:b@c/mlflow.db"),
        ("runs/lr=0.1,key=3 at 12:30 by a@b", "runs/lr=0.1,key=3 at 12:30 by a@b"),
    ],
)
def test_passwords_go_and_the_rest_stays(text, shown):
    assert redacted(text) == shown
    assert redacted(shown) == shown


def test_values_that_the_environment_keeps_secret_go_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abcd/efgh+ijkl")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/ann/token-file")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql://u:p%40ssword@db/x")
    monkeypatch.setenv("PWD", "/home/ann/project")
    monkeypatch.setenv("OLDPWD", "/data/clips")
    text = "'hunter2hunter2' abcd/efgh+ijkl 0123456789abcdef /home/ann/token-file for p@ssword"
    folders = "/home/ann/project/runs and /data/clips/a.mp4"
    assert redacted(folders) == folders  # where a shell stands is no secret
    assert redacted(text) == "'***' *** *** /home/ann/token-file for ***"


def test_an_input_error_holds_no_password_even_after_a_way_between_processes():
    address = "http://ann:s3cret@host"
    error = InputError(f"refused: {address}", file=address, field="data", remedy=f"look at {address}")
    for found in (error, pickle.loads(pickle.dumps(error))):
        assert "s3cret" not in f"{found} {found.message} {found.file} {found.remedy} {found.args}"
        assert "http://ann:***@host: field 'data': refused: http://ann:***@host" in str(found)
