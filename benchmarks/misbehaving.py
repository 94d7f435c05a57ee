"""An HTTP server on this machine that can be told to be slow, away, or to refuse."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class MisbehavingServer:
    """Subclasses say what the true answer is.

    Attributes:
        delay: seconds that each request takes more.
        status: what it answers instead, e.g. 500; 0: the truth.
        requests: the paths that came, without their queries.
    """

    def __init__(self, port: int):
        self.port = port
        self.delay, self.status, self.requests = 0.0, 0, list[str]()
        self._http: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                server._handle(self)

            do_GET = do_POST = do_PATCH = do_PUT = handle_any

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Be gone."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and JSON of the true answer to a request."""
        raise NotImplementedError

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path.partition("?")[0])
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        time.sleep(self.delay)
        status, content = self.status, b"{}" if self.status == 500 else b"no"
        if not status:
            status, content = self.answer(handler.command, handler.path, body)
        try:
            handler.send_response(status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except OSError:
            pass  # nobody waits any more
