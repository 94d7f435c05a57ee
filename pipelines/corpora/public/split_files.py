"""Files that are given with their split, as ``SPLIT=FILE``: a field type of the public corpora's configs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pydantic


def split_and_file(value: Any) -> Any:
    """``"train=a.json"`` as ("train", "a.json"); a pair stays.

    Raises:
        ValueError: text without the split or the file.
    """
    if not isinstance(value, str):
        return value
    split, equals, file = value.partition("=")
    if not (split and equals and file):
        raise ValueError(f"'{value}' is not SPLIT=FILE, such as train=train.json")
    return split, file


SplitFile = Annotated[tuple[str, Path], pydantic.BeforeValidator(split_and_file)]
SplitFiles = Annotated[
    tuple[SplitFile, ...],
    pydantic.Field(validation_alias=pydantic.AliasChoices("files", "json"), examples=["SPLIT=FILE"]),
]
