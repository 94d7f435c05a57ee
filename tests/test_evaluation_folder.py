"""The folder of an evaluation: nothing of an earlier one stays, and what is the user's does."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import InputError
from tests.fixtures.evaluating import untrained_evaluation
from trainers.evaluation_cache import RECORD, clear, save_rows, written_files

pytestmark = pytest.mark.unit


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_an_evaluation_wrote_goes_before_the_next_writes_less(tmp_path):
    evaluation = untrained_evaluation(tmp_path, 6, conditions=("complete", "read-picture-pixelate"), severities=(5,))
    rows, out = evaluation.rows(lambda *_, **__: None), tmp_path / "results"
    out.mkdir()
    evaluation.write(out, rows)
    save_rows(out, {}, {}, rows)
    assert {"corruptions.csv", "read.png", "answers.parquet", "confidence.csv", "risk_coverage.csv"} <= names(out)
    assert names(out) <= {*written_files(), RECORD}
    for name in ("notes.md", "figure.png", "mine.csv"):
        (out / name).write_text("mine")
    with pytest.raises(InputError, match="holds a larger table"):
        clear(out, 1, overwrite=False)
    assert RECORD in names(out)
    clear(out, 1, overwrite=True)
    assert names(out) == {"notes.md", "figure.png", "mine.csv"}
