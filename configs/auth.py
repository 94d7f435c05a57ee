"""Ray's token, and what a cluster answers to it, asked before Ray itself is: Ray tries for 20 seconds (wrong
token) or two minutes (nobody there), and then says neither."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import grpc

from shards.errors import InputError

MODE, TEXT, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
METHOD = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # what every client asks first


class Answer(Enum):
    """What a cluster's head says."""

    WELCOME = "welcome"
    REFUSED = "refused"
    NOBODY = "nobody there"


@dataclass(frozen=True)
class Token:
    """A token and where it came from: its file, or none if it is in the environment."""

    text: str = field(repr=False)
    path: Path | None = None

    @property
    def source(self) -> str:
        """Where it comes from: a file, or the environment."""
        return str(self.path) if self.path else TEXT


def find_token() -> Token | None:
    """The token that Ray would take: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    Raises:
        InputError: RAY_AUTH_TOKEN_PATH names no readable file, or an empty one.
    """
    if text := os.environ.get(TEXT, "").strip():
        return Token(text)
    named = os.environ.get(PATH)
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        text = path.read_text().strip()
    except OSError as error:
        if not named:
            return None
        remedy = "copy the head's ~/.ray/auth_token there, mode 600"
        raise InputError(f"can't be read: {error.strerror}", file=path, field=PATH, remedy=remedy) from None
    if not text:
        raise InputError("the token is empty", file=path, remedy="ray get-auth-token --generate")
    return Token(text, path)


def sent_token() -> Token | None:
    """The token that Ray would send to a cluster that runs: none unless RAY_AUTH_MODE=token is set, though a file be
    there; unset, Ray takes it for clusters of its own alone.

    Raises:
        InputError: as :func:`find_token`.
    """
    return None if os.environ.get(MODE, "").lower() != "token" else find_token()


def ask(address: str, token: Token | None, seconds: float = 5.0) -> Answer:
    """What the head at ``address`` (host:port) says to ``token``; WELCOME to none: it demands none.

    The request is the first one of Ray's own clients, with an empty body.
    """
    metadata = [("authorization", f"Bearer {token.text}")] if token else []
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(METHOD)(b"", timeout=seconds, metadata=metadata)
        except grpc.RpcError as error:
            refused = error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            return Answer.REFUSED if refused else Answer.NOBODY
    return Answer.WELCOME
