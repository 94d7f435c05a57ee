"""Secrets kept out of what is written down: passwords in addresses, values of variables that hold credentials.

Credentials are meant to come from the environment, or from files that the environment names; they are never part
of a config, a run's folder, a store, a report, a log or a command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 6  # characters of a secret that is searched for by its value
_NAMES = r"password|passwd|pwd|secret|token|signature|credentials?|api[_-]?key|access[_-]?key|private[_-]?key"
# A single slash, too: what became a path of an address.
_USER = re.compile(r"""(:/{1,2}[^\s/?#@:'"]*:)(?!\d+(?:[/?#\s'"]|$))([^\s'"]+)@""")
_ALONE = re.compile(r"""(https?://)[^\s/?#@:'"]+@""")
_QUERY = re.compile(rf"""([?&;][\w.\-]*(?:{_NAMES}|sig|key)=)[^&\s'"#]*""", re.IGNORECASE)
FOLDERS = ("PWD", "OLDPWD")  # a shell's own: where it stands, where it stood
_VARIABLE = re.compile(rf"({_NAMES})(_|$)(?!(?:\w+_)?(?:path|file|mode|name|url)$)", re.IGNORECASE)


def redacted(text: str) -> str:
    """`text` with every password of an address, every secret of its query, and every value that a variable of the
    environment keeps secret replaced by ``***``. Redacted addresses of one store stay equal: they can be compared."""
    text = _address(text)
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    return text


def _address(text: str) -> str:
    if "@" in text:  # of a user; looking for it first takes a tenth of the time
        text = _ALONE.sub(rf"\1{HIDDEN}@", _USER.sub(rf"\1{HIDDEN}@", text))
    return _QUERY.sub(rf"\1{HIDDEN}", text) if "=" in text else text


def holds_credentials(address: str) -> bool:
    """Whether an address names a password, a key or a signature."""
    return _address(address) != address


def redacted_values(value: Any) -> Any:
    """Plain values (of a config, as it is written down) with every text :func:`redacted`, names of settings, too; a
    path that exists here stays as it is: it is no address, and is needed to find what lies there."""
    if isinstance(value, Mapping):
        return {redacted(str(name)): redacted_values(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted_values(inner) for inner in value]
    if not isinstance(value, str) or value == (shown := redacted(value)):
        return value
    return value if _exists(value) else shown


def _exists(text: str) -> bool:
    try:
        return os.path.isabs(text) and os.path.lexists(text)
    except ValueError:  # a null
        return False


_seen: tuple[Mapping[Any, Any], tuple[str, ...]] = ({}, ())  # the environment when it was last looked through


def _secrets() -> tuple[str, ...]:
    """Values of the environment that must not be written down, the longest first.

    It is compared with what it was before each text; as the bytes that `os.environ` keeps, in a hundredth of the time
    that decoding all of them takes.
    """
    global _seen
    before, secrets = _seen
    if (now := getattr(os.environ, "_data", os.environ)) != before:
        before = dict(now)
        secrets = tuple(sorted(set(_secrets_of(os.environ.items())), key=len, reverse=True))
        _seen = before, secrets
    return secrets


def _secrets_of(environment: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in environment:
        found = [value] if _VARIABLE.search(name) and name not in FOLDERS else []
        found += [password for _, password in _USER.findall(value)]
        for secret in found:
            yield from (s for s in (secret, unquote(secret)) if len(s) >= SHORTEST and s != HIDDEN)
