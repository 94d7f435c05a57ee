"""Weights of losses: those that the chosen network and recovery method declare, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs import load_config
from shards.errors import InputError
from tests.fixtures.asking import settings
from trainers.avqa.config import AVQAConfig, AVRConfig, RMMConfig

pytestmark = pytest.mark.unit
ALL = {"rmmr": 1.0, "ave": 1.0, "match": 0.5}  # Eq. 8; AVST's released code


def config(network: str, recovery: str, **weights: Any) -> AVQAConfig:
    return AVQAConfig.model_validate(settings(Path(), network, recovery, weights=weights))


@pytest.mark.parametrize(
    ("network", "recovery", "names"),
    [
        ("avst", "rmm_avr", {"rmmr", "ave", "match"}),
        ("avst", "zero", {"match"}),
        ("pstp", "rmm", {"rmmr"}),
        ("pstp", "avr", {"ave"}),
        ("lavit", "zero", set()),
    ],
)
def test_every_declared_loss_has_its_weight(network, recovery, names):
    assert config(network, recovery).weights == {name: ALL[name] for name in names}


def test_given_weights_stand_beside_defaults():
    assert config("avst", "rmm_avr", rmmr=0.25, match=0).weights == {"rmmr": 0.25, "ave": 1.0, "match": 0.0}
    overrides = ["data=d", "questions=q", "recovery=rmm", "weights.rmmr=0.5"]
    assert load_config(AVQAConfig, None, overrides).weights == {"rmmr": 0.5, "match": 0.5}
    alone = {"data": "d", "questions": "q"}
    assert RMMConfig.model_validate(alone).weights == {"rmmr": 1.0}
    assert AVRConfig.model_validate(alone | {"weights": {"ave": 2}}).weights == {"ave": 2.0}


@pytest.mark.parametrize(
    ("recovery", "weights", "message"),
    [
        ("rmm", {"rmr": 1.0}, r"no loss 'rmr'; did you mean 'rmmr'\? losses .*: rmmr \(1\), match \(0.5\)"),
        ("rmm", {"ave": 2.0}, "no loss 'ave'"),  # AVR's; this choice has none
        ("rmm", {"rmmr": -0.5}, "weights.rmmr: -0.5 is below 0"),
        ("rmm", {"rmmr": float("nan")}, "finite"),
        ("rmm", {"rmmr": "much"}, "number"),
    ],
)
def test_a_weight_that_can_not_be_is_refused(recovery, weights, message):
    with pytest.raises(ValueError, match=message):
        config("avst", recovery, **weights)
    if "rmr" in weights:
        with pytest.raises(InputError, match="did you mean 'rmmr'"):
            load_config(AVQAConfig, None, ["data=d", "questions=q", "recovery=rmm", "weights.rmr=1"])


def test_records_of_earlier_runs_name_all_three():
    """They had a weight for losses that the run did not have, too."""
    assert config("pstp", "zero", **ALL).weights == {}
    assert config("pstp", "rmm", **ALL).weights == {"rmmr": 1.0}
    again = config("avst", "rmm")
    assert AVQAConfig.model_validate(again.model_dump(mode="json")) == again
