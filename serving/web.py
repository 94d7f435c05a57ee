"""The service's HTTP: page, API, health, metrics. It asks a backend, which is Ray Serve's or, in tests, of this
process; no torch and no Ray here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from serving import schema
from serving.access import check_caller
from serving.examples import Example
from serving.form import boundary_of, read_form, too_large
from serving.gauges import Gauges
from serving.page import Page
from serving.refusal import AWAY, BUSY, UNFIT, Refusal, of_input
from serving.request import PredictRequest, request_of
from serving.settings import ServeConfig
from shards.errors import InputError

SLOW = 408
HEADER_BYTES = 1 << 16
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class Backend(Protocol):
    """What answers."""

    async def predict(self, request: PredictRequest) -> dict[str, Any] | Refusal:
        """What all runs say; or why not."""
        ...

    async def runs(self) -> list[dict[str, Any]]:
        """What each run is and can answer.

        Raises:
            Refusal: nobody is there to answer (yet).
        """
        ...


@dataclass
class Front:
    """What the HTTP routes share.

    Attributes:
        token: that requests must send; None: this machine alone may ask.
        running: requests that are read or answered now.
        stopping: new requests are refused.
    """

    backend: Backend
    config: ServeConfig
    token: str | None = None
    examples: Sequence[Example] = ()
    gauges: Gauges = field(default_factory=Gauges)
    running: int = 0
    stopping: bool = False

    async def predict(self, request: Request) -> dict[str, Any]:
        """Read a request and have it answered.

        Raises:
            Refusal: it can't be.
        """
        check_length(request, self.config.max_bytes)
        boundary = boundary_of(request.headers.get("content-type", ""))
        try:
            async with asyncio.timeout(self.config.upload_s):
                form = await read_form(_pieces(request), boundary, self.config.max_bytes)
        except TimeoutError:
            remedy = "send it faster, or start the service with a greater upload_s"
            raise Refusal(SLOW, f"not sent in {self.config.upload_s:g} s", remedy, "upload_s") from None
        try:
            asked = request_of(form.files, form.texts)
        except InputError as error:
            raise of_input(error) from None
        self.gauges.bytes.inc(sum(len(upload.data) for upload in asked.files.values()))
        found = await self.backend.predict(asked)
        if isinstance(found, Refusal):
            raise found
        return found

    def begin(self) -> None:
        """Count a request in.

        Raises:
            Refusal: the service stops, or has as many as it takes.
        """
        if self.stopping:
            raise Refusal(AWAY, "the service is stopping", "ask again once it is back")
        if self.running >= self.config.max_requests:
            remedy = "ask again in a second, or start the service with more replicas or a greater max_requests"
            raise Refusal(BUSY, f"{self.running} requests are being answered already", remedy, "max_requests")
        self.running += 1
        self.gauges.running.inc()

    def end(self) -> None:
        """Count it out."""
        self.running -= 1
        self.gauges.running.dec()

    async def drain(self) -> None:
        """Refuse what is new; return when all that was accepted is answered."""
        self.stopping = True
        while self.running:
            await asyncio.sleep(0.02)


def check_length(request: Request, max_bytes: int) -> None:
    """Refuse by its headers what is too large or packed.

    Raises:
        Refusal: so.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(UNFIT, "the request is packed", "send it without Content-Encoding", "Content-Encoding")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > max_bytes:
        raise too_large(max_bytes)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        yield piece


class Counted:
    """ASGI around the routes: who may ask, how many at a time, and every answer counted until its last byte."""

    OPEN = ("/", "/health", "/openapi.json")  # without a token: they say nothing of runs or clips

    def __init__(self, app: Any, front: Front):
        self.app, self.front = app, front

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        counted, begin = scope["method"] == "POST", time.monotonic()
        sent = _Sent(send)
        try:
            self._admit(scope, headers, counted)
        except Refusal as refusal:
            await refused(refusal)(scope, receive, sent)
        else:
            try:
                await self.app(scope, receive, sent)
            finally:
                if counted:
                    self.front.end()
                    self.front.gauges.seconds.observe(time.monotonic() - begin)
        if counted:
            self.front.gauges.requests.labels(str(sent.status), sent.cause).inc()

    def _admit(self, scope: Any, headers: dict[str, str], counted: bool) -> None:
        if (length := sum(len(name) + len(value) for name, value in scope["headers"])) > HEADER_BYTES:
            remedy = f"at most {HEADER_BYTES}"
            raise Refusal(431, f"headers of {length} bytes", remedy, "headers")
        client = (scope.get("client") or (None,))[0]
        if self.front.token is None or scope["path"] not in self.OPEN:
            check_caller(self.front.token, headers, client)
        if counted:
            self.front.begin()


@dataclass
class _Sent:
    """Passes on what is sent, and notes the status and the cause."""

    send: Callable[[Any], Awaitable[None]]
    status: int = 0
    cause: str = ""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            found = dict(message["headers"]).get(b"x-cause", b"")
            self.cause = found.decode()
        await self.send(message)


def refused(refusal: Refusal) -> JSONResponse:
    """A refusal as a response."""
    headers = {"X-Cause": refusal.cause or ""} | HEADERS
    if refusal.status in (BUSY, AWAY):
        headers["Retry-After"] = "1"
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(refusal.as_dict(), refusal.status, headers)


def build_app(front: Front) -> Any:
    """The ASGI application."""
    app = FastAPI(title="avmend", summary=schema.ABOUT, docs_url=None, redoc_url=None)
    _answers(app, front)
    _figures(app, front)
    _handlers(app)
    return Counted(app, front)


def _answers(app: FastAPI, front: Front) -> None:
    """The page and what it asks for."""
    page = Page.read()

    @app.get("/", response_class=HTMLResponse, summary="The page")
    async def index() -> HTMLResponse:
        return HTMLResponse(page.text, headers={**HEADERS, "Content-Security-Policy": page.policy})

    @app.post("/predict", **schema.PREDICT)
    async def predict(request: Request) -> JSONResponse:
        return JSONResponse(await front.predict(request), headers=HEADERS)

    @app.get("/runs", **schema.RUNS)
    async def runs() -> JSONResponse:
        names = [example.name for example in front.examples]
        found = {"runs": await front.backend.runs(), "examples": names, "limits": schema.limits(front.config)}
        return JSONResponse({**found, "noise": schema.noise_kinds()}, headers=HEADERS)

    @app.get("/examples/{number}", **schema.EXAMPLES)
    async def example(number: int) -> Response:
        if not 0 <= number < len(front.examples):
            raise Refusal(404, f"no example {number}", "see the list of /runs", "number")
        return Response(front.examples[number].data, media_type="application/octet-stream", headers=HEADERS)


def _figures(app: FastAPI, front: Front) -> None:
    """How the service is."""

    @app.get("/health", **schema.HEALTH)
    async def health() -> JSONResponse:
        if front.stopping:
            raise Refusal(AWAY, "the service is stopping", "ask again once it is back")
        await front.backend.runs()
        return JSONResponse({"status": "ok"}, headers=HEADERS)

    @app.get("/metrics", summary="Figures for Prometheus")
    async def metrics() -> Response:
        return Response(front.gauges.text(), media_type=front.gauges.kind, headers=HEADERS)


def _handlers(app: FastAPI) -> None:
    """What every error looks like."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    @app.exception_handler(Refusal)
    async def refusal(_: Request, error: Refusal) -> JSONResponse:
        return refused(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return refused(Refusal(UNFIT, str(first["msg"]), "see /openapi.json", str(first["loc"][-1])))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        said = f"{request.method} {request.url.path[:80]}: {error.detail}"
        return refused(Refusal(error.status_code, said, "POST /predict, GET /runs; see /openapi.json"))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> JSONResponse:
        return refused(Refusal(499, "the caller went away", "send the whole request"))
