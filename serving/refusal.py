"""Why a request is not answered, as status and JSON: the texts are those of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.prediction import Failure
from shards.causes import Cause
from shards.errors import InputError

TOO_MUCH, UNFIT, BUSY, AWAY = 413, 422, 429, 503


@dataclass
class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        error: what is wrong.
        remedy: what to do about it.
        field: of the request, or what of the service is at fault.
        cause: a stable code (`shards.causes.Cause`) where a clip can't be decoded.
    """

    status: int
    error: str
    remedy: str
    field: str | None = None
    cause: str | None = None

    def __reduce__(self):  # survives the pickling that Ray does between processes
        return (type(self), (self.status, self.error, self.remedy, self.field, self.cause))

    def as_dict(self) -> dict[str, Any]:
        """The JSON that is sent."""
        return {"error": self.error, "field": self.field, "remedy": self.remedy, "cause": self.cause}


def of_input(error: InputError, status: int = UNFIT) -> Refusal:
    """The refusal that says what an InputError says."""
    return Refusal(status, error.message, error.remedy or "", error.field)


def of_failure(failure: Failure, field: str) -> Refusal:
    """The refusal of a clip that can't be answered by any run."""
    status = TOO_MUCH if failure.error == Cause.TOO_LARGE else UNFIT
    return Refusal(status, str(failure), failure.remedy, field, failure.error)
