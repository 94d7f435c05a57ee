"""The one exception that means: the user's input is wrong, and here is what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

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
        file: object | None = None,
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


def nearest_name(name: object, valid: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The valid name most like ``name``, or ``None`` if none is near.

    Case does not count. The last part of a dotted name is nearest (``trials`` for ``search.trials``), then what
    is alike letter by letter, then a name that begins the other (``validation`` for ``val``).

    Args:
        cutoff: 0 to 1, how alike two names must be (the ratio of `difflib`).
    """
    names, text = list(valid), str(name).casefold()
    folded = {known.casefold(): known for known in reversed(names)}
    last = text.rpartition(".")[2]
    if inner := [known for known in names if "." in known and known.casefold().rpartition(".")[2] == last]:
        return folded.get(text) or min(inner, key=lambda known: known.count("."))
    if close := difflib.get_close_matches(text, folded, n=1, cutoff=cutoff):
        return folded[close[0]]
    begun = [n for f, n in folded.items() if min(len(f), len(text)) > 2 and (f.startswith(text) or text.startswith(f))]
    return min(begun, key=lambda known: abs(len(known) - len(text)), default=None)


def nearest(name: object, valid: Iterable[str], *, cutoff: float = 0.6) -> str:
    """``did you mean 'x'? `` for the beginning of a remedy; empty if no valid name is near."""
    found = nearest_name(name, valid, cutoff=cutoff)
    return "" if found is None else f"did you mean '{found}'? "
