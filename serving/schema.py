"""The service's JSON, as OpenAPI has it."""

from __future__ import annotations

from typing import Any

import pydantic

from models.settings import AUDIO_KINDS, VISUAL_KINDS
from serving.settings import ServeConfig

ABOUT = "What finished runs answer about clips, with sound or picture taken away or ruined if wanted."


class Open(pydantic.BaseModel):
    """Base: more fields may come."""

    model_config = pydantic.ConfigDict(extra="allow", use_attribute_docstrings=True)


class Problem(Open):
    """Why a request, or one run, does not answer."""

    error: str
    """What is wrong; of a clip that begins with its cause."""
    field: str | None = None
    """Of the request, the header, or the setting of the service."""
    remedy: str
    """What to do about it."""
    cause: str | None = None
    """Stable code of a clip that can't be decoded, such as "truncated"."""


class RunAnswer(Open):
    """What one run says; ``failure`` alone where it says nothing."""

    run: str
    """Name of the run's folder."""
    answer: str | None = None
    """The most probable one."""
    probabilities: dict[str, float] | None = None
    """Of all answers, falling."""
    logits: dict[str, float] | None = None
    """Of all answers, in the run's order."""
    selection: str | None = None
    """How the module was chosen: "detected", or "" where there is one for all."""
    case: str | None = None
    """Of the module that answered."""
    ruined: list[str] | None = None
    """What was there and the run's detector took for ruined; null: it has no detector."""
    present: dict[str, bool] | None = None
    """What the run met of sound and picture."""
    others: dict[str, str] | None = None
    """Answers by other ways of choosing the module."""
    notes: list[str] | None = None
    """Such as words of the question that the run does not know."""
    failure: dict[str, str] | None = None
    """``error``, ``message``, ``remedy``: why this run does not answer."""
    view: int | None = None
    """Position in ``views`` of what it met."""


class Seen(Open):
    """What runs met, as URLs of PNGs that hold them."""

    spectrogram: str | None
    """Log-mel: time to the right, low frequencies below; null: no sound."""
    frames: list[str]
    """Pictures in order; empty: none."""


class Reply(Open):
    """What every run says about a clip."""

    clip: str
    """Its name."""
    question: str | None = None
    streams: dict[str, dict[str, Any]]
    """Sound (audio) and picture (visual) as they were sent: ``present``, else ``cause``; codec, rate, duration."""
    done: dict[str, str]
    """What was done to them: "clean", "taken away", "absent", or such as "gaussian 3"."""
    runs: list[RunAnswer]
    """In the order in which the service loaded them."""
    views: list[Seen] | None = None
    """Where ``view`` was asked for."""


class RunInfo(Open):
    """A run that is served."""

    run: str
    method: str
    """Its name in tables."""
    answers: list[str]
    """All that it can answer."""
    asks: bool
    """Every clip comes with a question."""
    modalities: list[str]
    """What it looks at."""
    noise: list[str]
    """Modalities that noise can be added to."""


class Served(Open):
    """What is served."""

    runs: list[RunInfo]
    examples: list[str]
    """Names of the clips at /examples/0, /examples/1, ..."""
    limits: dict[str, float]
    noise: dict[str, list[str]]
    """Kinds of noise by modality."""


def limits(config: ServeConfig) -> dict[str, float]:
    """What a request may hold."""
    return {name: getattr(config, name) for name in ("max_mb", "max_seconds", "max_pixels", "timeout_s")}


def noise_kinds() -> dict[str, list[str]]:
    """By modality."""
    return {"audio": list(AUDIO_KINDS), "visual": list(VISUAL_KINDS)}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _file(description: str) -> dict[str, Any]:
    return {"type": "string", "format": "binary", "description": description}


FORM = {
    "clip": _file("a file with sound, picture or both; a still picture by its suffix"),
    "audio": _file("in place of clip: the sound"),
    "image": _file("in place of clip: the picture, a still one"),
    "question": _text("of runs that answer questions"),
    "run": _text("name of a run that is to answer; repeatable; none: all"),
    "without": _text("what is taken away: audio, visual; repeatable"),
    "noise_audio": _text("severity of noise on the sound", enum=["0", "1", "2", "3", "4", "5"]),
    "noise_visual": _text("severity of noise on the picture", enum=["0", "1", "2", "3", "4", "5"]),
    "kind_audio": _text("kind of that noise", default="gaussian", enum=list(AUDIO_KINDS)),
    "kind_visual": _text("kind of that noise", default="gaussian", enum=list(VISUAL_KINDS)),
    "black": _text("the picture is made black", enum=["true", "false"]),
    "view": _text("pictures of what the runs met come with the answer", enum=["true", "false"]),
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No token, or a wrong one"},
    403: {"model": Problem, "description": "Without a token: a caller from elsewhere"},
    408: {"model": Problem, "description": "Sent too slowly"},
    413: {"model": Problem, "description": "Too many bytes, seconds or pixels"},
    422: {"model": Problem, "description": "A clip or a field that can't be used, with the cause"},
    429: {"model": Problem, "description": "Too many requests at a time"},
    503: {"model": Problem, "description": "Stopping, starting, or the machine is at fault"},
}
BODY = {"required": True, "content": {"multipart/form-data": {"schema": {"type": "object", "properties": FORM}}}}
PREDICT: dict[str, Any] = {
    "summary": "What every run says about a clip",
    "responses": {200: {"model": Reply}, **PROBLEMS},
    "openapi_extra": {"requestBody": BODY},
}
RUNS: dict[str, Any] = {
    "summary": "What is served",
    "responses": {200: {"model": Served}, **{code: PROBLEMS[code] for code in (401, 403, 503)}},
}
EXAMPLES: dict[str, Any] = {"summary": "A clip that the page offers", "responses": {404: {"model": Problem}}}
HEALTH: dict[str, Any] = {
    "summary": "200 where clips are answered",
    "responses": {503: PROBLEMS[503]},
}
