"""``avmend serve RUN ...``: finished runs on Ray Serve, an address and a page; also what ``serve deploy`` builds.

An ingress reads requests and asks replicas, which decode and answer. A replica that dies takes nothing with it that the
ingress has not: its requests are asked again, of another replica or of its successor; asking twice changes nothing.
"""

# no `from __future__ import annotations`: Ray Serve reads the type of `build`'s argument from its signature
import argparse
import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from configs import load_config
from configs.cluster import ray_session, require_resources
from serving.access import check_binding, service_token
from serving.command_line import serve_parser
from serving.examples import examples_of
from serving.refusal import AWAY, Refusal
from serving.request import PredictRequest
from serving.settings import ServeConfig
from serving.web import Front, build_app
from shards.command import command
from shards.errors import InputError
from trainers.runs import read_run

NAME, CONTROLLER = "avmend", "SERVE_CONTROLLER_ACTOR"
FRESH_S = 5.0  # for so long after an answer a replica counts as there
STOP_S = 30.0  # what requests under way get when the service stops
DEAD = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)
LIVES: dict[str, Any] = {  # of both deployments
    "graceful_shutdown_wait_loop_s": 0.1,
    "graceful_shutdown_timeout_s": STOP_S,
    "health_check_period_s": 2,
    "health_check_timeout_s": 30,
    "max_constructor_retry_count": 2,
}


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
        return asked if isinstance(asked, Refusal) else await self._together(asked)  # type: ignore[arg-type]

    async def runs(self) -> list[dict[str, Any]]:
        """What each run is."""
        return self.service.described()

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.005)
    async def _together(self, asked: list[Any]) -> list[dict[str, Any]]:
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


@serve.ingress()
class Ingress:
    """Reads requests, refuses what is beyond the limits, asks replicas. It has no torch, and decodes nothing."""

    def __init__(self, handle: Any, config: dict[str, Any]):
        settings = ServeConfig.model_validate(config)
        token = service_token(settings.token_file)
        examples = examples_of(settings.examples, settings.max_bytes)
        backend = Replicas(handle, settings, lambda: self.front.gauges.retries.inc())
        self.front = Front(backend, settings, token, examples)

    def __serve_build_asgi_app__(self) -> Any:
        return build_app(self.front)

    async def drain(self) -> None:
        """Refuse what is new; return when all that was accepted is answered."""
        await self.front.drain()


def build(config: ServeConfig) -> Application:
    """The application of a config: what ``serve deploy`` and ``serve run`` call.

    Raises:
        InputError: a relative path, which would be another one on each node.
    """
    for path in (*config.runs, config.data, config.backbone, config.weights, config.examples, config.token_file):
        if path is not None and not path.is_absolute():
            raise InputError("is no absolute path", file=path, field="runs", remedy="name it from the root on")
    values = config.model_dump(mode="json")
    options = {"num_cpus": config.cpus, "num_gpus": int(config.gpu)}
    scale: dict[str, Any] = {"num_replicas": config.replicas}
    if config.max_replicas is not None:
        few = {"min_replicas": config.replicas, "max_replicas": config.max_replicas}
        scale = {"autoscaling_config": {**few, "target_ongoing_requests": 2 * config.decoders}}
    scale["max_ongoing_requests"] = 2 * config.batch_size  # of one: the rest waits for whichever is free first
    answerer = serve.deployment(name="answerer", ray_actor_options=options, **scale, **LIVES)(Answerer)
    many = 2 * config.max_requests + 64  # the ingress itself says when it has enough
    options = {"num_cpus": 0.0, "num_gpus": 0}
    ingress = serve.deployment(name="ingress", ray_actor_options=options, max_ongoing_requests=many, **LIVES)(Ingress)
    return ingress.bind(answerer.bind(values), values)


def config_of(args: argparse.Namespace) -> ServeConfig:
    """The config of a command line, its paths absolute.

    Raises:
        InputError: a run that is none, or a setting that does not fit.
    """
    runs = [Path(word).absolute() for word in args.words if "=" not in word or Path(word).is_dir()]
    overrides = [word for word in args.words if "=" in word and not Path(word).is_dir()]
    if not runs:
        raise InputError("no run", field="runs", remedy="give the folder that 'avmend train' printed")
    for run in runs:
        read_run(run)
    given = {"examples": args.examples, "token_file": args.token, "replicas": args.replicas}
    words = [f"{name}={value}" for name, value in given.items() if value is not None]
    config = load_config(ServeConfig, None, [f"runs=[{', '.join(map(_quoted, runs))}]", *words, *overrides])
    paths = ("data", "backbone", "weights", "examples", "token_file")
    return config.model_copy(update={n: p.absolute() for n in paths if (p := getattr(config, n)) is not None})


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def free_port(host: str, port: int) -> int:
    """The port itself, or one that nobody has where it is 0.

    Raises:
        InputError: somebody listens there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or str(error)
            remedy = "choose another --port, or 0 for any that is free"
            raise InputError(f"{host}:{port}: {said}", field="--port", remedy=remedy) from None
        return int(probe.getsockname()[1])


def start(config: ServeConfig, host: str, port: int) -> None:
    """Have Serve answer at an address.

    Raises:
        InputError: Serve runs in this cluster already, the replicas do not fit, or can't start.
    """
    if any(actor["name"] == CONTROLLER for actor in ray.util.list_named_actors(all_namespaces=True)):
        remedy = "end that service first; or have 'serve deploy' put this one beside it (configs/clusters/serve.yaml)"
        raise InputError("Ray Serve runs in this cluster already, at an address of its own", remedy=remedy)
    if note := require_resources(config.cpus, float(config.gpu), config.replicas):
        print(note, file=sys.stderr)
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    serve.start("HeadOnly", {"host": host, "port": port}, logging_config=quiet)
    try:
        serve.run(build(config), name=NAME, route_prefix="/", blocking=False)
    except RuntimeError as error:
        found = serve.status().applications.get(NAME)
        deployments = [] if found is None else list(found.deployments.values())
        said = next((d.message for d in deployments if d.message), str(error))
        remedy = "see the message; 'avmend predict' with the same runs tells more"
        raise InputError(f"the service did not start: {said[-2000:]}", remedy=remedy) from None


def stop() -> None:
    """Have all that was accepted answered, then end Serve; on a Ray of this command's own, that ends with it."""
    with suppress(Exception):  # a service that is ill can't be asked to finish
        serve.get_app_handle(NAME).drain.remote().result(timeout_s=STOP_S)
        time.sleep(0.3)  # last bytes on their way through the proxy
    if os.environ.get("RAY_ADDRESS"):
        serve.shutdown()


@command
def main(argv: list[str]) -> int:
    """Serves until it is told to stop (Ctrl-C, SIGTERM), which is answered with what is under way."""
    args = serve_parser().parse(argv)
    config = config_of(args)
    token = service_token(config.token_file)
    check_binding(args.host, token)
    elsewhere = args.port and os.environ.get("RAY_ADDRESS")  # the head, which is not always this machine
    port = args.port if elsewhere else free_port(args.host, args.port)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with ray_session():
        start(config, args.host, port)
        try:
            shown = f"[{args.host}]" if ":" in args.host else args.host
            print(f"http://{shown}:{port}/", flush=True)
            print("ready; Ctrl-C ends it" if sys.stderr.isatty() else "ready", file=sys.stderr, flush=True)
            while True:
                time.sleep(1.0)
        finally:
            stop()


if __name__ == "__main__":
    raise SystemExit(main())
