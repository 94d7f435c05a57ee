"""The MLflow flavour: a finished run as a ``mlflow.pyfunc`` model, a DataFrame of clips in, one of answers out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from configs.cluster import runs_folder
from pipelines.manifest import Clip
from serving.model import BATCH, Model, load, read_clip
from serving.prediction import Prediction
from serving.sources import clip_of, pair_of
from shards.errors import InputError
from shards.store import Place, StorePath, place
from shards.stored_folder import place_of
from trainers.runs import is_run
from trainers.tracking.models import COLUMNS, RUN_FILE

LEFT_OUT = ("answer", "probability", "abstains", "calibrated", "ruined", "case", "probabilities")  # where a clip failed
ANSWERED = ("clip", "question", "notes", "present", *LEFT_OUT, "failure", "remedy")  # columns of the output


class AnswerModel:
    """What ``mlflow.pyfunc.load_model`` wraps."""

    def __init__(self, model: Model):
        self.model = model

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """A row per row of the input, in its order; a clip that fails has a `failure` and no answer.

        Args:
            model_input: columns `clip` (a path), or `audio` and `image` (paths, either may be left out), and, of a
                question-answering run, `question`.
            params: ``abstain_below``: probability below which a row abstains.

        Raises:
            InputError: a column that there is not, a row without a clip, a question too many or too few.
        """
        if unknown := [name for name in model_input.columns if name not in COLUMNS]:
            raise InputError(f"no column '{unknown[0]}'", field="columns", remedy=f"columns: {', '.join(COLUMNS)}")
        given = [_texts(row) for row in model_input.to_dict("records")]
        clips = [_clip(row, number) for number, row in enumerate(given)]
        questions = self._questions(given)
        below = (params or {}).get("abstain_below") or None
        found: list[Prediction] = []
        for at in range(0, len(given), BATCH):
            part = slice(at, at + BATCH)
            media = [read_clip(clip, self.model.ingestion) for clip in clips[part]]
            found += self.model.answer([clip.id for clip in clips[part]], media, questions[part])
        rows = [_row(replace(p, abstain_below=below)) for p in found]
        table = pd.DataFrame(rows, index=model_input.index, columns=list(ANSWERED), dtype=object)
        return table.astype({"probability": float})

    def _questions(self, rows: Sequence[Mapping[str, str]]) -> list[str]:
        asked = [row["question"] for row in rows if "question" in row]
        if len(asked) != (len(rows) if self.model.asks else 0):
            remedy = "give each row a question" if self.model.asks else "leave the column out: this run takes none"
            raise InputError(f"{len(asked)} questions in {len(rows)} rows", field="question", remedy=remedy)
        return asked


def _texts(row: Mapping[Any, Any]) -> dict[str, str]:
    """What there is in a row; None, NaN, `pandas.NA` and "" are nothing."""
    return {str(k): str(v) for k, v in row.items() if not (pd.api.types.is_scalar(v) and pd.isna(v)) and v != ""}


def _clip(row: Mapping[str, str], number: int) -> Clip:
    pair = {name: row.get(name) for name in ("audio", "image")}
    if "clip" in row and not any(pair.values()):
        return clip_of(row["clip"])
    if "clip" not in row and any(pair.values()):
        return pair_of(**pair)
    raise InputError(f"row {number} has no clip, or two", field="clip", remedy="give clip, or audio and image")


def _row(p: Prediction) -> dict[str, Any]:
    """A prediction as the output's columns have it."""
    row: dict[str, Any] = {"clip": p.clip, "question": p.question, "notes": list(p.notes)}
    row["present"] = [m for m, there in p.present.items() if there]
    if p.failure is not None:
        return {**row, **dict.fromkeys(LEFT_OUT), "failure": str(p.failure), "remedy": p.failure.remedy}
    ruined = None if p.ruined is None else list(p.ruined)
    answered = {"answer": p.answer, "probability": p.probability, "abstains": p.abstains, "calibrated": p.calibrated}
    answered |= {"ruined": ruined, "case": p.case, "probabilities": json.dumps(dict(p.ranked()))}
    return {**row, **answered, "failure": None, "remedy": None}


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> AnswerModel:
    """What MLflow calls to load a model.

    Args:
        path: of the model's data, which name the run.
        model_config: ``runs``, the folder of the run where it is not beside the store and AVMEND_RUNS does not name it;
            ``device``, ``data``, ``backbone``, ``weights`` as `serving.model.load` takes them.

    Raises:
        InputError: the run is not here, or what it depends on.
    """
    given = {name: value for name, value in (model_config or {}).items() if value is not None}
    name = json.loads((Path(path) / RUN_FILE).read_text(encoding="utf-8"))["run"]
    return AnswerModel(load(run_folder(name, Path(path), given.pop("runs", None)), **given))


def run_folder(name: str, model: Path, runs: str | None) -> Place:
    """Where a model's run is.

    Raises:
        InputError: in none of the places.
    """
    for folder in _places(model, runs):
        if is_run(folder / name):
            return folder / name
    remedy = "set AVMEND_RUNS to the folder of the runs, or give model_config={'runs': FOLDER}"
    raise InputError(
        f"the run {name} is not here; the model names it and holds no weights", field="runs", remedy=remedy
    )


def _places(model: Path, runs: str | None) -> Iterator[Place]:
    """The folder or address that was given, that of the store which the model is in, and that of this process's
    runs."""
    if runs is not None:
        yield place(runs)
    else:
        for folder in model.absolute().parents:
            yield address if isinstance(address := place_of(folder / "run").parent, StorePath) else folder
        yield runs_folder()
