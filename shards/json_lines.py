"""Files of JSON Lines that users write: read as UTF-8, each line checked, errors with ``file:line`` and the field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pydantic

from shards.errors import InputError

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)


def numbered_lines(path: Path, remedy: str, field: str | None = None) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its number, from 1.

    Args:
        remedy, field: for a file that can't be read.

    Raises:
        InputError: it can't be read, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        message = f"can't be read: {error.strerror}"
        raise InputError(message, file=path, field=field, remedy=remedy) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error})", file=path, remedy="save it as UTF-8") from None
    for number, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield number, content


def parse_line(kind: type[ModelT], where: str, content: str, remedy: str) -> ModelT:
    """What a line says; `where`, ``file:line``, and `remedy` are for the message.

    Raises:
        InputError: it is no such line; names the field.
    """
    try:
        return kind.model_validate_json(content)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or None
        raise InputError(problem["msg"], file=where, field=field, remedy=remedy) from None
