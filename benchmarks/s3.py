"""An S3 server for tests and measurements, and a proxy before it that is slow, fails, cuts bodies, lists what was.

The server is moto's: it comes with the test tools (no Node, no container), speaks the real protocol over HTTP, and
knows conditional puts, multipart uploads and ETags as S3 does.
"""

from __future__ import annotations

import http.client
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = "avmend"
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "only-for-tests", "AWS_DEFAULT_REGION": "us-east-1"}
HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"}
EMPTY = b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"


def denial(code: str) -> bytes:
    """S3's answer to who may not."""
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>told so by the test</Message></Error>'.encode()


@dataclass
class Faults:
    """What goes wrong on the way to the store.

    Attributes:
        latency: seconds before a request is passed on.
        failing: share of the requests that are answered 503.
        cut: share of the bodies read that end halfway.
        lost: share of the writes whose answer is lost after the store took them.
        garbled: share of the writes whose bytes are changed on the way.
        stale: listings are empty, whatever is there.
        denied: code with which every request is refused (403), ``ExpiredToken``.
        only: what a request's path must hold to be struck; default: any.
        seed: of the draws.
    """

    latency: float = 0.0
    failing: float = 0.0
    cut: float = 0.0
    lost: float = 0.0
    garbled: float = 0.0
    stale: bool = False
    denied: str = ""
    only: str = ""
    seed: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._rng, self._lock = random.Random(self.seed), threading.Lock()

    def strikes(self, what: str, share: float, path: str) -> bool:
        """Whether this request is struck."""
        with self._lock:
            hit = share > 0 and self.only in path and self._rng.random() < share
            self.struck[what] += hit
            return hit


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass(self) -> None:
        faults = self.server.faults
        faults.requests[self.command] += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(faults.latency)
        if faults.denied and faults.only in self.path:
            return self._answer(403, {}, denial(faults.denied))
        if faults.strikes("503", faults.failing, self.path):
            return self._answer(503, {}, denial("SlowDown"))
        if faults.stale and self.command == "GET" and "list-type=" in self.path:
            faults.struck["stale"] += 1
            return self._answer(200, {"Content-Type": "application/xml"}, EMPTY)
        if self.command == "PUT" and body and faults.strikes("garbled", faults.garbled, self.path):
            body = bytes([body[0] ^ 1]) + body[1:]
        status, headers, data = self.server.forward(self.command, self.path, dict(self.headers), body)
        if self.command in ("PUT", "POST") and faults.strikes("lost", faults.lost, self.path):
            return self._drop()
        half = self.command == "GET" and len(data) > 1 and faults.strikes("cut", faults.cut, self.path)
        return self._answer(status, headers, data, cut=half)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        self.send_response(status)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        for name, value in {**headers, "Content-Length": length}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._drop()

    def _drop(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        pass


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server of this machine, with faults."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, faults: Faults | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.faults, self._local = port, faults or Faults(), threading.local()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask the server behind."""
        sent = {name: value for name, value in headers.items() if name.lower() not in {*HOP, "expect"}}
        sent["Content-Length"] = str(len(body))
        connection = http.client.HTTPConnection("127.0.0.1", self.behind)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        found = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        if method == "HEAD":
            found["Content-Length"] = answer.getheader("Content-Length") or "0"
        return answer.status, found, data

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error."""


@contextmanager
def proxied(port: int, faults: Faults | None = None) -> Iterator[Proxy]:
    """A proxy in a thread, for as long as the block runs."""
    proxy = Proxy(port, faults)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


@contextmanager
def s3_server() -> Iterator[int]:
    """The port of a moto server in a thread of this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


@contextmanager
def s3_process() -> Iterator[int]:
    """The port of a moto server in a process of its own, which does not take the client's time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=silent, stderr=silent, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise RuntimeError("the S3 server did not start")


def variables(url: str) -> dict[str, str]:
    """The environment of a client of a server."""
    return {**KEYS, "AWS_ENDPOINT_URL": url}


def client(url: str) -> Any:
    """boto's own client, to look at the store from outside our code."""
    import boto3

    keys = {name.lower(): value for name, value in KEYS.items() if name != "AWS_DEFAULT_REGION"}
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)


def objects(s3: Any, prefix: str = "") -> dict[str, bytes]:
    """All objects of the bucket whose names begin so, by the rest of their names."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    names = [found["Key"] for page in pages for found in page.get("Contents", ())]
    return {name[len(prefix) :]: s3.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names}
