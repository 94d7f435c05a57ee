"""``avmend serve RUN ...``: finished runs on Ray Serve, an address and a page; also what ``serve deploy`` builds.

An ingress reads requests and asks replicas, which decode and answer. A replica that dies takes nothing with it that the
ingress has not: its requests are asked again, of another replica or of its successor; asking twice changes nothing.
"""

# no `from __future__ import annotations`: Ray Serve reads the type of `build`'s argument from its signature
import argparse
import logging
import os
import re
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from configs import load_config
from configs.cluster import ray_session, require_resources
from configs.presets import format_value
from serving.access import check_binding, check_reaches, service_token
from serving.command_line import serve_parser
from serving.examples import examples_of
from serving.replicas import Answerer, Replicas
from serving.settings import ServeConfig
from serving.web import Front, build_app
from shards.command import command
from shards.errors import InputError
from shards.store import absolute, url_of
from trainers.runs import read_run

NAME, CONTROLLER = "avmend", "SERVE_CONTROLLER_ACTOR"
STOP_S = 30.0  # what requests under way get when the service stops
LIVES: dict[str, Any] = {  # of both deployments
    "graceful_shutdown_wait_loop_s": 0.1,
    "graceful_shutdown_timeout_s": STOP_S,
    "health_check_period_s": 2,
    "health_check_timeout_s": 30,
    "max_constructor_retry_count": 2,
}


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
        if path is not None and not (path.is_absolute() or url_of(path)):
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
    runs = [absolute(Path(word)) for word in args.words if _is_place(word)]
    overrides = [word for word in args.words if not _is_place(word)]
    if not runs:
        raise InputError("no run", field="runs", remedy="give the folder that 'avmend train' printed")
    for run in runs:
        read_run(run)
    given = {"examples": args.examples, "token_file": args.token, "replicas": args.replicas}
    words = [f"{name}={value}" for name, value in given.items() if value is not None]
    config = load_config(ServeConfig, None, [f"runs={format_value([str(run) for run in runs])}", *words, *overrides])
    paths = ("data", "backbone", "weights", "examples", "token_file")
    return config.model_copy(update={n: absolute(p) for n in paths if (p := getattr(config, n)) is not None})


def _is_place(word: str) -> bool:
    """Whether a word is a run's folder or address, which may hold "=", and not a setting."""
    return "=" not in word or url_of(word) is not None or Path(word).is_dir()


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
    if note := require_resources(config.cpus, float(config.gpu), config.replicas, "replicas"):
        print(note, file=sys.stderr)
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    with ExitStack() as unfinished:
        unfinished.callback(_end)
        serve.start("HeadOnly", {"host": host, "port": port}, logging_config=quiet)
        try:
            serve.run(build(config), name=NAME, route_prefix="/", blocking=False)
        except RuntimeError as error:
            found = serve.status().applications.get(NAME)
            deployments = [] if found is None else list(found.deployments.values())
            raise not_started(next((d.message for d in deployments if d.message), str(error))) from None
        unfinished.pop_all()


def _end() -> None:
    """End Serve; on a Ray of this command's own, it ends with that."""
    if os.environ.get("RAY_ADDRESS"):
        serve.shutdown()


def not_started(said: str) -> InputError:
    """What a user can do about what Serve says of a replica that does not start: with tracebacks, ours at their end."""
    if found := re.search(r"InputError: (.+?)(?:\n  remedy: (.+?))?\s*$", said, re.DOTALL):
        return InputError(f"a replica does not start: {found[1]}", remedy=found[2])
    last = said.strip().splitlines()[-1:]
    remedy = "'avmend predict' with the same runs tells more"
    return InputError(f"a replica does not start: {' '.join(last)[-500:]}", remedy=remedy)


def stop() -> None:
    """Have all that was accepted answered, then end Serve."""
    with suppress(Exception):  # a service that is ill can't be asked to finish
        serve.get_app_handle(NAME).drain.remote().result(timeout_s=STOP_S)
        time.sleep(0.3)  # last bytes on their way through the proxy
    _end()


@command
def main(argv: list[str]) -> int:
    """Serves until it is told to stop (Ctrl-C, SIGTERM), which is answered with what is under way."""
    args = serve_parser().parse(argv)
    config = config_of(args)
    token = service_token(config.token_file)
    check_reaches(config.token_file, token)
    check_binding(args.host, token)
    if config.examples is not None:
        examples_of(config.examples, config.max_bytes)
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
