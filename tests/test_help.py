"""Help texts: every field of a config with type, default, range and meaning, from the config's own docstrings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest

from configs import Config, load_config
from configs.backbone import STAGES
from configs.fields import Field, attributes, fields
from configs.help import config_help
from configs.names import Registered
from models.registry import imported
from pipelines.audit.settings import AuditConfig
from pipelines.settings import FeatureConfig, IngestConfig
from serving.command_line import predict_parser
from serving.settings import ServeConfig
from shards.errors import InputError
from trainers.recipes import RECIPES, TASKS
from tuning.studies import STUDIES

pytestmark = pytest.mark.unit
COLOURS = {"red": 1, "blue": 2}


class Inner(Config):
    """How it is optimised.

    Attributes:
        lr, decay: step sizes, per
            step.
        name: of the
            optimiser: see there.
    """

    lr: float = pydantic.Field(default=1e-3, gt=0)
    decay: float = pydantic.Field(default=0.0, ge=0, lt=1)
    name: Literal["adamw", "sgd"] = "adamw"


class Below(Config):
    """A base.

    Attributes:
        length: of a clip, in seconds.
    """

    length: float = pydantic.Field(2.0, ge=1, le=10)


class Outer(Below):
    """Everything: at once."""

    data: Path
    """Folder of the shards,
    with a `dataset.json`."""
    length: float = pydantic.Field(default=3.0, gt=0)
    inner: Inner = Inner()
    others: dict[str, Inner] = pydantic.Field(default_factory=dict)
    maybe: Inner | None = None
    slow: Inner = Inner(lr=1e-5)
    sizes: tuple[int, ...] = pydantic.Field((1, 2), min_length=1)
    """Sizes; None: all."""
    colour: Annotated[str, Registered(COLOURS)] = "red"
    anything: dict[str, Any] = pydantic.Field(default_factory=lambda: {"a": 1})


def test_every_field_is_described():
    found = {field.name: field for field in fields(Outer)}
    assert found["data"] == Field("data", "path", None, "", "Folder of the shards, with a `dataset.json`.")
    assert found["length"] == Field("length", "number", "3", "above 0", "of a clip, in seconds.")
    assert found["inner"].nested
    assert found["inner"].meaning == "How it is optimised."
    assert found["inner.lr"] == Field("inner.lr", "number", "0.001", "above 0", "step sizes, per step.")
    assert found["inner.decay"].range == "0 or more, below 1"
    assert found["inner.name"] == Field("inner.name", "adamw | sgd", "adamw", "", "of the optimiser: see there.")
    assert found["others.NAME.lr"].meaning == "step sizes, per step."
    assert (found["maybe"].type, found["maybe"].default) == ("settings or null", "null")
    assert found["maybe.lr"].default == "0.001"
    assert (found["slow.lr"].default, found["slow.decay"].default) == ("1e-05", "0")
    assert (found["sizes"].type, found["sizes"].default, found["sizes"].range) == (
        "list of integer",
        "[1, 2]",
        "not empty",
    )
    assert (found["colour"].type, found["colour"].default) == ("red | blue", "red")
    assert (found["anything"].type, found["anything"].default) == ("mapping of text to any value", "{a: 1}")


def test_choice_is_checked_against_the_registry_as_it_is_now(monkeypatch):
    with pytest.raises(InputError, match="did you mean 'blue'"):
        load_config(Outer, None, ["data=x", "colour=bleu"])
    monkeypatch.setitem(COLOURS, "green", 3)
    assert load_config(Outer, None, ["data=x", "colour=green"]).colour == "green"
    assert "red | blue | green" in config_help("outer", Outer)


def test_help_is_wrapped_and_plain():
    text = config_help("outer", Outer, width=60)
    assert text.startswith("outer: Everything: at once.\nfields (key=value")
    assert all(len(line) <= 60 for line in text.splitlines())
    assert "\n  data: path; required\n      Folder of the shards, with a dataset.json.\n" in text
    assert "\n      Sizes; null: all.\n" in text
    assert "\n  length: number; above 0; default 3\n      Of a clip, in seconds.\n" in text


@pytest.mark.parametrize(
    ("docstring", "found"),
    [
        ("No section.", {}),
        (
            "X.\n\n    Attributes:\n        a: one.\n        b, c:  two\n            more.\n",
            {"a": "one.", "b": "two more.", "c": "two more."},
        ),
        ("Attributes:\n    a: one: two.\n\n    b: three.\n\nRaises:\n    c: no.", {"a": "one: two.", "b": "three."}),
        ("X.\n\nAttributes:\n    a:\n        on the next line.", {"a": "on the next line."}),
        ("Args:\n    a: no.\nAttributes:\n    b: yes.", {"b": "yes."}),
    ],
)
def test_attributes_sections_are_read(docstring, found):
    assert attributes(docstring) == found


def every_config() -> dict[str, type[Config]]:
    found: dict[str, type[Config]] = {name: recipe.config for name, recipe in RECIPES.items()}
    found |= {f"evaluation of {name}": task.evaluation for name, task in TASKS.items()}
    found |= {f"study of {name}": study.config for name, study in STUDIES.items()}
    return found | {"ingest": IngestConfig, "features": FeatureConfig, "sweep": imported("tuning.config:SweepConfig")}


def test_help_says_what_workers_and_backbones_are():
    for config in (IngestConfig, AuditConfig):  # as `pipelines.on_ray.task_stage` counts
        (workers,) = [field for field in fields(config) if field.name == "workers"]
        assert "two per CPU" in workers.meaning
    (backbone,) = [field for field in fields(ServeConfig) if field.name == "backbone"]
    for said in (backbone.meaning, predict_parser().format_help()):
        assert all(stage in said for stage in STAGES)


@pytest.mark.parametrize("name", list(every_config()))
def test_every_field_of_every_config_has_a_meaning(name):
    assert [field.name for field in fields(every_config()[name]) if not field.meaning] == []
