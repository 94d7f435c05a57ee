"""The notebook of docs/: it runs from the first cell to the last, and shows what it says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "predict.ipynb"


def outputs(notebook: nbformat.NotebookNode) -> str:
    """All text that its cells printed or showed."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.get("data", {}) for output in found]
    texts = [data.get("text/markdown", data.get("text/plain", "")) for data in shown]
    return "\n".join([*(str(output.get("text", "")) for output in found), *map(str, texts)])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("AVMEND_RUNS", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, 4)
    NotebookClient(notebook, timeout=1500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = outputs(notebook)
    assert "missing file" in text, "the clip that fails says why"
    assert re.search(r"accuracy +mean confidence", text)
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == 3
    if target := os.environ.get("AVMEND_NOTEBOOK"):  # write the outputs that are committed
        nbformat.write(notebook, target)


@pytest.mark.unit
def test_the_committed_notebook_has_its_outputs_and_no_place_of_a_machine():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    counted = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counted == list(range(1, len(counted) + 1)), "run all cells, in order, before it is committed"
    assert "Expected calibration error" in outputs(notebook)
    assert not re.search(r"/(home|root|tmp|work|Users)/", NOTEBOOK.read_text(encoding="utf-8"))
    assert not [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "error"]
