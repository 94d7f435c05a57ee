"""Sample keys: ids of any spelling made safe as member names of a tar, without two ids ever sharing one.

A dot in a key merges samples in WebDataset (the first dot ends the key), a slash makes a folder, other
characters depend on the reader's locale.
"""

from __future__ import annotations

import hashlib
import re

_SAFE = re.compile(r"[A-Za-z0-9_-]{1,80}")
_NAME = re.compile(r"[A-Za-z0-9_=+,-][A-Za-z0-9_.=+,-]{0,79}")
_ESCAPED = re.compile(r".*--[0-9a-f]{16}", re.DOTALL)
_LONGEST_BODY = 60  # a key and its longest suffix stay under the 100 characters of a plain tar header


def safe_key(clip_id: str) -> str:
    """The key of ``clip_id`` in shards: only ``[A-Za-z0-9_-]``, at most 80 characters.

    A safe id is its own key. Any other id keeps what is readable of it (every other character becomes
    ``_``) and gets ``--`` with 64 bits of its BLAKE2 hash: ``vid 10.5`` -> ``vid_10_5--`` + 16 hex digits.
    A safe id that already looks escaped is escaped too, so the two kinds of key can't meet.

    Raises:
        ValueError: the id is empty.
    """
    if not clip_id:
        raise ValueError("an empty id has no key")
    if _SAFE.fullmatch(clip_id) and not _ESCAPED.fullmatch(clip_id):
        return clip_id
    return _escaped(clip_id, r"[^A-Za-z0-9_-]")


def safe_name(text: str) -> str:
    """The name of a file or folder for a text of a user's (a label, a run's name): one part of a path, whatever the
    text, and another one for another text.

    A text of letters, digits and ``_.=+,-`` that begins with no dot and has at most 80 characters is its own name;
    any other is escaped as by :func:`safe_key`; the empty one too.
    """
    if _NAME.fullmatch(text) and not _ESCAPED.fullmatch(text):
        return text
    return _escaped(text, r"[^A-Za-z0-9_=+,-]")


def _escaped(text: str, unsafe: str) -> str:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{re.sub(unsafe, '_', text)[:_LONGEST_BODY]}--{digest}"
