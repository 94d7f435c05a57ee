"""What a check says: one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shards.errors import InputError
from shards.redaction import redacted

Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        status: `skip` says that it could not be looked at here, and why.
        found: in a few words.
        remedy: what to do about a `warn` or `fail`. Passwords in both are redacted.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""

    def __post_init__(self) -> None:
        for name in ("found", "remedy"):
            object.__setattr__(self, name, redacted(getattr(self, name)))

    def __str__(self) -> str:
        line = f"{self.status:<5}{self.check:<16}{self.found}"
        return " ".join((f"{line}; remedy: {self.remedy}" if self.remedy else line).splitlines())


def ok(check: str, found: str) -> Finding:
    """A finding that is well."""
    return Finding(check, "ok", found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """A finding that is doubtful, with what to do."""
    return Finding(check, "warn", found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """A finding that is wrong, with what to do."""
    return Finding(check, "fail", found, remedy)


def skip(check: str, why: str) -> Finding:
    """A check that could not be made, and why."""
    return Finding(check, "skip", why)


def refused(check: str, error: InputError) -> Finding:
    """What our own code refused, as a failed check."""
    where = ": ".join(str(part) for part in (error.file, error.field) if part)
    return fail(check, f"{where}: {error.message}" if where else error.message, error.remedy or "")


def guarded(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """A check's findings; one that breaks is a failed one, so that the others are still heard."""
    try:
        return check()
    except InputError as error:
        return [refused(name, error)]
    except Exception as error:
        return [fail(name, f"the check broke: {type(error).__name__}: {error}", "report this, with the line")]
