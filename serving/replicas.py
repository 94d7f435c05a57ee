"""Replicas of the service on Ray Serve, and asking them again where one dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serving.refusal import AWAY, Refusal
from serving.request import PredictRequest
from serving.settings import ServeConfig

if TYPE_CHECKING:
    from serving.service import Asked

FRESH_S = 5.0  # for so long after an answer a replica counts as there
DEAD = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)


class Answerer:
    """A replica: decodes in children, and puts the clips of several requests through the networks together."""

    def __init__(self, config: dict[str, Any]):
        from serving.service import Service  # here: the ingress and the command need no torch

        settings = ServeConfig.model_validate(config)
        self.service = Service.load(settings, "cuda" if settings.gpu else "cpu")
        self.decoding = ThreadPoolExecutor(settings.decoders)
        self.asking = ThreadPoolExecutor(1)
        self._together.set_max_batch_size(settings.batch_size)  # type: ignore[attr-defined]
        self._together.set_batch_wait_timeout_s(settings.batch_wait_ms / 1000)  # type: ignore[attr-defined]

    async def predict(self, request: PredictRequest) -> dict[str, Any] | Refusal:
        """What the runs say about a clip; or why not."""
        asked = await asyncio.get_running_loop().run_in_executor(self.decoding, self.service.read, request)
        return asked if isinstance(asked, Refusal) else await self._together(asked)

    async def runs(self) -> list[dict[str, Any]]:
        """What each run is."""
        return self.service.described()

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def _together(self, asked: list[Asked]) -> list[dict[str, Any]]:
        return await asyncio.get_running_loop().run_in_executor(self.asking, self.service.answer, asked)

    def __del__(self) -> None:
        with suppress(AttributeError):
            self.service.decoders.close()


class Replicas:
    """Asks replicas, and asks again where one dies (`serving.web.Backend`).

    Args:
        handle: of the deployment `Answerer`.
        retried: called for every request that is asked again.
    """

    def __init__(self, handle: Any, config: ServeConfig, retried: Callable[[], None]):
        self.handle, self.config, self.retried = handle, config, retried
        self._runs: list[dict[str, Any]] = []
        self._answered = 0.0  # when a replica last did

    async def predict(self, request: PredictRequest) -> dict[str, Any] | Refusal:
        """What all runs say; or why not.

        Raises:
            Refusal: nobody answered in time.
        """
        return await self._ask(lambda: self.handle.predict.remote(request), self.config.request_s)

    async def runs(self) -> list[dict[str, Any]]:
        """What each run is; that a replica is there, or was a moment ago.

        Raises:
            Refusal: none is (yet).
        """
        if not self._runs or time.monotonic() - self._answered > FRESH_S:
            self._runs = await self._ask(lambda: self.handle.runs.remote(), min(10.0, self.config.request_s))
        return self._runs

    async def _ask(self, ask: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        end, died = time.monotonic() + seconds, 0
        while True:
            try:
                found = await asyncio.wait_for(ask(), max(end - time.monotonic(), 0.01))
                self._answered = time.monotonic()
                return found
            except DEAD:
                died += 1
                self.retried()
                if died >= self.config.tries:
                    message = f"{died} replicas died while they had this request"
                    raise Refusal(AWAY, message, "look at the service's log before sending it again") from None
                await asyncio.sleep(0.1)
            except TimeoutError:
                remedy = "ask again; or start the service with more replicas or a greater request_s"
                raise Refusal(AWAY, f"no answer in {seconds:g} s", remedy, "request_s") from None
            except ray.exceptions.RayTaskError as error:
                logging.getLogger("ray.serve").error("a request failed", exc_info=error)
                message = f"the service has a defect: {type(error.cause).__name__}"
                raise Refusal(500, message, "tell whoever runs it: its log has the details") from None
            except (BackPressureError, DeploymentUnavailableError):
                raise Refusal(AWAY, "no replica is there", "ask again in a few seconds") from None
