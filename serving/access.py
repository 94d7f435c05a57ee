"""Who may ask: the holder of a token; without one, this machine alone. The token is the service's own, never Ray's,
which would let its holder run code on the cluster."""

from __future__ import annotations

import hmac
import ipaddress
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from serving.refusal import Refusal
from shards.errors import InputError

TOKEN = "AVMEND_SERVE_TOKEN"
SHORTEST = 16
HOW = "python -c 'import secrets; print(secrets.token_urlsafe(32))' > FILE; chmod 600 FILE"


def service_token(file: Path | None) -> str | None:
    """The token of a file, else of AVMEND_SERVE_TOKEN; None: there is none.

    Raises:
        InputError: a file that can't be read, that others may read, or a token that can be guessed.
    """
    if file is None:
        found, source = os.environ.get(TOKEN, "").strip(), TOKEN
        return _long_enough(found, source) if found else None
    try:
        open_to_others = stat.S_IMODE(file.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read: {error}", file=file, field="token_file", remedy=HOW) from None
    if open_to_others:
        raise InputError("others may read the token", file=file, field="token_file", remedy=f"chmod 600 {file}")
    return _long_enough(text, str(file))


def _long_enough(text: str, source: str) -> str:
    if len(text) < SHORTEST or not text.isascii() or not text.isprintable() or " " in text:
        raise InputError(f"a token has {SHORTEST} or more letters, digits and signs", file=source, remedy=HOW)
    return text


def check_reaches(file: Path | None, token: str | None) -> None:
    """Refuse a token of this process's environment for a service that runs in another one, of a cluster that is there.

    Raises:
        InputError: so.
    """
    if file is None and token is not None and os.environ.get("RAY_ADDRESS"):
        message = "is this process's, and the service runs in the cluster, which would answer without a token"
        raise InputError(message, field=TOKEN, remedy="give --token FILE, of storage that the cluster mounts")


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own, for itself alone."""
    name = host.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def check_binding(host: str, token: str | None) -> None:
    """Refuse to listen to others without a token.

    Raises:
        InputError: so.
    """
    if token is None and not is_loopback(host):
        remedy = f"give --token FILE ({HOW}), or leave --host out"
        raise InputError(f"{host} is open to others, and there is no token", field="--host", remedy=remedy)


def check_caller(token: str | None, headers: Mapping[str, str], client: str | None) -> None:
    """Refuse a request that may not ask.

    Args:
        headers: lower-case names.
        client: the caller's address, if known.

    Raises:
        Refusal: a wrong token or none (401); without a token, a caller from elsewhere, or a page of another site
            in a browser of this machine (403).
    """
    if token is not None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            remedy = "send the header 'Authorization: Bearer TOKEN'"
            raise Refusal(401, "this service needs its token", remedy, "Authorization")
        return
    host, origin = headers.get("host", ""), headers.get("origin")
    if not is_loopback(_name_of(host)) or (client and not is_loopback(client)):
        remedy = "ask it on its own machine (ssh -L leads there), or start it with a token"
        raise Refusal(403, "without a token this service answers its own machine alone", remedy, "Host")
    if origin not in (None, f"http://{host}", f"https://{host}"):
        raise Refusal(403, "asked by a page of another site", "open the service's own page", "Origin")


def _name_of(host: str) -> str:
    """Of a Host header, without the port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
