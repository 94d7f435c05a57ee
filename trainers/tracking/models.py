"""A finished run as a model in MLflow, which ``mlflow.pyfunc`` loads and asks.

The model names its run and copies none of it: a backbone has hundreds of MB, and studies train dozens of runs on one.
It is loaded where the run is: beside the store, or in the folder that AVMEND_RUNS names. Nothing is pickled: MLflow
calls the module `LOADER`, which is named here and not imported (serving stands above trainers).
"""

from __future__ import annotations

import json
import tempfile
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from shards.errors import InputError
from trainers.tracking import record
from trainers.tracking.address import connect, store_errors
from trainers.tracking.schema import known_store

LOADER = "serving.mlflow_model"  # its `_load_pyfunc` loads the model
RUN_FILE = "run.json"
MODEL = "avmend.model"  # tag of a run: the address of its model
SETTINGS = ("runs", "device", "data", "backbone", "weights")  # of loading it, see `serving.mlflow_model`
COLUMNS = ("clip", "audio", "image", "question")  # of the input, all optional
PACKAGES = (  # that a run is asked with
    *("torch", "torchaudio", "torchvision", "av", "numpy", "scipy", "pandas", "pydantic", "safetensors", "pyyaml"),
    *("pillow", "filelock", "fsspec", "jinja2", "packaging", "imageio-ffmpeg", "ffmpeg-python", "mlflow"),
)


@dataclass(frozen=True)
class RunModel:
    """What a model says of its run.

    Attributes:
        run: its folder's name.
        recipe, task: their names.
        asks: every clip comes with a question.
    """

    run: str
    recipe: str
    task: str
    asks: bool


def log_model(client: MlflowClient, run_id: str, found: RunModel) -> str:
    """The address of a run's model, which is logged unless it was."""
    run = client.get_run(run_id)
    if MODEL in run.data.tags:
        return str(run.data.tags[MODEL])
    kind, params = "avmend", {"recipe": found.recipe, "task": found.task}
    made = client.create_logged_model(run.info.experiment_id, found.run, run_id, params=params, model_type=kind)
    uri = f"models:/{made.model_id}"
    try:
        with tempfile.TemporaryDirectory() as place:
            save_model(Path(place) / "model", found, made.model_id, run_id)
            client.log_model_artifacts(made.model_id, f"{place}/model")
        client.finalize_logged_model(made.model_id, "READY")
    except BaseException:
        with suppress(MlflowException, OSError):
            client.finalize_logged_model(made.model_id, "FAILED")
        raise
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    client.set_tag(run_id, MODEL, uri)
    return uri


def save_model(path: Path, found: RunModel, model_id: str | None = None, run_id: str | None = None) -> None:
    """Write the folder of a model: signature, input example, environment, and the run's name."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model

    example = {"clip": ["clip.mp4"], **({"question": ["How many instruments are sounding?"]} if found.asks else {})}
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="mlflow")  # of what MLflow does with pandas
        data = Path(place) / "run"
        data.mkdir()
        (data / RUN_FILE).write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
        mlflow.pyfunc.save_model(
            path,
            loader_module=LOADER,
            data_path=str(data),
            mlflow_model=Model(model_id=model_id, run_id=run_id),
            signature=signature(),
            input_example=pd.DataFrame(example),
            pip_requirements=requirements(),
            model_config=dict.fromkeys(SETTINGS),  # those that can be given when it is loaded
        )


def signature() -> Any:
    """Columns of paths and a question in, a row per clip out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, DataType

    text, names = DataType.string, Array(DataType.string)
    columns: dict[str, Any] = {"clip": text, "question": text, "answer": text, "probability": DataType.double}
    columns |= {"abstains": DataType.boolean, "calibrated": text, "present": names, "ruined": names, "case": text}
    columns |= {"probabilities": text, "notes": names, "failure": text, "remedy": text}
    inputs = Schema([ColSpec(text, name, required=False) for name in COLUMNS])
    outputs = Schema([ColSpec(kind, name, required=False) for name, kind in columns.items()])
    return ModelSignature(inputs, outputs, ParamSchema([ParamSpec("abstain_below", DataType.double, 0.0)]))


def requirements() -> list[str]:
    """The packages that a run is asked with, as they are installed here."""
    out = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            out.append(f"{name}=={version(name).partition('+')[0]}")
    return out


def register(root: Path, folder: Path, found: RunModel, name: str) -> ModelVersion:
    """Register a run's model, logging it first where it was not; a version of the same model is kept.

    Args:
        root: folder of the store.
        folder: that has the run's mlflow.json.
        name: NAME, or NAME@ALIAS.

    Raises:
        InputError: no store, no such run in it, or a name that MLflow refuses.
    """
    title, _, alias = name.partition("@")
    uri = known_store(root)
    run_id = record.run_of(folder)
    if run_id is None:
        remedy = "train it with this folder of runs, or name the folder of its store with --runs"
        raise InputError("has no run in MLflow", file=folder, field="runs", remedy=remedy)
    with store_errors(uri, "does not register it"):
        client = connect(uri)
        model = client.get_logged_model(log_model(client, run_id, found).rpartition("/")[2])
        if not client.search_registered_models(f"name='{title}'"):
            client.create_registered_model(title)
        known = [v for v in client.search_model_versions(f"name='{title}'") if v.source == model.artifact_location]
        made = known[0] if known else _version(client, title, model, run_id)
        if alias:
            client.set_registered_model_alias(title, alias, made.version)
        return made


def _version(client: MlflowClient, title: str, model: LoggedModel, run_id: str) -> ModelVersion:
    """A new one; its source is a place, since MLflow looks an address up in the store of the process."""
    return client.create_model_version(title, model.artifact_location, run_id, model_id=model.model_id)
