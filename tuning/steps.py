"""What all studies are built of: settings checked before any work, and the count of the steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from configs import Config, load_config
from configs.presets import format_value
from shards.errors import InputError
from shards.store import Place
from shards.working_copy import worked_on
from trainers.stored_run import tracking_folder

ConfigT = TypeVar("ConfigT", bound=Config)


def config_at(field: str, kind: type[ConfigT], settings: dict[str, Any]) -> ConfigT:
    """A config from the study's settings at `field`, which errors then name."""
    try:
        return load_config(kind, None, as_overrides(settings))
    except InputError as error:
        where = f"{field}.{error.field}" if error.field else field
        raise InputError(error.message, field=where, remedy=error.remedy) from None


def as_overrides(settings: dict[str, Any], prefix: str = "") -> list[str]:
    """Nested settings as `key.sub=value`, each value as `configs.presets.parse_value` reads it."""
    out: list[str] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            out += as_overrides(value, f"{prefix}{key}.")
        else:
            out.append(f"{prefix}{key}={format_value(value)}")
    return out


@contextmanager
def open_study(
    name: str, out: Place, params: dict[str, Any], session: AbstractContextManager[Any]
) -> Iterator[tuple[Path, Any]]:
    """The local folder of a study's results and its MLflow run, within `session`, while the block runs.

    Args:
        out: the folder of the results, or its address.
    """
    from trainers.tracking import Store, flatten

    with worked_on(out, "study") as here, session:
        store = Store(tracking_folder(out.parent))
        free = flatten(params)  # the folder's name says what is computed: what else differs says where
        with store.run(out.name, f"study-{name}", params, None, None, folder=here, free=free) as parent:
            yield here, parent


class Stages:
    """Counts the steps: "3/9"."""

    def __init__(self, total: int):
        self.at, self.total = 0, total

    def next(self) -> str:
        """The next step's place."""
        self.at += 1
        return f"{self.at}/{self.total}"
