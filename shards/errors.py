"""The one exception that means: the user's input is wrong, and here is what to do about it."""

from __future__ import annotations

from pathlib import Path

from shards.redaction import redacted


class InputError(ValueError):
    """Wrong input from a user: names the file, the field and the remedy.

    Command-line entry points print it without a traceback and exit with status 2. Passwords in it are redacted.

    Args:
        message: what is wrong, as a sentence.
        file: the file (and line, as ``path:line``) at fault.
        field: the column, key or option at fault.
        remedy: what the user can do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        field: str | None = None,
        remedy: str | None = None,
    ):
        file = redacted(file) if isinstance(file, str) else file
        self.message, self.file, self.field = redacted(message), file, field
        self.remedy = redacted(remedy) if remedy else remedy
        message, remedy = self.message, self.remedy
        where = ": ".join(str(part) for part in (file, field and f"field '{field}'") if part)
        text = f"{where}: {message}" if where else message
        super().__init__(redacted(f"{text}\n  remedy: {remedy}" if remedy else text))

    def __reduce__(self):  # survives the pickling that Ray does between processes
        return (_rebuild, (type(self), self.message, self.file, self.field, self.remedy))


def _rebuild(kind: type[InputError], message: str, file, field, remedy) -> InputError:
    return kind(message, file=file, field=field, remedy=remedy)
